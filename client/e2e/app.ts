/**
 * The demo as an app goes on by keyboard alone, where nobody answers, beside a newer version of itself, and after a passkey
 * was cancelled, codes were not written down or a log was not checked.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Page } from "playwright-core";
import {
  created,
  DESKTOP,
  listen,
  look,
  NotebookStage,
  PHONE,
  PIN,
  said,
  settings,
  settled,
  toBe,
  unlock,
  unlockByPasskey,
  write,
  written,
} from "./support/notebook.js";
import { origin, world } from "./support/world.js";

const stage = NotebookStage.set();

/** Presses Tab until something of this name has the focus. */
async function tabTo(page: Page, name: string | RegExp): Promise<void> {
  const has = typeof name === "string" ? { exact: true } : {};
  for (let times = 0; times < 60; times += 1) {
    await page.keyboard.press("Tab");
    for (const role of ["button", "link", "textbox"] as const) {
      const focused = page.getByRole(role, { name, ...has }).and(page.locator(":focus"));
      if ((await focused.count()) > 0) return;
    }
  }
  assert.fail(`Tab does not come to ${name}`);
}

const focused = (page: Page) =>
  page.evaluate(() => document.activeElement?.textContent.trim() ?? "");

test("a notebook is made, written in, locked and unlocked by keyboard alone, and the focus is never lost", async () => {
  const { page, context } = await stage.device(DESKTOP);
  const wrong = listen(page);
  await page.getByRole("heading", { name: /Notes that open/ }).waitFor();
  await tabTo(page, "Create a notebook");
  await page.keyboard.press("Enter");
  await page.keyboard.type(PIN);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Your recovery codes" }).waitFor();
  await tabTo(page, "I have written them down");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.title.startsWith("Notes \u2013"));
  await page.waitForFunction(() => document.activeElement?.textContent === "Notes");
  await tabTo(page, "New note");
  await page.keyboard.press("Enter");
  await page.keyboard.type("By keyboard");
  await tabTo(page, "Save");
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  await said(page, "Saved.");
  // Back at the button that opened the dialog, although the page was drawn again.
  await page.waitForFunction(() => document.activeElement?.textContent === "New note");
  await tabTo(page, "Lock");
  await page.keyboard.press("Enter");
  // That button is no more: the heading takes its place.
  await page.waitForFunction(() => document.activeElement?.textContent === "Notes");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Escape");
  await tabTo(page, "Unlock");
  await page.keyboard.press("Enter");
  await page.keyboard.type(PIN);
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Lock", exact: true }).waitFor();
  await tabTo(page, "Settings");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.title.startsWith("Settings \u2013"));
  assert.equal(await focused(page), "Settings");
  // What the dialog says of a mistake is in the dialog, as all else can not be heard, and stays there.
  await page.getByRole("heading", { name: "Devices" }).waitFor();
  await tabTo(page, /^Remove passkey/);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: /^Remove passkey .*\?$/ }).waitFor();
  await page.route(`${world.url}/**`, (route) => route.abort());
  await tabTo(page, "Remove it");
  await page.keyboard.press("Enter");
  const mistake = page.getByRole("dialog").getByRole("status");
  await mistake.filter({ hasText: "No connection" }).waitFor();
  await look(page, "desktop-15-error-in-dialog");
  // What passes is taken back after five seconds. That this is not, nothing but time can show.
  await page.waitForTimeout(5500);
  assert.match(await mistake.innerText(), /No connection/);
  await page.unroute(`${world.url}/**`);
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  await page.waitForFunction(() =>
    document.activeElement?.getAttribute("aria-label")?.startsWith("Remove passkey"),
  );
  assert.deepEqual(wrong, []);
  await context.close();
});

