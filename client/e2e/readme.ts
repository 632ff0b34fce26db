/**
 * The examples of sdk/README.md, run as they stand there.
 *
 * Blocks of one device are one module, in their order; `ask` and `show` are an app's user interface.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import type { Server } from "node:https";
import { after, before, test } from "node:test";
import { build, type Plugin } from "esbuild";
import type { Browser } from "playwright-core";
import { Device, launch } from "./support/browser.js";
import { serve, type Site } from "./support/pages.js";
import { realmKeys } from "./support/stage.js";
import { origin, world } from "./support/world.js";

const README = readFileSync("sdk/README.md", "utf8");

/** The blocks of a device, as one module. */
function example(info: string): string {
  const blocks = README.split("```").filter((_, at) => at % 2 === 1);
  const meant = blocks.filter((block) => block.startsWith(`${info}\n`));
  assert.ok(meant.length > 0, info);
  const code = meant.map((block) => block.slice(info.length)).join("\n");
  return code.replaceAll("https://custody.example", world.url) + "\nglobalThis.done = true;";
}

/** `./realm.json` is the realm of this run. */
function pinned(realm: object): Plugin {
  return {
    name: "pinned",
    setup: (bundler) => {
      bundler.onResolve({ filter: /realm\.json$/ }, ({ path }) => ({ path, namespace: "pinned" }));
      bundler.onLoad({ filter: /.*/, namespace: "pinned" }, () => {
        return { contents: JSON.stringify(realm), loader: "json" };
      });
    },
  };
}

async function bundled(code: string, realm: object): Promise<string> {
  const made = await build({
    stdin: { contents: code, resolveDir: process.cwd(), loader: "ts" },
    alias: { "@custodyd/sdk": `${process.cwd()}/sdk/src/index.ts` },
    plugins: [pinned(realm)],
    bundle: true,
    format: "esm",
    target: "es2022",
    write: false,
  });
  return made.outputFiles[0]?.text ?? "";
}

let browser: Browser;
let server: Server;
before(async () => {
  const realm = { name: world.realm, keys: await realmKeys() };
  const page = (script: string) => ({
    body: `<!doctype html><html lang="en"><title>README</title><script type="module" src="${script}"></script></html>`,
    type: "text/html",
  });
  const script = async (info: string) => {
    return { body: await bundled(example(info), realm), type: "text/javascript" };
  };
  const site: Site = new Map([
    ["/index.html", { body: "<!doctype html><title>empty</title>", type: "text/html" }],
    ["/one", page("/one.js")],
    ["/two", page("/two.js")],
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

/** Opens a page, answers its questions, and returns what it has shown. */
async function run(
  device: Device,
  path: string,
  answers: Record<string, string>,
): Promise<unknown[]> {
  const { page } = device;
  const failures: string[] = [];
  page.on("pageerror", (error) => failures.push(error.message));
  await page.addInitScript((answers) => {
    const shown: unknown[] = [];
    Object.assign(globalThis, {
      shown,
      ask: (question: string) => Promise.resolve(answers[question]),
      show: (...values: unknown[]) => shown.push(...values),
    });
  }, answers);
  await page.goto(origin + path);
  const ended = () => "done" in globalThis;
  for (let tries = 0; tries < 600; tries += 1) {
    if (failures.length > 0 || (await page.evaluate(ended))) break;
    await page.waitForTimeout(50);
  }
  assert.deepEqual(failures, []);
  assert.ok(await page.evaluate(ended), "the example has not ended");
  return page.evaluate(() => (globalThis as unknown as { shown: unknown[] }).shown);
}

test("the examples of the README do what they say", async () => {
  const phone = await Device.make(browser);
  const shown = await run(phone, "/one", { "Choose a PIN": "830517", PIN: "830517" });
  const [codes, devices, key] = shown as [string[], string[], string];
  assert.equal(codes.length, 10);
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
  assert.deepEqual(await run(laptop, "/two", answers), [key]);
});
