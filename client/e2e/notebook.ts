/**
 * In the demo two devices write at once, every button of the settings does what it says, a PIN unlocks and is changed without
 * a network, a code on paper opens the notebook elsewhere, and a note that would like to be a script is text.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import {
  created,
  DESKTOP,
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
import { daemon, origin } from "./support/world.js";

const stage = NotebookStage.set();

test("two devices write at once, and both notes are there afterwards", async () => {
  const [phone, laptop] = [await stage.device(PHONE), await stage.device(DESKTOP)];
  const wrong = listen(phone.page, laptop.page);
  await created(phone.page);
  await write(phone.page, "Groceries\nBread");
  await laptop.syncPasskeysFrom(phone);
  await laptop.page.getByRole("link", { name: "I have one already" }).click();
  await laptop.page.getByRole("button", { name: "Use a passkey" }).click();
  await laptop.page.getByText("Groceries").waitFor();
  await phone.context.setOffline(true);
  await write(phone.page, "On the phone\nin the tunnel");
  await toBe(phone.page, /wait to be sent/);
  await write(laptop.page, "On the laptop\nat the same time");
  await phone.context.setOffline(false);
  // Back online it goes out by itself.
  await phone.page.getByText("On the laptop").waitFor();
  await phone.page.getByText(/wait to be sent/).waitFor({ state: "detached" });
  await laptop.page.reload();
  for (const { page } of [phone, laptop]) {
    for (const title of ["Groceries", "On the phone", "On the laptop"])
      await page.getByText(title, { exact: true }).waitFor();
  }
  await look(laptop.page, "desktop-8-two-devices");
  await phone.page.getByRole("button", { name: /Groceries/ }).click();
  await phone.page.getByRole("button", { name: "Delete" }).click();
  await phone.page.locator("strong", { hasText: "Groceries" }).waitFor({ state: "detached" });
  await laptop.page.reload();
  await laptop.page.getByText("On the phone").waitFor();
  // What the laptop had read is drawn first.
  await laptop.page.getByText("Groceries").waitFor({ state: "detached" });
  // The laptop is taken off the list: it is a stranger from then on.
  await settings(phone.page);
  await remove(phone.page, "Remove Computer");
  await phone.page
    .getByRole("button", { name: "Remove Computer", exact: true })
    .waitFor({ state: "detached" });
  await laptop.page.reload();
  await toBe(laptop.page, /This device is not bound to the notebook any more/);
  await look(laptop.page, "desktop-10-removed");
  await laptop.page.getByRole("link", { name: "Ways back in" }).click();
  await laptop.page.getByRole("button", { name: "Use a passkey" }).click();
  await laptop.page.getByText("On the phone").waitFor();
  assert.deepEqual(wrong, []);
  await Promise.all([phone.context.close(), laptop.context.close()]);
});

test("each button of the settings does what it says", async () => {
  const { page, context } = await stage.device(PHONE);
  const wrong = listen(page);
  await created(page, false);
  await settings(page);
  await page.getByRole("button", { name: "Add a passkey" }).click();
  await page.getByText(/^Passkey/).waitFor();
  await page.getByRole("button", { name: "New recovery codes" }).click();
  await page.getByRole("heading", { name: "Your recovery codes" }).waitFor();
  await page.getByRole("button", { name: "I have written them down" }).click();
  await page.getByRole("button", { name: "Change PIN" }).click();
  await page.locator("input[name=pin]").fill("123456");
  await page.getByRole("button", { name: "Change", exact: true }).click();
  await toBe(page, /longer or harder to guess/);
  await page.locator("input[name=pin]").fill("294061");
  await page.getByRole("button", { name: "Change", exact: true }).click();
  await said(page, "The PIN is changed.");
  const download = page.waitForEvent("download");
  await page.getByRole("button", { name: "Download my data" }).click();
  const file = await (await download).path();
  assert.equal((JSON.parse(readFileSync(file, "utf8")) as { format: number }).format, 1);
  await remove(page, /^Remove passkey/);
  await page.getByText(/^Passkey/).waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Sign out everywhere" }).click();
  await toBe(page, /To change something here/);
  await look(page, "phone-10-settings-locked");
  await unlock(page, PIN);
  await toBe(page, /tries are left|One try is left/);
  await page.getByLabel("PIN").fill("294061");
  await page.getByRole("dialog").getByRole("button", { name: "Unlock", exact: true }).click();
  await page.getByRole("button", { name: "Lock", exact: true }).waitFor();
  assert.deepEqual(wrong, []);
  await context.close();
});

test("a PIN unlocks and is changed without a network; on return the service is told, of wrong ones too", async () => {
  const { page, context } = await stage.device(PHONE);
  const wrong = listen(page);
  await created(page, false);
  await write(page, "Groceries\nBread");
  await settings(page);
  await page.getByRole("button", { name: "Turn on" }).click();
  await look(page, "phone-11-offline-pin");
  await page.getByLabel("Your PIN").fill(PIN);
  await page.getByRole("button", { name: "Turn on all the same" }).click();
  await page.getByRole("button", { name: "Turn off" }).waitFor();
  await page.waitForFunction(() => navigator.serviceWorker.controller !== null);
  await daemon("kill");
  await page.goto(origin);
  await toBe(page, /You are offline/);
  await unlock(page, "111222");
  await toBe(page, "That is not the PIN.");
  await page.getByLabel("PIN").fill(PIN);
  await page.getByRole("dialog").getByRole("button", { name: "Unlock", exact: true }).click();
  await toBe(page, "Unlocked");
  await write(page, "In the tunnel\nno network");
  await page.getByRole("link", { name: "Settings" }).click();
  await toBe(page, "Not now");
  await look(page, "phone-12-settings-offline");
  await page.getByRole("button", { name: "Change it here" }).click();
  await page.locator("input[name=old]").fill("111222");
  await page.locator("input[name=pin]").fill("294061");
  await page.getByRole("button", { name: "Change", exact: true }).click();
  await toBe(page, "That is not the PIN.");
  await page.locator("input[name=old]").fill(PIN);
  await page.getByRole("button", { name: "Change", exact: true }).click();
  await said(page, "Changed on this device.");
  await page.goto(origin);
  await unlock(page, "294061");
  await toBe(page, "Unlocked");
  await daemon("start");
  await page.goto(origin);
  await toBe(page, /The service does not know your new PIN yet/);
  await look(page, "phone-13-new-pin");
  await page.getByRole("button", { name: "Type both" }).click();
  await page.locator("input[name=old]").fill(PIN);
  await page.locator("input[name=pin]").fill("294061");
  await page.getByRole("button", { name: "Tell it" }).click();
  await said(page, "The new PIN holds everywhere.");
  await page.getByText(/wait to be sent/).waitFor({ state: "detached" });
  await settings(page);
  await page.getByRole("button", { name: "Show and verify" }).click();
  await toBe(page, /^Wrong PINs were typed on a device without a network: 2/);
  await page.getByRole("button", { name: "Lock", exact: true }).click();
  await unlock(page, "294061");
  await page.getByRole("button", { name: "Lock", exact: true }).waitFor();
  assert.deepEqual(wrong, []);
  await context.close();
});

test("a code on paper opens the notebook on another device", async () => {
  const [phone, laptop] = [await stage.device(PHONE), await stage.device(DESKTOP)];
  const [code = ""] = await created(phone.page, false);
  await write(phone.page, "Groceries\nBread");
  await settings(phone.page);
  const account = await phone.page.locator("small code").innerText();
  const { page } = laptop;
  await page.getByRole("link", { name: "I have one already" }).click();
  await page.getByLabel("Account").fill(account);
  await page.getByLabel("A recovery code").fill(code.replace(/.$/, "U"));
  await page.getByRole("button", { name: "Use the code" }).click();
  await toBe(page, /The code is mistyped/);
  await look(page, "desktop-9-mistyped");
  await page.getByLabel("A recovery code").fill(code);
  await page.getByRole("button", { name: "Use the code" }).click();
  await page.getByText("Groceries").waitFor();
  await settings(page);
  await toBe(page, "9 recovery codes left");
  const verify = page.getByRole("button", { name: "Show and verify" });
  await verify.click();
  await toBe(page, /events, all proven/);
  assert.equal(await page.getByText(/The trail begins with number/).count(), 0);
  // What was before this device came is deleted, as far as the service says.
  await page.route("**/v1/account/events*", async (route) => {
    const response = await route.fetch();
    const body = (await response.json()) as { events: { number: number }[] };
    const events = body.events.filter(({ number }) => number >= 3);
    return route.fulfill({ response, json: { ...body, events, complete_from: 3 } });
  });
  await verify.click();
  await toBe(page, /The trail begins with number 3:/);
  await page.getByText(/The trail begins with number 3:/).scrollIntoViewIfNeeded();
  await look(page, "desktop-49-trail");
  await Promise.all([phone.context.close(), laptop.context.close()]);
});

test("a note that would like to be a script is text", async () => {
  const { page, context } = await stage.device(DESKTOP);
  await created(page, false);
  const text = `<img src="data:," onerror="globalThis.ran = true"><script>globalThis.ran = true</script>`;
  await write(page, `${text}\n${text}`);
  await page.reload();
  await page.getByRole("button", { name: /img src/ }).click();
  await page.getByRole("dialog").getByText("<script>").first().waitFor();
  assert.equal(
    await page.locator(".page img[src^=data], dialog img, script:not([src])").count(),
    0,
  );
  // Of pictures that can not be had, the one that is asked for last is the last to say so.
  await page.evaluate(() => {
    const last = new Image();
    const failed = new Promise((resolve) => {
      last.addEventListener("error", resolve);
    });
    last.src = "data:,";
    return failed;
  });
  assert.equal(await page.evaluate(() => "ran" in globalThis), false);
  await context.close();
});
