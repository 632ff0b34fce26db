/**
 * Recovery codes that nobody has seen, as their answer was cut off or the page was gone, are shown later and are the good ones;
 * whoever has used up the last code is told, and makes new ones.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Page } from "playwright-core";
import type * as Sdk from "../sdk/src/index.js";
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
import { sdkPage } from "./support/pages.js";
import { realmKeys } from "./support/stage.js";
import { origin, serverSlots, world } from "./support/world.js";

const stage = NotebookStage.set();

const WELCOME = /^Welcome back\./;

declare const sdk: typeof Sdk;

/** What an app would do that has more than the demo: signs in by codes of this device's account; removes the PIN, where that is asked. */
async function bySdk(page: Page, codes: readonly string[], removesPin = false): Promise<void> {
  for (const [path, served] of await sdkPage())
    stage.site.set(path === "/index.html" ? "/sdk.html" : path, served);
  await page.goto(`${origin}/sdk.html`);
  await page.waitForFunction(() => "sdk" in globalThis);
  const { url, app, realm } = world;
  await page.evaluate(
    async ({ url, app, realm, codes, removesPin }) => {
      const custody = await sdk.openCustody({ url, app, realm });
      for (const code of codes) await sdk.signInWithRecoveryCode(custody, code);
      if (removesPin) await sdk.removePin(custody);
    },
    { url, app, realm: { name: realm, keys: await realmKeys() }, codes, removesPin },
  );
}

/** The next answer to a set of codes does not come; the service has taken them. */
async function cutOff(page: Page): Promise<{ readonly taken: number }> {
  const seen = { taken: 0 };
  await page.route("**/v1/account/recovery-codes", async (route) => {
    if (route.request().method() !== "POST" || seen.taken > 0) return route.continue();
    // A request without a nonce is answered with one, and changes nothing.
    const answer = await route.fetch({ maxRetries: 0 });
    if (!answer.ok()) return route.fulfill({ response: answer });
    seen.taken += 1;
    return route.abort();
  });
  return seen;
}

async function accountOf(page: Page): Promise<string> {
  await settings(page);
  const account = await page.locator("small code").innerText();
  await page.getByRole("link", { name: "Notebook" }).click();
  return account;
}

/** Comes back on another device by a code on paper; says what is said there. */
async function byPaper(account: string, code: string): Promise<string> {
  const { page, context } = await stage.device(DESKTOP);
  await page.getByRole("link", { name: "I have one already" }).click();
  await page.getByLabel("Account").fill(account);
  await page.getByLabel("A recovery code").fill(code);
  await page.getByRole("button", { name: "Use the code" }).click();
  const failed = page.getByRole("alert").filter({ hasText: /./ });
  const notes = page.getByRole("heading", { name: "Notes", exact: true });
  await notes.or(failed).first().waitFor();
  const text = (await notes.count()) > 0 ? await said(page, WELCOME) : await failed.innerText();
  await context.close();
  return text;
}

test("a notebook with a PIN alone whose codes were cut off shows them once it is unlocked", async () => {
  const { page, context } = await stage.device(PHONE);
  const wrong = listen(page);
  const seen = await cutOff(page);
  await page.getByRole("button", { name: "Create a notebook" }).click();
  await page.getByLabel(/Choose a PIN/).fill(PIN);
  await page.getByLabel(/Add a passkey too/).uncheck();
  await page.getByRole("button", { name: "Create", exact: true }).click();
  await page.getByRole("alert").filter({ hasText: /./ }).waitFor();
  assert.equal(seen.taken, 1);
  await page.goto(origin);
  await toBe(page, /you may not have seen them/);
  await look(page, "phone-30-unseen");
  await page.getByRole("button", { name: "Unlock to see them" }).click();
  await page.getByLabel("PIN").fill(PIN);
  await page.getByRole("dialog").getByRole("button", { name: "Unlock", exact: true }).click();
  const codes = await written(page);
  assert.equal(codes.length, 10);
  await page.getByText(/not have seen them/).waitFor({ state: "detached" });
  assert.match(await byPaper(await accountOf(page), codes[4] ?? ""), WELCOME);
  assert.deepEqual(wrong, []);
  await context.close();
});

