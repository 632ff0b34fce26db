/**
 * In the demo a forgotten PIN is replaced by a code, a service that gives its own way up says what each way is still worth, and
 * after a device was lost the rest is renewed.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Page } from "playwright-core";
import {
  created,
  listen,
  look,
  NotebookStage,
  PHONE,
  PIN,
  remove,
  said,
  settings,
  toBe,
  unlock,
  write,
} from "./support/notebook.js";
import { authenticatorCode } from "./support/totp.js";
import { codeFor, origin, outboxOrNone, serverSlots } from "./support/world.js";

const stage = NotebookStage.set();

/** To the page of ways back, where a code was asked for; returns that. */
async function codeAskedFor(page: Page, address: string): Promise<string> {
  const sent = outboxOrNone().length;
  await page.getByLabel("E-mail address of your notebook").fill(address);
  await page.getByRole("button", { name: "Send me a code" }).click();
  return codeFor(address, sent);
}

/** Settings take the address that codes go to. */
async function addressTaken(page: Page, address: string): Promise<void> {
  await settings(page);
  const claimed = outboxOrNone().length;
  await page.getByLabel("E-mail address").fill(address);
  await page.getByRole("button", { name: "Send a code there" }).click();
  await page.getByLabel("The code that came").fill(await codeFor(address, claimed));
  await page.getByRole("button", { name: "Confirm" }).click();
  await page.getByText("confirmed", { exact: true }).waitFor();
}

test("a PIN that is forgotten on the device itself is replaced by a code, which may not have the key", async () => {
  const { page, context } = await stage.device(PHONE);
  const wrong = listen(page);
  await created(page, false);
  await write(page, "Groceries\nBread");
  await addressTaken(page, "bea@example.com");
  // The key is open still, so that its slots are at hand: the code may not change them.
  await page.goto(`${origin}/#/recover`);
  const code = await codeAskedFor(page, "bea@example.com");
  await page.getByLabel("The code that came").fill(code);
  await page.getByLabel("Choose a new PIN").fill("294061");
  await page.getByRole("button", { name: "Open my notebook" }).click();
  await page.getByText("Groceries").waitFor();
  await toBe(page, "Unlocked");
  await page.reload();
  await unlock(page, "294061");
  await toBe(page, "Unlocked");
  assert.deepEqual(wrong, []);
  await context.close();
});

test("a PIN that is forgotten by who finds the notebook locked is replaced by the code that came, and by no other", async () => {
  const { page, context } = await stage.device(PHONE);
  const wrong = listen(page);
  await created(page, false);
  await write(page, "Groceries\nBread");
  await addressTaken(page, "cem@example.com");
  // A session that reads, and does nothing else.
  await page.goto(origin);
  await toBe(page, "Locked: reading only");
  await page.getByRole("banner").getByRole("button", { name: "Unlock", exact: true }).click();
  await page.getByRole("link", { name: "I forgot the PIN" }).click();
  const code = await codeAskedFor(page, "cem@example.com");
  const typed = page.getByLabel("The code that came");
  const open = page.getByRole("button", { name: "Open my notebook" });
  await typed.fill(code.replace(/[0-9]$/, (digit) => String((Number(digit) + 1) % 10)));
  await page.getByLabel("Choose a new PIN").fill("294061");
  await open.click();
  await toBe(page, /That is not right/);
  // The code is used up by this, and its session goes on although the PIN is refused.
  await typed.fill(code);
  await page.getByLabel("Choose a new PIN").fill("123456");
  await open.click();
  await toBe(page, /longer or harder to guess/);
  await page.getByLabel("Choose a new PIN").fill("294061");
  await open.click();
  await toBe(page, "Unlocked");
  await page.reload();
  await unlock(page, PIN);
  await toBe(page, /tries are left/);
  await page.getByLabel("PIN").fill("294061");
  await page.getByRole("dialog").getByRole("button", { name: "Unlock", exact: true }).click();
  await toBe(page, "Unlocked");
  assert.deepEqual(wrong, []);
  await context.close();
});

