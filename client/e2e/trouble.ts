/**
 * What was written without a network goes out once there is one, also where Background Sync has to wake the page and where
 * the storage was damaged meanwhile, and the screen says what is true.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Page } from "playwright-core";
import {
  created,
  damage,
  DESKTOP,
  listen,
  look,
  NotebookStage,
  PHONE,
  PIN,
  said,
  settled,
  toBe,
  unlock,
  unlockByPasskey,
  write,
} from "./support/notebook.js";
import { origin, world } from "./support/world.js";

const stage = NotebookStage.set();

const LATER = "Saved on this device. It goes out later.";
const SENT = "Your changes are sent.";
const WAITING = /Changes of this device wait to be sent/;

/** The service can not be reached, and nobody tells the page. */
async function cut(page: Page): Promise<() => Promise<void>> {
  await page.route(`${world.url}/**`, (route) => route.abort());
  return () => page.unroute(`${world.url}/**`);
}

/** The service says that it can do nothing now, or a proxy does in its place. */
async function overloaded(page: Page): Promise<() => Promise<void>> {
  const status = 503;
  const problem = { type: "about:blank", title: "busy", status, detail: "busy", code: "busy" };
  const headers = { "Access-Control-Allow-Origin": "*" };
  const answer = { status, headers, contentType: "application/problem+json" };
  await page.route(`${world.url}/**`, (route) =>
    route.fulfill({ ...answer, body: JSON.stringify(problem) }),
  );
  return () => page.unroute(`${world.url}/**`);
}

/** Of Background Sync, which the types of browsers do not have. */
interface Registering {
  register(tag: string): Promise<void>;
}

/** What the page is told by its service worker and what it asks the service from now on, in order. */
async function followed(page: Page): Promise<() => Promise<string[]>> {
  await page.evaluate((url) => {
    const happened: string[] = [];
    Object.assign(window, { happened });
    const fetch = window.fetch.bind(window);
    window.fetch = (input, init) => {
      const asked = input instanceof Request ? input.url : input.toString();
      if (asked.startsWith(url)) happened.push(asked);
      return fetch(input, init);
    };
    navigator.serviceWorker.addEventListener("message", ({ data }) => happened.push(String(data)));
  }, world.url);
  return () => page.evaluate(() => (window as unknown as { happened: string[] }).happened);
}

test("what was to go out later is said to be sent once it is", async () => {
  const { page, context } = await stage.device(PHONE);
  const wrong = listen(page);
  await created(page);
  await settled(page);
  await context.setOffline(true);
  await write(page, "From the tunnel");
  await said(page, LATER);
  await toBe(page, WAITING);
  await context.setOffline(false);
  await said(page, SENT);
  assert.equal(await page.getByText(LATER).count(), 0);
  await page.getByText(WAITING).waitFor({ state: "detached" });
  assert.deepEqual(wrong, []);
  await context.close();
});

test("a page that was not told of the network is woken by Background Sync, and sends what waits", async () => {
  const { page, context } = await stage.device(DESKTOP);
  const cdp = await context.newCDPSession(page);
  const registered = new Promise<string>((resolve) => {
    cdp.on("ServiceWorker.workerRegistrationUpdated", ({ registrations }) => {
      const [own] = registrations.filter(({ scopeURL }) => scopeURL.startsWith(origin));
      if (own) resolve(own.registrationId);
    });
  });
  await cdp.send("ServiceWorker.enable");
  // What the page asks for is taken down here: to the browser its network is there all the time, so that it would wake
  // the page by itself at a moment that nobody knows.
  await page.evaluate(() => {
    const { prototype } = (window as unknown as { SyncManager: { prototype: Registering } })
      .SyncManager;
    const asked: string[] = [];
    Object.assign(window, { asked });
    prototype.register = (tag) => Promise.resolve(void asked.push(tag));
  });
  const asked = () => page.evaluate(() => (window as unknown as { asked: string[] }).asked);
  await created(page);
  await settled(page);
  assert.deepEqual(await asked(), []);
  const mend = await cut(page);
  await write(page, "From the cellar");
  await said(page, LATER);
  await toBe(page, WAITING);
  await page.waitForFunction(() => (window as unknown as { asked: string[] }).asked.length > 0);
  assert.deepEqual(await asked(), ["send"]);
  const event = { origin, registrationId: await registered, tag: "send", lastChance: false };
  await mend();
  const happened = await followed(page);
  await cdp.send("ServiceWorker.dispatchSyncEvent", { ...event, tag: "other" });
  await toBe(page, WAITING);
  await cdp.send("ServiceWorker.dispatchSyncEvent", event);
  await said(page, SENT);
  // The control: it was told once, as another name is not its affair, and had asked nobody anything before that.
  const [first, ...later] = await happened();
  assert.equal(first, "awake");
  assert.ok(later.length > 0 && !later.includes("awake"), later.join());
  await page.getByText(WAITING).waitFor({ state: "detached" });
  await context.close();
});