test("the skip link leads to the content, and leaves the page and what is typed there, as a network that is back does", async () => {
  const { page, context } = await stage.device(DESKTOP);
  await created(page, false);
  await settings(page);
  const field = page.getByLabel("E-mail address");
  await field.fill("ann@exam");
  await page.getByRole("link", { name: "Skip to the content" }).focus();
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement?.id), "main");
  const read = page.waitForResponse((response) => response.url().endsWith("/secrets/notes"));
  await page.evaluate(() => dispatchEvent(new Event("online")));
  // Had it been drawn again, it would be by now: a drawing that is begun shows at once.
  await settled(page);
  await read;
  await settled(page);
  assert.equal(await field.inputValue(), "ann@exam");
  assert.match(page.url(), /#\/settings$/);
  await context.close();
});

test("where nobody answers, the notes are there at once and a passkey unlocks soon", async () => {
  const { page, context } = await stage.device(PHONE);
  const wrong = listen(page);
  const began = Date.now();
  await created(page);
  await write(page, "Groceries\nBread");
  await page.waitForFunction(() => navigator.serviceWorker.controller !== null);
  // Requests go out, and nothing ever comes back. As much is done as before, by a machine that is as slow.
  await page.route(`${world.url}/**`, () => undefined);
  const started = Date.now();
  const usual = started - began;
  await page.goto(origin);
  await page.reload();
  await page.getByText("Groceries").waitFor();
  await unlockByPasskey(page);
  await write(page, "In the tunnel\nnobody answers");
  await toBe(page, /wait to be sent/);
  assert.ok(Date.now() - started < 30_000 + usual, "as long as a request waits");
  await page.getByText("Groceries").waitFor();
  assert.deepEqual(wrong, []);
  await context.close();
});

test("a new version waits until somebody asks for it, and a page of the old one goes on", async () => {
  const first = await stage.device(DESKTOP);
  const { page, context } = first;
  await page.waitForFunction(() => navigator.serviceWorker.controller !== null);
  await page.evaluate(() => caches.open("another-app"));
  const other = await context.newPage();
  await other.goto(origin);
  await other.getByRole("button", { name: "Create a notebook" }).waitFor();
  const before = new Map(stage.site);
  newVersion();
  await page.evaluate(async () => (await navigator.serviceWorker.ready).update());
  await toBe(page, /There is a new version of this app/);
  await look(page, "desktop-16-new-version");
  assert.equal(await page.getAttribute("html", "data-version"), null);
  await page.getByRole("button", { name: "Load it" }).click();
  await page.locator("html[data-version=new]").waitFor();
  // The other page needs a part that only its own version has: OPAQUE, for the PIN.
  assert.equal(await other.getAttribute("html", "data-version"), null);
  await created(other, false);
  await other.getByRole("button", { name: "Lock", exact: true }).waitFor();
  const names = async () =>
    (await page.evaluate(() => caches.keys())).map((name) => name.replace(/\/.*/, "/")).sort();
  assert.deepEqual(await names(), ["another-app", "notebook/", "notebook/"]);
  // Once no page of it can be left, the old version goes, and nothing of another app's does.
  await other.close();
  // A page that is closed is not gone at once.
  for (let tries = 0; tries < 60 && (await names()).length > 2; tries += 1) {
    await page.goto("about:blank");
    await page.goto(origin);
    // Between two looks, since nobody tells when a browser has let a page go.
    await page.waitForTimeout(250);
  }
  assert.deepEqual(await names(), ["another-app", "notebook/"]);
  for (const [path, served] of before) stage.site.set(path, served);
  await context.close();
});

/** As another build of the app would be: no part but the entry has the name that it had. */
function newVersion(): void {
  const names = [...stage.site.keys()].filter((path) => /-[A-Z0-9]{8}\.js$/.test(path));
  assert.ok(names.length > 0);
  const renamed = (text: string): string =>
    names.reduce((all, name) => all.replaceAll(name.slice(1), `new-${name.slice(1)}`), text);
  for (const [path, { body, type }] of [...stage.site]) {
    let text = renamed(body.toString());
    if (path === "/index.html") text = text.replace("<html", '<html data-version="new"');
    if (path === "/sw.js") text = text.replace(/[0-9a-f]{16}/, "fedcba9876543210");
    if (!/\.(js|html)$/.test(path)) continue;
    stage.site.delete(path);
    stage.site.set(names.includes(path) ? `/new-${path.slice(1)}` : path, { body: text, type });
  }
}

