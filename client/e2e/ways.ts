/** What becomes of a notebook's ways to unlock: a PIN that is forgotten, and a service that gives its own way up. */
import assert from "node:assert/strict";
import type { Server } from "node:https";
import { after, before, test } from "node:test";
import type { Browser } from "playwright-core";
import { Device, launch } from "./support/browser.js";
import {
  created,
  listen,
  look,
  notebookSite,
  PHONE,
  PIN,
  settings,
  toBe,
  unlock,
  write,
} from "./support/notebook.js";
import { serve } from "./support/pages.js";
import { authenticatorCode } from "./support/totp.js";
import { codeFor, origin, outboxOrNone, serverSlots } from "./support/world.js";

let browser: Browser;
let server: Server;
before(async () => {
  server = await serve(await notebookSite());
  browser = await launch();
});
after(async () => {
  await browser.close();
  server.close();
});

test("a PIN that is forgotten on the device itself is replaced by a code, which may not have the key", async () => {
  const { page, context } = await Device.make(browser, {}, PHONE);
  const wrong = listen(page);
  await created(page, false);
  await write(page, "Groceries\nBread");
  await settings(page);
  const claimed = outboxOrNone().length;
  await page.getByLabel("E-mail address").fill("bea@example.com");
  await page.getByRole("button", { name: "Send a code there" }).click();
  await page.getByLabel("The code that came").fill(await codeFor("bea@example.com", claimed));
  await page.getByRole("button", { name: "Confirm" }).click();
  await page.getByText("confirmed", { exact: true }).waitFor();
  // The key is open still, so that its slots are at hand: the code may not change them.
  await page.goto(`${origin}/#/recover`);
  const sent = outboxOrNone().length;
  await page.getByLabel("E-mail address of your notebook").fill("bea@example.com");
  await page.getByRole("button", { name: "Send me a code" }).click();
  await page.getByLabel("The code that came").fill(await codeFor("bea@example.com", sent));
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

test("when the service gives up what opens the notebook, that is said once, and each way says what it is worth", async () => {
  const { page, context } = await Device.make(browser, {}, PHONE);
  const wrong = listen(page);
  await created(page);
  await write(page, "Groceries\nBread");
  await settings(page);
  await page.getByRole("button", { name: "Add", exact: true }).click();
  const uri = `otpauth://totp/x?secret=${await page.locator(".codes").innerText()}`;
  await page.getByLabel("Code of the app").fill(authenticatorCode(uri, 0));
  await page.getByRole("button", { name: "Confirm" }).click();
  await toBe(page, "Authenticator app");
  const hint = page.getByText("Does not open the notebook any more.");
  assert.equal(await hint.count(), 0);
  await serverSlots("ending");
  await page.goto(origin);
  await unlock(page, PIN);
  await toBe(page, /From now on nobody but you can open your notebook/);
  await look(page, "phone-14-moved");
  await page.getByRole("button", { name: "Lock", exact: true }).click();
  await unlock(page, PIN);
  await toBe(page, "Unlocked.");
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
  await page
    .getByRole("listitem")
    .filter({ hasText: "Authenticator app" })
    .getByRole("button", { name: "Remove" })
    .click();
  await page.getByText("No authenticator app").waitFor();
  assert.equal(await hint.count(), 0);
  await serverSlots("allowed");
  assert.deepEqual(wrong, []);
  await context.close();
});