test("new codes whose answer was cut off are the notebook's, and those of before are void; what never arrived changes nothing", async () => {
  const { page, context } = await stage.device(DESKTOP);
  await page.getByRole("button", { name: "Create a notebook" }).click();
  await page.getByLabel(/Choose a PIN/).fill(PIN);
  await page.getByRole("button", { name: "Create", exact: true }).click();
  const before = await written(page);
  const account = await accountOf(page);
  // They never arrive: those on paper are good.
  await page.route("**/v1/account/recovery-codes", (route) => route.abort());
  await settings(page);
  await page.getByRole("button", { name: "New recovery codes" }).click();
  await page.getByRole("status").filter({ hasText: /./ }).first().waitFor();
  await page.unroute("**/v1/account/recovery-codes");
  await page.goto(origin);
  await unlockByPasskey(page);
  await page.getByRole("button", { name: "Show them" }).click();
  await said(page, /those that you had before are good/);
  assert.match(await byPaper(account, before[1] ?? ""), WELCOME);
  // They arrive, and nobody hears of it.
  const seen = await cutOff(page);
  await settings(page);
  await page.getByRole("button", { name: "New recovery codes" }).click();
  await page.getByRole("status").filter({ hasText: /./ }).first().waitFor();
  assert.equal(seen.taken, 1);
  await page.goto(origin);
  await unlock(page, PIN);
  await page.getByRole("button", { name: "Show them" }).click();
  const codes = await written(page);
  assert.doesNotMatch(await byPaper(account, before[2] ?? ""), WELCOME);
  assert.match(await byPaper(account, codes[2] ?? ""), WELCOME);
  await context.close();
});

test("whoever has used up the last code is told so until there are new ones, which open the notebook elsewhere", async () => {
  const { page, context } = await stage.device(DESKTOP);
  const wrong = listen(page);
  const codes = await created(page, false);
  const account = await accountOf(page);
  await bySdk(page, codes.slice(0, 8));
  await page.goto(`${origin}/#/recover`);
  const use = async (code = "") => {
    await page.getByLabel("A recovery code").fill(code);
    await page.getByRole("button", { name: "Use the code" }).click();
    return said(page, WELCOME);
  };
  assert.equal(await use(codes[8]), "Welcome back. One recovery code left on your paper.");
  const reminder = page.getByText(/no recovery codes on paper/);
  await settled(page);
  assert.equal(await reminder.count(), 0);
  await page.goto(`${origin}/#/recover`);
  assert.equal(await use(codes[9]), "Welcome back. That was your last recovery code.");
  await reminder.waitFor();
  await look(page, "desktop-43-last-code");
  await page.goto(origin);
  await reminder.waitFor();
  await page.getByRole("link", { name: "Make some" }).click();
  await toBe(page, /^No recovery codes left/);
  await look(page, "desktop-44-no-codes-left");
  // It is a stranger to the daemon by now who comes with a code that was used.
  assert.doesNotMatch(await byPaper(account, codes[9] ?? ""), WELCOME);
  await unlock(page, PIN);
  await page.getByRole("button", { name: "Lock", exact: true }).waitFor();
  await page.goto(`${origin}/#/settings`);
  await page.getByRole("button", { name: "New recovery codes" }).click();
  const next = await written(page);
  await toBe(page, "10 recovery codes left");
  await page.getByRole("link", { name: "Notebook" }).click();
  await settled(page);
  assert.equal(await reminder.count(), 0);
  assert.match(await byPaper(account, next[9] ?? ""), WELCOME);
  assert.deepEqual(wrong, []);
  await context.close();
});

test("where codes are all that opens the notebook, the one that was used up shows those that were cut off", async () => {
  const { page, context } = await stage.device(PHONE);
  const wrong = listen(page);
  const before = await created(page, false);
  await write(page, "Groceries\nBread");
  const account = await accountOf(page);
  await serverSlots("ending");
  await bySdk(page, before.slice(0, 1), true);
  const use = async (code = "") => {
    await page.getByLabel("A recovery code").fill(code);
    await page.getByRole("button", { name: "Use the code" }).click();
  };
  await page.goto(`${origin}/#/recover`);
  await use(before[1]);
  await said(page, WELCOME);
  const seen = await cutOff(page);
  await settings(page);
  await page.getByRole("button", { name: "New recovery codes" }).click();
  await said(page, /./);
  assert.equal(seen.taken, 1);
  // The page is gone, and nothing that is left unlocks.
  await page.goto(origin);
  await toBe(page, /you may not have seen them/);
  await page.getByRole("button", { name: "Unlock to see them" }).click();
  await page.getByRole("link", { name: "I forgot the PIN" }).click();
  await toBe(page, /type the code that you used last/);
  await look(page, "phone-45-used-code");
  await use(before[2]);
  await page.getByRole("alert").filter({ hasText: /./ }).waitFor();
  await use(before[1]);
  await toBe(page, /you have not seen them yet/);
  const next = await written(page);
  assert.equal(next.filter((code) => before.includes(code)).length, 0);
  assert.doesNotMatch(await byPaper(account, before[3] ?? ""), WELCOME);
  await page.goto(`${origin}/#/recover`);
  await use(next[0]);
  await said(page, WELCOME);
  await page.getByText("Groceries").waitFor();
  await toBe(page, "Unlocked");
  await serverSlots("allowed");
  assert.deepEqual(wrong, []);
  await context.close();
});
