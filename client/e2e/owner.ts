/** The owner alone decides whether a restored service is believed, and whether a change that somebody else has asked for comes about. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  created,
  DESKTOP,
  listen,
  look,
  NotebookStage,
  PHONE,
  PIN,
  settings,
  settled,
  toBe,
  unlock,
  unlockByPasskey,
  write,
} from "./support/notebook.js";
import {
  backedUp,
  codeFor,
  origin,
  outboxOrNone,
  recoveryWaits,
  restored,
} from "./support/world.js";

const stage = NotebookStage.set();

test("a service that was restored is believed once the owner has said so, and what was written is there", async () => {
  const { page, context } = await stage.device(DESKTOP);
  const wrong = listen(page);
  await created(page);
  await write(page, "Before the restore");
  await settled(page);
  await backedUp();
  await write(page, "After the backup");
  await settled(page);
  await restored();
  await page.goto(origin);
  await toBe(page, /restored from a backup/);
  await look(page, "desktop-40-restored");
  await page.getByRole("button", { name: "Unlock", exact: true }).click();
  await page.getByRole("button", { name: "Use a passkey" }).click();
  // The sign-in stands at the service, and is not believed here.
  await toBe(page, /another log than this device has seen/);
  await look(page, "desktop-41-other-log");
  const announced = page.getByRole("button", { name: "The operator has announced this" });
  await announced.click();
  await page.keyboard.press("Escape");
  await page.goto(origin);
  // Nothing was forgotten by looking at it.
  await announced.click();
  await page.getByRole("button", { name: "Go on" }).click();
  await toBe(page, "Before the restore");
  await unlockByPasskey(page);
  await write(page, "After the restore");
  await toBe(page, "After the restore");
  await page.goto(origin);
  await toBe(page, "After the restore");
  assert.deepEqual(wrong, []);
  await context.close();
});

test("a PIN that somebody else would replace by a code stays, since the owner cancels it", async () => {
  const { page, context } = await stage.device(PHONE);
  const wrong = listen(page);
  await created(page);
  await settings(page);
  const address = "dia@example.com";
  let sent = outboxOrNone().length;
  await page.getByLabel("E-mail address").fill(address);
  await page.getByRole("button", { name: "Send a code there" }).click();
  await page.getByLabel("The code that came").fill(await codeFor(address, sent));
  await page.getByRole("button", { name: "Confirm" }).click();
  await page.getByText("confirmed", { exact: true }).waitFor();
  await recoveryWaits("1h");
  // Whoever reads the owner's mail.
  await page.goto(`${origin}/#/recover`);
  await page.reload();
  sent = outboxOrNone().length;
  await page.getByLabel("E-mail address of your notebook").fill(address);
  await page.getByRole("button", { name: "Send me a code" }).click();
  await page.getByLabel("The code that came").fill(await codeFor(address, sent));
  await page.getByLabel("Choose a new PIN").fill("294061");
  await page.getByRole("button", { name: "Open my notebook" }).click();
  await toBe(page, /Too soon. Wait/);
  // The owner finds it in the settings.
  await page.goto(origin);
  await page.reload();
  await unlockByPasskey(page);
  await settings(page);
  const waits = page.getByRole("heading", { name: "A change that waits" });
  await waits.waitFor();
  await look(page, "phone-42-waits");
  await page.getByRole("button", { name: "Cancel it" }).click();
  await waits.waitFor({ state: "detached" });
  await page.goto(origin);
  await unlock(page, PIN);
  await toBe(page, "Unlocked");
  assert.deepEqual(wrong, []);
  await context.close();
});
