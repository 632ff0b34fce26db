/** Two devices that go apart, as one renews the secret or both change one note; and two notebooks in one browser. Nothing that was written is lost. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Page } from "playwright-core";
import type { Device } from "./support/browser.js";
import {
  created,
  DESKTOP,
  listen,
  look,
  NotebookStage,
  PHONE,
  said,
  settings,
  toBe,
  unlockByPasskey,
  write,
} from "./support/notebook.js";
import { origin } from "./support/world.js";

const stage = NotebookStage.set();

/** Of one notebook, each with a passkey of its own, which unlocks it without a network, too. */
async function two(): Promise<[Device, Device]> {
  const phone = await stage.device(PHONE);
  const laptop = await stage.device(DESKTOP);
  const [code = ""] = await created(phone.page);
  await write(phone.page, "Groceries\nBread");
  await settings(phone.page);
  const account = await phone.page.locator("small code").innerText();
  await phone.page.getByRole("link", { name: "Notebook" }).click();
  const { page } = laptop;
  await page.getByRole("link", { name: "I have one already" }).click();
  await page.getByLabel("Account").fill(account);
  await page.getByLabel("A recovery code").fill(code);
  await page.getByRole("button", { name: "Use the code" }).click();
  await page.getByText("Groceries").waitFor();
  await settings(page);
  await page.getByRole("button", { name: "Add a passkey" }).click();
  await page.getByText("last used").nth(1).waitFor();
  await page.getByRole("link", { name: "Notebook" }).click();
  // The session of a code would end with the codes.
  await page.getByRole("button", { name: "Lock", exact: true }).click();
  await unlockByPasskey(page);
  await page.getByText("Groceries").waitFor();
  return [phone, laptop];
}

