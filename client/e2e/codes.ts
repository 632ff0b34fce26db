/** Recovery codes that nobody has seen, as their answer was cut off or the page was gone: they are shown later, and are the good ones. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Page } from "playwright-core";
import {
  DESKTOP,
  listen,
  look,
  NotebookStage,
  PHONE,
  PIN,
  settings,
  toBe,
  unlock,
  unlockByPasskey,
  written,
} from "./support/notebook.js";
import { origin } from "./support/world.js";

const stage = NotebookStage.set();

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
  const said = page.getByText("Welcome back.").or(page.getByRole("alert").filter({ hasText: /./ }));
  const text = await said.first().innerText();
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
  assert.equal(await byPaper(await accountOf(page), codes[4] ?? ""), "Welcome back.");
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
  await toBe(page, /those that you had before are good/);
  assert.equal(await byPaper(account, before[1] ?? ""), "Welcome back.");
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
  assert.notEqual(await byPaper(account, before[2] ?? ""), "Welcome back.");
  assert.equal(await byPaper(account, codes[2] ?? ""), "Welcome back.");
  await context.close();
});
