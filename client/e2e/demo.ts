/**
 * A person makes a notebook on a phone, goes on without a network, and finds it again on a desktop with the PIN forgotten; the
 * app can be installed, and is served as the tests have it. Screenshots, by day and by night, stay as artefacts.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { Page } from "playwright-core";
import { DESKTOP, listen, look, NotebookStage, PHONE, write } from "./support/notebook.js";
import { POLICY } from "./support/pages.js";
import { authenticatorCode } from "./support/totp.js";
import { codeFor, daemon, origin, outboxOrNone, world } from "./support/world.js";

const stage = NotebookStage.set();

test("a notebook on a phone, without a network, and found again on a desktop", async () => {
  const phone = await stage.device(PHONE);
  const { page } = phone;
  const wrong = listen(page);
  await page.getByRole("heading", { name: /Notes that open/ }).waitFor();
  await look(page, "phone-1-welcome");
  await page.getByRole("button", { name: "Create a notebook" }).click();
  await page.getByLabel(/Choose a PIN/).fill("830517");
  await look(page, "phone-2-create");
  await page.getByRole("button", { name: "Create", exact: true }).click();
  await page.getByRole("heading", { name: "Your recovery codes" }).waitFor();
  assert.equal(await page.locator(".codes li").count(), 10);
  await look(page, "phone-3-codes");
  await page.getByRole("button", { name: "I have written them down" }).click();
  await write(page, "Groceries\nBread, olives, lemons\nCoffee for Ann");
  await write(
    page,
    "Trip to the lake\nTrain at 9:12, platform 4.\nBring the blue tent, and ask Jo for the stove.",
  );
  await look(page, "phone-4-notes");

  await page.getByRole("link", { name: "Settings" }).click();
  const sent = outboxOrNone().length;
  await page.getByLabel("E-mail address").fill("ann@example.com");
  await page.getByRole("button", { name: "Send a code there" }).click();
  await page.getByLabel("The code that came").fill(await codeFor("ann@example.com", sent));
  await page.getByRole("button", { name: "Confirm" }).click();
  await page.getByText("confirmed", { exact: true }).waitFor();
  const secret = await authenticatorAdded(page);
  await page.getByRole("button", { name: "Show and verify" }).click();
  await page.getByText(/events, all proven/).waitFor();
  await look(page, "phone-5-settings");

  // Loaded again, it reads and does not write; without a network it reads all the same.
  await page.goto(origin);
  await page.getByText("Trip to the lake").waitFor();
  await page.getByText("Locked: reading only").waitFor();
  await page.waitForFunction(() => navigator.serviceWorker.controller !== null);
  await daemon("kill");
  await phone.context.setOffline(true);
  await page.reload();
  await page.getByText("You are offline").waitFor();
  await look(page, "phone-6-offline");
  await page.getByRole("button", { name: "Unlock", exact: true }).click();
  await look(page, "phone-7-unlock");
  await page.getByRole("button", { name: "Use a passkey" }).click();
  await page.getByText("Unlocked", { exact: true }).waitFor();
  await write(page, "Written under way\nThere was no network in the tunnel.");
  await page.getByText("Changes of this device wait").waitFor();
  await look(page, "phone-8-waiting");
  await daemon("start");
  await phone.context.setOffline(false);
  await page.getByRole("button", { name: "Lock", exact: true }).click();
  await page.getByRole("button", { name: "Unlock", exact: true }).click();
  await page.getByLabel("PIN").fill("111222");
  await page.getByRole("dialog").getByRole("button", { name: "Unlock", exact: true }).click();
  await page.getByText("4 tries are left").waitFor();
  await page.getByLabel("PIN").fill("830517");
  await page.getByRole("dialog").getByRole("button", { name: "Unlock", exact: true }).click();
  await page.getByText("Unlocked", { exact: true }).waitFor();
  await page.getByText("Changes of this device wait").waitFor({ state: "detached" });

  const desktop = await stage.device({ ...DESKTOP, colorScheme: "dark" });
  wrong.push(...(await foundAgain(desktop.page)));
  await erased(page, secret);
  assert.deepEqual(wrong, []);
  await Promise.all([phone.context.close(), desktop.context.close()]);
});

/** Scans the picture, as far as a test can. */
async function authenticatorAdded(page: Page): Promise<string> {
  await page.getByRole("button", { name: "Add an authenticator app" }).click();
  await page.getByRole("heading", { name: "Your authenticator app" }).waitFor();
  const drawn = page.locator("img.scan");
  assert.ok((await drawn.evaluate((image: HTMLImageElement) => image.naturalWidth)) > 100);
  await look(page, "phone-9-authenticator");
  const uri = `otpauth://totp/x?secret=${await page.locator(".codes").innerText()}`;
  await page.getByLabel("Code of the app").fill(authenticatorCode(uri, 0));
  await page.getByRole("button", { name: "Confirm" }).click();
  await page.getByText("Authenticator app", { exact: true }).waitFor();
  return uri;
}

