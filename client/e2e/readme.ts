/**
 * The examples of sdk/README.md and of the repository's own, run as they stand there.
 *
 * Blocks of one device are one module, in their order; `ask` and `show` are an app's user interface.
 */
import assert from "node:assert/strict";
import type { Server } from "node:https";
import { after, before, test } from "node:test";
import type { Browser } from "playwright-core";
import { Device, launch } from "./support/browser.js";
import { bundled, example, run } from "./support/examples.js";
import { serve, type Site } from "./support/pages.js";
import { realmKeys } from "./support/stage.js";
import { world } from "./support/world.js";

let browser: Browser;
let server: Server;
before(async () => {
  const realm = { name: world.realm, keys: await realmKeys() };
  const page = (script: string) => ({
    body: `<!doctype html><html lang="en"><title>README</title><script type="module" src="${script}"></script></html>`,
    type: "text/html",
  });
  const script = async (info: string, readme?: string) => {
    return {
      body: await bundled(example(info, readme), { "./realm.json": realm }),
      type: "text/javascript",
    };
  };
  const site: Site = new Map([
    ["/index.html", { body: "<!doctype html><title>empty</title>", type: "text/html" }],
    ["/one", page("/one.js")],
    ["/two", page("/two.js")],
    ["/root", page("/root.js")],
    ["/root.js", await script("ts", "../README.md")],
    ["/one.js", await script("ts")],
    ["/two.js", await script("ts device=2")],
  ]);
  server = await serve(site);
  browser = await launch();
});
after(async () => {
  await browser.close();
  server.close();
});

test("the examples of the README do what they say", async () => {
  const phone = await Device.make(browser);
  const shown = await run(phone, "/one", { "Choose a PIN": "830517", PIN: "830517" });
  const [first, devices, key] = shown as [string[], string[], string];
  // Those that came with the new secret: the first ones are void.
  const sets = shown.filter((one): one is string[] => Array.isArray(one) && one.length === 10);
  const [codes = []] = sets.slice(-1);
  assert.deepEqual([sets.length, sets[0]], [2, first]);
  assert.deepEqual(devices, ["Ann's phone"]);
  assert.match(key, /^[\w-]{43}$/);
  assert.ok(shown.includes("account-created"));
  const account = await phone.page.evaluate(async () => {
    const database = await new Promise<IDBDatabase>((resolve) => {
      const request = indexedDB.open("custodyd:notes");
      request.onsuccess = () => {
        resolve(request.result);
      };
    });
    const request = database.transaction("kept").objectStore("kept").get("account");
    return new Promise<string>((resolve) => {
      request.onsuccess = () => {
        resolve((request.result as { account: string }).account);
      };
    });
  });
  const laptop = await Device.make(browser);
  const answers = { Account: account, "Recovery code": codes[3] ?? "" };
  const told = await run(laptop, "/two", answers);
  assert.deepEqual(told, [key, ["app-key", "device-secret", "draft", "notes"], [], undefined]);
});

test("the example of the first page signs with one key before and after a sign-in", async () => {
  const phone = await Device.make(browser);
  const shown = await run(phone, "/root", { "Choose a PIN": "830517", PIN: "830517" });
  // Signatures, as far as they come out of a page.
  const bytes = shown.map((one) => Object.keys(one as object).length);
  assert.deepEqual(bytes, [64, 64]);
});