test("when the service gives up what opens the notebook, that is said once, and each way says what it is worth", async () => {
  const { page, context } = await stage.device(PHONE);
  const wrong = listen(page);
  await created(page);
  await write(page, "Groceries\nBread");
  await settings(page);
  await page.getByRole("button", { name: "Add an authenticator app" }).click();
  const uri = `otpauth://totp/x?secret=${await page.locator(".codes").innerText()}`;
  await page.getByLabel("Code of the app").fill(authenticatorCode(uri, 0));
  await page.getByRole("button", { name: "Confirm" }).click();
  await toBe(page, "Authenticator app");
  const hint = page.getByText("Does not open the notebook any more.");
  assert.equal(await hint.count(), 0);
  await serverSlots("ending");
  await page.goto(origin);
  await unlock(page, PIN);
  await said(page, /From now on nobody but you can open your notebook/);
  await look(page, "phone-14-moved");
  await page.getByRole("button", { name: "Lock", exact: true }).click();
  await unlock(page, PIN);
  await said(page, "Unlocked.");
  // It stays where the ways are, also for who comes back later.
  await page.goto(`${origin}/#/settings`);
  await page.reload();
  await hint.waitFor();
  await look(page, "phone-15-ways");
  await page.emulateMedia({ colorScheme: "dark" });
  await look(page, "phone-16-ways-dark");
  await page.setViewportSize({ width: 1280, height: 860 });
  await look(page, "desktop-11-ways-dark");
  await page.emulateMedia({ colorScheme: "light" });
  await look(page, "desktop-12-ways");
  // The way that it is said of says so, too; without it there is nothing to say.
  await page.getByRole("banner").getByRole("button", { name: "Unlock", exact: true }).click();
  await page.getByRole("button", { name: "Use an authenticator app" }).click();
  await page.getByLabel("Code of the app").fill(authenticatorCode(uri, 1));
  await page.getByRole("button", { name: "Unlock", exact: true }).last().click();
  await toBe(page, /can not bring your key back/);
  await page.reload();
  await unlock(page, PIN);
  await page.getByRole("button", { name: "Lock", exact: true }).waitFor();
  await remove(page, "Remove the authenticator app");
  await page.getByText("No authenticator app").waitFor();
  assert.equal(await hint.count(), 0);
  await serverSlots("allowed");
  assert.deepEqual(wrong, []);
  await context.close();
});

test("a device that was lost is removed, the notebook gets another secret, and what opens nothing says so until it does", async () => {
  const { page, context } = await stage.device(PHONE);
  const wrong = listen(page);
  const codes = await created(page);
  await write(page, "Groceries\nBread");
  await settings(page);
  const account = await page.locator("small code").innerText();
  const lost = await stage.device({});
  await lost.page.goto(`${origin}/#/recover`);
  await lost.page.getByLabel("Account").fill(account);
  await lost.page.getByLabel("A recovery code").fill(codes[0] ?? "");
  await lost.page.getByRole("button", { name: "Use the code" }).click();
  await lost.page.getByText("Groceries").waitFor();
  await settings(lost.page);
  const passkeys = (at: typeof page) => at.getByRole("listitem").filter({ hasText: "last used" });
  await lost.page.getByRole("button", { name: "Add a passkey" }).click();
  await passkeys(lost.page).nth(1).waitFor();

  await serverSlots("ending");
  const byPasskey = async () => {
    await page.getByRole("banner").getByRole("button", { name: "Unlock", exact: true }).click();
    await page.getByRole("button", { name: "Use a passkey" }).click();
    await page.getByRole("button", { name: "Lock", exact: true }).waitFor();
  };
  await page.goto(origin);
  await byPasskey();
  await settings(page);
  await page.getByRole("button", { name: /^Lost: / }).click();
  await page.getByRole("heading", { name: "Was this device lost?" }).waitFor();
  await look(page, "phone-17-lost");
  await page.getByRole("button", { name: "Remove it, renew the secret" }).click();
  await page.getByRole("heading", { name: "Your recovery codes" }).waitFor();
  const next = await page.locator(".codes li").allInnerTexts();
  assert.deepEqual([next.length, next.filter((code) => codes.includes(code))], [10, []]);
  await look(page, "phone-18-new-codes");
  await page.getByRole("button", { name: "I have written them down" }).click();
  const passkey = page.getByText(/One that opens nothing yet/);
  const pin = page.getByText("Opens nothing any more. Change it once, and it does.");
  await passkey.first().waitFor();
  await pin.waitFor();
  await look(page, "phone-19-renewed");
  // This phone's passkey opens: that says nothing of the other one.
  await page.getByRole("button", { name: "Lock", exact: true }).click();
  await byPasskey();
  await passkey.first().waitFor();
  await passkeys(page)
    .nth(1)
    .getByRole("button", { name: /^Remove/ })
    .click();
  await page.getByRole("button", { name: "Remove it" }).click();
  await passkeys(page).nth(1).waitFor({ state: "detached" });
  assert.equal(await passkey.count(), 0);
  await page.getByRole("button", { name: "Change PIN" }).click();
  await page.getByLabel("New PIN", { exact: true }).fill("294061");
  await page.getByRole("button", { name: "Change", exact: true }).click();
  await said(page, "The PIN is changed.");
  await pin.waitFor({ state: "detached" });

  await lost.page.goto(origin);
  await toBe(lost.page, "This device is not bound to the notebook any more.");
  await page.goto(origin);
  await page.reload();
  await unlock(page, "294061");
  await page.getByText("Groceries").waitFor();
  await serverSlots("allowed");
  assert.deepEqual(wrong, []);
  await Promise.all([context.close(), lost.context.close()]);
});
