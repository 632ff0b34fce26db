/**
 * Starting over: for whoever has no way back to the notebook that a browser knows, also where another tab has brought it back,
 * or a code by mail has found it.
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
  toBe,
  unlock,
  write,
} from "./support/notebook.js";
import { codeFor, origin, outboxOrNone, world } from "./support/world.js";

const stage = NotebookStage.set();

const WELCOME = /Notes that open/;

/** The page of ways back, and the last of them. */
async function startedOver(page: Page): Promise<void> {
  await page.goto(`${origin}/#/recover`);
  await page.getByRole("button", { name: "Start over" }).click();
  const gone = page.waitForEvent("load");
  await page.getByRole("button", { name: "Forget this notebook" }).click();
  await gone;
  await page.getByRole("heading", { name: WELCOME }).waitFor();
}

/** Which account the browser has. */
async function accountOf(page: Page): Promise<string> {
  await page.goto(`${origin}/#/recover`);
  return page.getByLabel("Account").inputValue();
}

test("a notebook that another tab has brought back is not written into, and is forgotten for good", async () => {
  const { page, context } = await stage.device(PHONE);
  const wrong = listen(page);
  await created(page, false);
  const tab = await context.newPage();
  await tab.goto(origin);
  await toBe(tab, "Locked: reading only");
  await startedOver(page);
  // It is still open, and reads.
  await tab.getByRole("link", { name: "Settings" }).click();
  await tab.getByRole("heading", { name: "Devices" }).waitFor();
  await page.goto(origin);
  await page.reload();
  await page.getByRole("heading", { name: WELCOME }).waitFor();
  await page.getByRole("button", { name: "Create a notebook" }).click();
  await said(page, /This browser knows a notebook already/);
  await look(page, "phone-40-known");
  assert.equal(await page.getByRole("dialog").count(), 0);
  await tab.close();
  await page.getByRole("link", { name: "I have one already" }).click();
  await look(page, "phone-41-start-over");
  await startedOver(page);
  await created(page, false);
  await toBe(page, "Unlocked");
  assert.deepEqual(wrong, []);
  await context.close();
});

test("whoever has given up a code by mail sets no PIN of that notebook, and can start over", async () => {
  const [phone, laptop] = [await stage.device(PHONE), await stage.device(DESKTOP)];
  await created(phone.page, false);
  await settings(phone.page);
  let sent = outboxOrNone().length;
  await phone.page.getByLabel("E-mail address").fill("bea@example.com");
  await phone.page.getByRole("button", { name: "Send a code there" }).click();
  await phone.page.getByLabel("The code that came").fill(await codeFor("bea@example.com", sent));
  await phone.page.getByRole("button", { name: "Confirm" }).click();
  await toBe(phone.page, "confirmed");
  const { page } = laptop;
  await page.getByRole("link", { name: "I have one already" }).click();
  sent = outboxOrNone().length;
  await page.getByLabel("E-mail address of your notebook").fill("bea@example.com");
  await page.getByRole("button", { name: "Send me a code" }).click();
  await page.getByLabel("The code that came").fill(await codeFor("bea@example.com", sent));
  await page.getByLabel("Choose a new PIN").fill("123456");
  await page.getByRole("button", { name: "Open my notebook" }).click();
  await toBe(page, /longer or harder to guess/);
  await page.getByRole("link", { name: "Notebook" }).click();
  await page.getByRole("button", { name: "Create a notebook" }).click();
  await said(page, /This browser knows a notebook already/);
  // The PIN is the one that its owner knows.
  await phone.page.getByRole("button", { name: "Lock", exact: true }).click();
  await unlock(phone.page, PIN);
  await phone.page.getByRole("button", { name: "Lock", exact: true }).waitFor();
  await startedOver(page);
  await created(page, false);
  await toBe(page, "Unlocked");
  await Promise.all([phone.context.close(), laptop.context.close()]);
});

test("what another notebook of this browser has nowhere else is named before all of it goes", async () => {
  const [phone, laptop] = [await stage.device(PHONE), await stage.device(DESKTOP)];
  const { page } = phone;
  await created(page);
  await page.evaluate(() => {
    // The browser, whose network is there, would wake the page to send it.
    const { prototype } = (window as unknown as { SyncManager: { prototype: object } }).SyncManager;
    Object.assign(prototype, { register: () => Promise.resolve() });
  });
  await page.route(`${world.url}/**`, (route) => route.abort());
  await write(page, "Nowhere else");
  await toBe(page, /wait to be sent/);
  await page.unroute(`${world.url}/**`);
  const first = await accountOf(page);
  const [code = ""] = await created(laptop.page, false);
  await settings(laptop.page);
  const account = await laptop.page.locator("small code").innerText();
  // The control: there is no other one, and none is named.
  await page.goto(`${origin}/#/recover`);
  await page.getByRole("button", { name: "Start over" }).click();
  await page.getByRole("button", { name: "Forget this notebook" }).waitFor();
  assert.equal(await page.getByText(/Other notebooks of this browser/).count(), 0);
  await page.keyboard.press("Escape");
  await page.getByLabel("Account").fill(account);
  await page.getByLabel("A recovery code").fill(code);
  await page.getByRole("button", { name: "Use the code" }).click();
  await toBe(page, "Nothing here yet. Write your first note.");
  await page.goto(`${origin}/#/recover`);
  await page.getByRole("button", { name: "Start over" }).click();
  await toBe(page, /^changes that were not sent/);
  await toBe(page, first);
  await look(page, "phone-45-others");
  await page.getByRole("button", { name: "Forget all of them" }).click();
  await page.getByRole("heading", { name: WELCOME }).waitFor();
  await Promise.all([phone.context.close(), laptop.context.close()]);
});

test("a notebook whose first PIN was refused is gone on with, also where the page was closed meanwhile", async () => {
  const { page, context } = await stage.device(PHONE);
  const wrong = listen(page);
  await page.getByRole("button", { name: "Create a notebook" }).click();
  await page.getByLabel(/Choose a PIN/).fill("123456");
  await page.getByRole("button", { name: "Create", exact: true }).click();
  await toBe(page, /longer or harder to guess/);
  // By then the account is there, and nobody could come in to it.
  const first = await accountOf(page);
  assert.notEqual(first, "");
  await page.goto(origin);
  await page.reload();
  await page.getByRole("heading", { name: WELCOME }).waitFor();
  await created(page, false);
  await toBe(page, "Unlocked");
  assert.equal(await accountOf(page), first);
  await page.goto(origin);
  await page.reload();
  await unlock(page, PIN);
  await toBe(page, "Unlocked");
  assert.deepEqual(wrong, []);
  await context.close();
});
