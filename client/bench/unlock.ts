/**
 * How long each way to unlock takes, from the tap to the open key: what `make bench` reads. It decides nothing.
 *
 * Online by every factor, and then offline with the daemon killed. Several devices, because some codes
 * may be used once in a while only; the first unlock on each loads what it needs, as it does for people.
 */
import { writeFileSync } from "node:fs";
import { after, before, test } from "node:test";
import type * as Sdk from "../sdk/src/index.js";
import type { Device } from "../e2e/support/browser.js";
import { enrolled, type Kept, Stage } from "../e2e/support/stage.js";
import { authenticatorCode } from "../e2e/support/totp.js";
import { codeFor, daemon, outboxOrNone, world } from "../e2e/support/world.js";

declare const sdk: typeof Sdk;
declare const kept: Kept;

const DEVICES = 4;
const TIMES = 5;
/** Milliseconds by way. */
const taken: Record<string, number[]> = {};

let stage: Stage;
before(async () => {
  stage = await Stage.set();
});
after(() => stage.clear());

/** What is typed for one unlock. */
interface Typed {
  readonly way: string;
  readonly text: string;
  readonly who: string;
}

/** Runs in the page: locks, and takes the time of the way back. */
async function unlocking({ way, text, who }: Typed): Promise<number> {
  const { custody } = kept;
  const ways: Record<string, () => Promise<unknown>> = {
    pin: () => sdk.signInWithPin(custody, text),
    passkey: () => sdk.signInWithPasskey(custody),
    totp: () => sdk.signInWithTotp(custody, text),
    recovery_code: () => sdk.signInWithRecoveryCode(custody, text),
    delivered_code: async () => {
      const { scope } = await sdk.signInWithCode(custody, { alias: who }, text);
      if (scope === "pin-only") await sdk.continueWithPin(custody, "830517");
      else await sdk.signInWithPin(custody, "830517");
    },
    offline_pin: () => sdk.unlockOfflineByPin(custody, text),
    offline_passkey: () => sdk.unlockOfflineByPasskey(custody),
    read_only: () => sdk.openReadOnly(custody),
  };
  sdk.lock(custody);
  const began = performance.now();
  await ways[way]?.();
  const took = performance.now() - began;
  if (!custody.unlocked && way !== "read_only") throw new Error(`${way}: it is locked still`);
  return took;
}

async function measure(device: Device, way: string, text = "", who = ""): Promise<void> {
  const took = await device.page.evaluate(unlocking, { way, text, who });
  (taken[way] ??= []).push(took);
}

/** A device with everything that can unlock it. */
async function equipped(mail: string): Promise<{ device: Device; uri: string; codes: string[] }> {
  const device = await stage.device();
  await enrolled(device);
  const sent = outboxOrNone().length;
  const claim = await device.page.evaluate(async (email) => {
    const { custody } = kept;
    const { prf } = await sdk.addPasskey(custody);
    await sdk.keepOfflineByPasskey(custody, prf ?? (await sdk.signInWithPasskey(custody)).prf);
    await sdk.keepOfflineByPin(custody, "830517");
    return (await sdk.claimContact(custody, { email })).id;
  }, mail);
  const code = await codeFor(mail, sent);
  const { uri, codes } = await device.page.evaluate(
    async ({ id, code }) => {
      const { custody } = kept;
      await sdk.confirmContact(custody, { id }, code);
      const { otpauth: uri } = await sdk.enrolTotp(custody, "notes");
      return { uri, codes: (await sdk.setRecoveryCodes(custody)).map(({ text }) => text) };
    },
    { id: claim, code },
  );
  const first = authenticatorCode(uri, -2);
  await device.page.evaluate((code) => sdk.confirmTotp(kept.custody, code), first);
  return { device, uri, codes };
}

async function online(mail: string): Promise<Device> {
  const { device, uri, codes } = await equipped(mail);
  await stage.reload(device);
  for (let time = 0; time < TIMES; time += 1) {
    await measure(device, "read_only");
    await measure(device, "pin", "830517");
    await measure(device, "passkey");
    await measure(device, "recovery_code", codes[time]);
  }
  // Each step of an authenticator once, and in their order.
  for (const step of [-1, 0, 1]) await measure(device, "totp", authenticatorCode(uri, step));
  const sent = outboxOrNone().length;
  await device.page.evaluate((alias) => sdk.requestCode(kept.custody, { alias }), mail);
  await measure(device, "delivered_code", await codeFor(mail, sent), mail);
  return device;
}

test("times of unlocks", async () => {
  const devices: Device[] = [];
  for (let at = 0; at < DEVICES; at += 1) devices.push(await online(`ann${at}@example.com`));
  await daemon("kill");
  for (const device of devices) {
    await stage.reload(device);
    for (let time = 0; time < TIMES; time += 1) {
      await measure(device, "offline_pin", "830517");
      await measure(device, "offline_passkey");
    }
    await device.context.close();
  }
  await daemon("start");
  writeFileSync(`${world.folder}/unlock-times.json`, JSON.stringify(taken));
});