test("a service that can do nothing now is gone on without, and the page says which of the two it is", async () => {
  const { page, context } = await stage.device(PHONE);
  const wrong = listen(page);
  await created(page);
  await write(page, "Groceries\nBread");
  const mend = await overloaded(page);
  await page.reload();
  await toBe(page, "The service can not be reached. This is the copy of this device.");
  await page.getByText("Groceries").waitFor();
  await look(page, "phone-42-busy");
  await page.getByRole("link", { name: "Settings" }).click();
  await toBe(page, "Without a network");
  await look(page, "phone-43-settings-busy");
  await unlockByPasskey(page);
  await said(page, "Unlocked on this device. Changes go out later.");
  await page.getByRole("link", { name: "Notebook" }).click();
  await write(page, "Meanwhile");
  await said(page, LATER);
  // A PIN that does not unlock this device without a network: the service's word is what is said.
  await page.getByRole("button", { name: "Lock", exact: true }).click();
  await unlock(page, PIN);
  await toBe(page, "The service is busy. Try again in a moment.");
  await mend();
  await page.getByRole("dialog").getByRole("button", { name: "Unlock", exact: true }).click();
  await toBe(page, "Unlocked");
  await page.getByText(WAITING).waitFor({ state: "detached" });
  assert.deepEqual(wrong, []);
  await context.close();
});

test("whether there are notes is not said where nobody has answered and nothing was read", async () => {
  const { page, context } = await stage.device(DESKTOP);
  const wrong = listen(page);
  await created(page, false);
  await toBe(page, "Nothing here yet. Write your first note.");
  const mend = await cut(page);
  await page.reload();
  await toBe(page, "You are offline.");
  await toBe(page, "This device has read no notes yet.");
  assert.equal(await page.getByText("Nothing here yet").count(), 0);
  await look(page, "desktop-44-unknown");
  await mend();
  await page.reload();
  await toBe(page, "Nothing here yet. Write your first note.");
  assert.deepEqual(wrong, []);
  await context.close();
});

test("a damaged device key is repaired, the owner comes back in, and what was written without a network goes out", async () => {
  const { page, context } = await stage.device(PHONE);
  const wrong = listen(page);
  await created(page);
  await settled(page);
  await context.setOffline(true);
  await write(page, "Nowhere else");
  await toBe(page, WAITING);
  await context.setOffline(false);
  await damage(page, ["device-key"]);
  await page.goto(origin);
  await toBe(page, /What this browser kept is damaged/);
  await look(page, "phone-31-damaged");
  await page.getByRole("button", { name: "Repair this device" }).click();
  await page.getByRole("heading", { name: "Back to your notebook" }).waitFor();
  await page.getByRole("button", { name: "Use a passkey" }).click();
  await toBe(page, "Unlocked");
  await said(page, SENT);
  await page.getByText(WAITING).waitFor({ state: "detached" });
  await page.getByText("Nowhere else").waitFor();
  // Another device of the owner's has it.
  await page.goto(origin);
  await unlock(page, PIN);
  await toBe(page, "Unlocked");
  await page.getByText("Nowhere else").waitFor();
  assert.deepEqual(wrong, []);
  await context.close();
});
