/** What somebody has typed is not gone unasked, and what is damaged for good is let go by a person who knows what it is. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  created,
  damage,
  DESKTOP,
  listen,
  look,
  NotebookStage,
  PHONE,
  said,
  settings,
  settled,
  toBe,
  unlockByPasskey,
  write,
  written,
} from "./support/notebook.js";
import { origin, world } from "./support/world.js";

const stage = NotebookStage.set();

const ASKED = "Discard what you typed?";

test("what is typed while another device renews the secret is saved once it is unlocked above it", async () => {
  const [phone, laptop] = [await stage.device(PHONE), await stage.device(DESKTOP)];
  const { page } = phone;
  const wrong = listen(page);
  await created(page);
  await write(page, "Groceries\nBread");
  await laptop.syncPasskeysFrom(phone);
  await laptop.page.getByRole("link", { name: "I have one already" }).click();
  await laptop.page.getByRole("button", { name: "Use a passkey" }).click();
  await laptop.page.getByText("Groceries").waitFor();
  // Unlocked without a network: its session, once there is one, may not have the new secret.
  await page.route(`${world.url}/**`, (route) => route.abort());
  await page.reload();
  await toBe(page, /You are offline/);
  await unlockByPasskey(page);
  await page.getByRole("button", { name: "New note" }).click();
  await page.getByLabel("Text").fill("Typed meanwhile\nand at length");
  await settings(laptop.page);
  await laptop.page.getByRole("button", { name: "Renew the secret" }).click();
  await laptop.page.getByRole("dialog").getByRole("button", { name: "Renew the secret" }).click();
  await written(laptop.page);
  await laptop.page.getByRole("link", { name: "Notebook" }).click();
  await write(laptop.page, "Since the renewal");
  await page.unroute(`${world.url}/**`);
  // The page is drawn again, below what is typed.
  await page.evaluate(() => dispatchEvent(new Event("online")));
  await page.getByText("Locked: reading only").waitFor({ state: "attached" });
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByRole("heading", { name: "Unlock to save" }).waitFor();
  await look(page, "phone-46-unlock-to-save");
  // Given up, what was typed is still there.
  await page.getByRole("button", { name: "Close" }).last().click();
  await toBe(page, /Unlock it first|Unlock again/);
  assert.equal(await page.getByLabel("Text").inputValue(), "Typed meanwhile\nand at length");
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByRole("button", { name: "Use a passkey" }).click();
  await said(page, "Saved.");
  for (const title of ["Groceries", "Since the renewal", "Typed meanwhile"])
    await page.getByText(title, { exact: true }).waitFor();
  await laptop.page.reload();
  await laptop.page.getByText("Typed meanwhile").waitFor();
  assert.deepEqual(wrong, []);
  await Promise.all([phone.context.close(), laptop.context.close()]);
});

test("whoever closes what they have typed is asked first, however often", async () => {
  const { page, context } = await stage.device(DESKTOP);
  const wrong = listen(page);
  await created(page, false);
  await write(page, "Groceries");
  // The control: what was not changed is closed at once.
  await page.getByRole("button", { name: /Groceries/ }).click();
  await page.getByLabel("Text").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  await page.getByRole("button", { name: /Groceries/ }).click();
  await page.getByLabel("Text").fill("Groceries\nBread");
  for (let tries = 0; tries < 3; tries += 1) {
    await page.keyboard.press("Escape");
    await page.getByRole("heading", { name: ASKED }).waitFor();
    if (tries === 0) await look(page, "desktop-47-discard");
    await page.keyboard.press("Escape");
    await page.getByRole("heading", { name: ASKED }).waitFor({ state: "detached" });
  }
  assert.equal(await page.getByLabel("Text").inputValue(), "Groceries\nBread");
  await page.getByRole("button", { name: "Close" }).click();
  await page.getByRole("button", { name: "Discard it" }).click();
  await page.getByRole("dialog").first().waitFor({ state: "detached" });
  await page.getByRole("button", { name: /Groceries/ }).click();
  assert.equal(await page.getByLabel("Text").inputValue(), "Groceries");
  assert.deepEqual(wrong, []);
  await context.close();
});

test("a change that was not sent and is damaged is named, and let go where its owner says so", async () => {
  const { page, context } = await stage.device(PHONE);
  const wrong = listen(page);
  await created(page);
  await write(page, "Groceries\nBread");
  await settled(page);
  await context.setOffline(true);
  await write(page, "Half of it");
  await toBe(page, /wait to be sent/);
  await damage(page, ["queue", "log"]);
  await context.setOffline(false);
  await page.goto(origin);
  await toBe(page, /What this browser kept is damaged/);
  await page.getByRole("button", { name: "Repair this device" }).click();
  await toBe(page, /^Changes of this device that were not sent/);
  await toBe(page, /^What this device has seen of the service/);
  await look(page, "phone-48-left");
  await page.getByRole("button", { name: "Not now" }).click();
  await page.getByRole("button", { name: "Repair this device" }).click();
  await page.getByRole("button", { name: "Let it go" }).click();
  await page.getByText("Groceries").waitFor();
  await unlockByPasskey(page);
  await write(page, "Whole again");
  await said(page, "Saved.");
  assert.deepEqual(wrong, []);
  await context.close();
});