/** As after a device was lost. */
async function renewed(page: Page): Promise<void> {
  await page.goto(origin);
  await page.reload();
  await unlockByPasskey(page);
  await settings(page);
  await page.getByRole("button", { name: "Renew the secret" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Renew the secret" }).click();
  await page.getByRole("heading", { name: "Your recovery codes" }).waitFor();
  await page.getByRole("button", { name: "I have written them down" }).click();
  await page.getByRole("dialog").waitFor({ state: "detached" });
  await page.getByRole("link", { name: "Notebook" }).click();
  await page.getByRole("heading", { name: "Notes" }).waitFor();
}

async function has(page: Page, ...titles: string[]): Promise<void> {
  for (const title of titles) await page.getByText(title, { exact: true }).waitFor();
  // No other: what is drawn first may have more.
  await page.locator(".notes li").nth(titles.length).waitFor({ state: "detached" });
}

test("a notebook that is open while another device renews the secret goes on with the new one, and keeps every note", async () => {
  const [phone, laptop] = await two();
  const wrong = listen(phone.page, laptop.page);
  await renewed(phone.page);
  await write(phone.page, "Since the renewal\non the phone");
  await write(laptop.page, "On the laptop\nwhich had not heard of it");
  await has(laptop.page, "Groceries", "Since the renewal", "On the laptop");
  // What the laptop has written is under the new secret: a phone that is locked reads it.
  await phone.page.reload();
  await has(phone.page, "Groceries", "Since the renewal", "On the laptop");
  assert.deepEqual(wrong, []);
  await Promise.all([phone.context.close(), laptop.context.close()]);
});

test("a locked notebook whose secret another device has renewed shows what it had read, and says what brings the rest", async () => {
  const [phone, laptop] = await two();
  const wrong = listen(laptop.page);
  await renewed(phone.page);
  await write(phone.page, "Since the renewal\non the phone");
  await laptop.page.reload();
  await toBe(laptop.page, /Another device has renewed the secret/);
  await has(laptop.page, "Groceries");
  await look(laptop.page, "desktop-13-renewed");
  await laptop.page.waitForFunction(() => navigator.serviceWorker.controller !== null);
  await laptop.context.setOffline(true);
  await laptop.page.reload();
  await toBe(laptop.page, /Another device has renewed the secret/);
  await has(laptop.page, "Groceries");
  // Unlocked without a network it has the secret of before: nothing is written under that.
  await laptop.page
    .getByRole("banner")
    .getByRole("button", { name: "Unlock", exact: true })
    .click();
  await laptop.page.getByRole("button", { name: "Use a passkey" }).click();
  await laptop.page.getByRole("dialog").waitFor({ state: "detached" });
  await toBe(laptop.page, "Locked: reading only");
  await has(laptop.page, "Groceries");
  await laptop.context.setOffline(false);
  await laptop.page.reload();
  await unlockByPasskey(laptop.page);
  await has(laptop.page, "Groceries", "Since the renewal");
  await write(laptop.page, "On the laptop\nafterwards");
  await phone.page.reload();
  await has(phone.page, "Groceries", "Since the renewal", "On the laptop");
  assert.deepEqual(wrong, []);
  await Promise.all([phone.context.close(), laptop.context.close()]);
});

test("what was written without a network while another device renewed the secret comes to the rest of it", async () => {
  const [phone, laptop] = await two();
  const wrong = listen(laptop.page);
  await laptop.page.waitForFunction(() => navigator.serviceWorker.controller !== null);
  await laptop.context.setOffline(true);
  await write(laptop.page, "On the laptop\nin the tunnel");
  await toBe(laptop.page, /wait to be sent/);
  await renewed(phone.page);
  await write(phone.page, "Since the renewal\non the phone");
  await laptop.page.reload();
  await has(laptop.page, "Groceries", "On the laptop");
  await laptop.context.setOffline(false);
  await unlockByPasskey(laptop.page);
  await has(laptop.page, "Groceries", "Since the renewal", "On the laptop");
  await phone.page.reload();
  await has(phone.page, "Groceries", "Since the renewal", "On the laptop");
  assert.deepEqual(wrong, []);
  await Promise.all([phone.context.close(), laptop.context.close()]);
});

test("where two devices changed one note, the earlier change is kept until a person restores or drops it", async () => {
  const [phone, laptop] = await two();
  const wrong = listen(laptop.page);
  const change = async (page: Page, text: string) => {
    await page.getByRole("button", { name: /Groceries/ }).click();
    await page.getByLabel("Text").fill(text);
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByRole("dialog").waitFor({ state: "detached" });
  };
  await laptop.context.setOffline(true);
  await change(laptop.page, "Groceries\nolives");
  await write(laptop.page, "On the laptop\nin the tunnel");
  await change(phone.page, "Groceries for Ann\nlemons");
  await laptop.context.setOffline(false);
  await has(laptop.page, "Groceries for Ann", "On the laptop");
  await settings(laptop.page);
  await toBe(laptop.page, "Older versions");
  await look(laptop.page, "desktop-14-older");
  await laptop.page.getByRole("button", { name: "Restore Groceries" }).click();
  await said(laptop.page, "It is a note of its own now.");
  await laptop.page.getByText("Older versions").waitFor({ state: "detached" });
  await laptop.page.getByRole("link", { name: "Notebook" }).click();
  await has(laptop.page, "Groceries for Ann", "On the laptop", "Groceries");
  // What the merge holds already is kept nowhere else.
  const lost = await laptop.page.evaluate(async () => {
    const [{ name = "" } = {}] = await indexedDB.databases();
    const opened = indexedDB.open(name);
    await new Promise((resolve) => (opened.onsuccess = resolve));
    const [store = ""] = opened.result.objectStoreNames;
    const asked = opened.result.transaction(store).objectStore(store).getAllKeys();
    await new Promise((resolve) => (asked.onsuccess = resolve));
    opened.result.close();
    return (asked.result as string[]).filter((key) => /^(lost|demo\/older)\//.test(key));
  });
  assert.deepEqual(lost, []);
  assert.deepEqual(wrong, []);
  await Promise.all([phone.context.close(), laptop.context.close()]);
});

test("a tab whose browser has another notebook by now says so, and what is written there goes into its own", async () => {
  const [phone, laptop] = [await stage.device(PHONE), await stage.device(DESKTOP)];
  const wrong = listen(phone.page, laptop.page);
  const { page } = phone;
  await created(page);
  await write(page, "Groceries\nBread");
  const [code = ""] = await created(laptop.page);
  await write(laptop.page, "The other notebook\nof somebody else");
  await settings(laptop.page);
  const account = await laptop.page.locator("small code").innerText();
  const tab = await phone.context.newPage();
  await tab.goto(`${origin}/#/recover`);
  await tab.getByLabel("Account").fill(account);
  await tab.getByLabel("A recovery code").fill(code);
  await tab.getByRole("button", { name: "Use the code" }).click();
  await tab.getByText("The other notebook").waitFor();
  assert.equal(await tab.getByText("Groceries").count(), 0);
  // The first tab has its key open still.
  await page.getByRole("button", { name: "New note" }).click();
  await page.getByLabel("Text").fill("Written meanwhile");
  await page.getByRole("button", { name: "Save" }).click();
  await toBe(page, /Another notebook was opened in this browser/);
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "Discard it" }).click();
  await page.getByRole("link", { name: "Settings" }).click();
  await page.getByRole("button", { name: "Reload" }).waitFor();
  await look(page, "phone-17-other-notebook");
  // Nothing of it is in the other one's place: that one opens, as it was, where the page is loaded again.
  await page.getByRole("button", { name: "Reload" }).click();
  await page.getByText("The other notebook").waitFor();
  assert.equal(await page.getByText("Written meanwhile").count(), 0);
  await page.goto(`${origin}/#/recover`);
  await page.getByRole("button", { name: "Use a passkey" }).click();
  await page.getByText("Written meanwhile").waitFor();
  await page.getByText("Groceries").waitFor();
  assert.deepEqual(wrong, []);
  await Promise.all([phone.context.close(), laptop.context.close()]);
});