test("a notebook whose passkey was cancelled has recovery codes, and says so where they were not written down", async () => {
  const phone = await stage.device(PHONE, { verified: false });
  const { page, context } = phone;
  const wrong = listen(page);
  await page.getByRole("button", { name: "Create a notebook" }).click();
  await page.getByLabel(/Choose a PIN/).fill(PIN);
  await page.getByRole("button", { name: "Create", exact: true }).click();
  await page.getByRole("heading", { name: "Your recovery codes" }).waitFor();
  await toBe(page, /No passkey was added/);
  await page.keyboard.press("Escape");
  const reminder = page.getByText(/you may not have seen them/);
  await reminder.waitFor();
  await look(page, "phone-20-no-codes");
  await page.getByRole("button", { name: "Show them" }).click();
  await page.getByRole("heading", { name: "Your recovery codes" }).waitFor();
  await page.keyboard.press("Escape");
  // It stays until they were, also for who comes back later.
  await page.goto(origin);
  await reminder.waitFor();
  await page.getByRole("button", { name: "Unlock to see them" }).click();
  await page.getByLabel("PIN").fill(PIN);
  await page.getByRole("dialog").getByRole("button", { name: "Unlock", exact: true }).click();
  assert.equal((await written(page)).length, 10);
  await reminder.waitFor({ state: "detached" });
  await page.goto(origin);
  await page.getByRole("heading", { name: "Notes" }).waitFor();
  await toBe(page, "Locked: reading only");
  assert.equal(await reminder.count(), 0);
  await context.close();

  const other = await stage.device(PHONE, { verified: false });
  await created(other.page);
  await other.page.getByRole("heading", { name: "Notes" }).waitFor();
  await other.page
    .getByText(/no recovery codes on paper|not have seen/)
    .waitFor({ state: "detached" });
  assert.deepEqual(wrong, []);
  await other.context.close();
});

test("a sign-in whose log could not be checked says so, until it is", async () => {
  const { page, context } = await stage.device(DESKTOP);
  const wrong = listen(page);
  await created(page, false);
  // A page that is drawn again meanwhile would take the click along.
  await settled(page);
  await page.getByRole("button", { name: "Lock", exact: true }).click();
  await page.route(`${world.url}/v1/account/events*`, (route) => route.abort());
  await unlock(page, PIN);
  await toBe(page, /was not checked/);
  await look(page, "desktop-17-log");
  await page.unroute(`${world.url}/v1/account/events*`);
  await page.getByRole("button", { name: "Check it now" }).click();
  await page.getByText(/was not checked/).waitFor({ state: "detached" });
  assert.deepEqual(wrong, []);
  await context.close();
});

test("a press that lasts while the page is drawn again is a click, and holds nothing up for good", async () => {
  const { page, context } = await stage.device(DESKTOP);
  await created(page, false);
  await settled(page);
  const again = () => page.evaluate(() => dispatchEvent(new Event("online")));
  // Of what is there during the press: until then the page may be drawn at any time.
  const isGoneLater = async () => {
    const old = await page.locator("main").elementHandle();
    return () => old?.evaluate((main) => !main.isConnected);
  };
  await page.getByRole("button", { name: "New note" }).hover();
  await page.mouse.down();
  let isGone = await isGoneLater();
  await again();
  assert.equal(await isGone(), false);
  await page.mouse.up();
  await page.getByRole("heading", { name: "New note" }).waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "New note" }).waitFor();
  // A press whose end is never heard.
  await page.mouse.move(5, 5);
  await page.mouse.down();
  isGone = await isGoneLater();
  await again();
  await settled(page);
  assert.equal(await isGone(), true);
  await page.mouse.up();
  await context.close();
});