/** The PIN is forgotten and the passkey is on the phone: a code by mail. */
async function foundAgain(page: Page): Promise<string[]> {
  const wrong = listen(page);
  await look(page, "desktop-1-welcome");
  await page.getByRole("link", { name: "I have one already" }).click();
  const sent = outboxOrNone().length;
  await page.getByLabel("E-mail address of your notebook").fill("ann@example.com");
  await page.getByRole("button", { name: "Send me a code" }).click();
  await page.getByLabel("The code that came").fill(await codeFor("ann@example.com", sent));
  await look(page, "desktop-2-recover");
  await page.getByLabel("Choose a new PIN").fill("294061");
  await page.getByRole("button", { name: "Open my notebook" }).click();
  await page.getByText("Written under way").waitFor();
  await page.getByRole("button", { name: /Groceries/ }).press("Enter");
  await look(page, "desktop-3-note");
  await page.keyboard.press("Escape");
  await look(page, "desktop-4-notes");
  await page.getByRole("link", { name: "Settings" }).click();
  await page.getByRole("heading", { name: "Devices" }).waitFor();
  await look(page, "desktop-5-settings");
  // A passkey is the account's strongest way in, so the PIN is not enough to erase everything.
  await page.getByRole("button", { name: "Erase everything" }).click();
  await page.getByRole("button", { name: "Erase", exact: true }).click();
  await page.getByRole("heading", { name: "Confirm that it is you" }).waitFor();
  await look(page, "desktop-7-confirm");
  return wrong;
}

/** By its passkey, and nothing is left. */
async function erased(page: Page, uri: string): Promise<void> {
  await page.getByRole("button", { name: "Lock", exact: true }).click();
  await page.getByRole("button", { name: "Unlock", exact: true }).click();
  await page.getByRole("button", { name: "Use an authenticator app" }).click();
  await page.getByLabel("Code of the app").fill(authenticatorCode(uri, 1));
  await page.getByRole("button", { name: "Unlock", exact: true }).last().click();
  await page.getByText("Unlocked", { exact: true }).waitFor();
  await page.getByRole("button", { name: "Lock", exact: true }).click();
  await page.getByRole("button", { name: "Unlock", exact: true }).click();
  await page.getByRole("button", { name: "Use a passkey" }).click();
  await page.getByText("Unlocked", { exact: true }).waitFor();
  await page.getByRole("link", { name: "Settings" }).click();
  await page.getByRole("button", { name: "Erase everything" }).click();
  await page.getByRole("button", { name: "Erase", exact: true }).click();
  await page.getByRole("heading", { name: /Notes that open/ }).waitFor();
}

test("what a browser needs to install it is there", async () => {
  const device = await stage.device(PHONE);
  await device.page.waitForFunction(
    async () => (await navigator.serviceWorker.ready).active !== null,
  );
  const manifest = JSON.parse(
    await (await device.context.request.get(`${origin}/manifest.webmanifest`)).text(),
  ) as {
    icons: { src: string }[];
    display: string;
  };
  assert.equal(manifest.display, "standalone");
  assert.equal(manifest.icons.length, 2);
  const cdp = await device.context.newCDPSession(device.page);
  const { errors } = await cdp.send("Page.getAppManifest");
  assert.deepEqual(errors, []);
  // Where there is no manifest to go by, as on an iPhone: a picture of pixels.
  const icon = await device.page.getAttribute("link[rel=apple-touch-icon]", "href");
  const drawn = await device.page.evaluate(async (path) => {
    const response = await fetch(path);
    const { width, height } = await createImageBitmap(await response.blob());
    return [response.headers.get("Content-Type"), width, height];
  }, icon ?? "");
  assert.deepEqual(drawn, ["image/png", 180, 180]);
  await device.context.close();
});

test("what `make demo` serves is the app under the same content policy, and nothing else", async () => {
  const folder = mkdtempSync(join(tmpdir(), "served-"));
  for (const [path, { body }] of stage.site) writeFileSync(join(folder, path), body);
  writeFileSync(join(folder, ".hidden"), "");
  const served = spawn(process.execPath, ["scripts/serve.mjs", folder, "0", world.url]);
  const [told] = (await once(served.stdout, "data")) as [Buffer];
  const at = told.toString().trim();
  const asked = (path: string) => fetch(at + path, { redirect: "error" });
  const index = await asked("/");
  assert.equal(index.headers.get("Content-Security-Policy"), POLICY);
  assert.equal(index.headers.get("X-Content-Type-Options"), "nosniff");
  assert.match(await index.text(), /<title>Notebook/);
  const types = async (path: string) => (await asked(path)).headers.get("Content-Type");
  assert.equal(await types("/main.js"), "text/javascript");
  assert.equal(await types("/apple-touch-icon.png"), "image/png");
  for (const path of ["/.hidden", "/..%2fpackage.json", "/nothing.js"])
    assert.equal((await asked(path)).status, 404, path);
  // It runs there.
  const page = await stage.browser.newPage();
  const wrong = listen(page);
  await page.goto(at);
  await page.getByRole("heading", { name: /Notes that open/ }).waitFor();
  assert.deepEqual(wrong, []);
  await page.close();
  served.kill();
  rmSync(folder, { recursive: true });
});
