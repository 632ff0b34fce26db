/**
 * An owner on a new phone, or with the PIN forgotten, gets the same key back by a synchronised passkey, an authenticator
 * app, a code by mail, and a code on paper.
 *
 * docs/FLOWS.md has the messages behind each story. Each device is a browser context of its own.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type * as Sdk from "../sdk/src/index.js";
import { enrolled, type Kept, Stage } from "./support/stage.js";
import { authenticatorCode } from "./support/totp.js";
import { codeFor, outboxOrNone } from "./support/world.js";

declare const sdk: typeof Sdk;
declare const kept: Kept;

let stage: Stage;
before(async () => {
  stage = await Stage.set();
});
after(() => stage.clear());

test("a synchronised passkey brings a new phone in, and the old one is removed", async () => {
  const [phone, second] = [await stage.device(), await stage.device()];
  const { account, key } = await enrolled(phone);
  const old = await phone.page.evaluate(async () => {
    await sdk.addPasskey(kept.custody, { user: "Ann", passkey: "phone A" });
    return kept.custody.device.thumbprint;
  });
  await second.syncPasskeysFrom(phone);
  const seen = await second.page.evaluate(async (old) => {
    const signedIn = await sdk.signInWithPasskey(kept.custody, { bindDevice: "phone B" });
    await sdk.removeDevice(kept.custody, old);
    const { devices } = await sdk.viewAccount(kept.custody);
    const { account, deviceBound, unlocked } = signedIn;
    return {
      account,
      deviceBound,
      key: unlocked?.thumbprint,
      devices: devices.length,
    };
  }, old);
  assert.deepEqual(seen, { account, deviceBound: true, key, devices: 1 });
  const refused = await phone.page.evaluate(() =>
    kept.tried(() => sdk.signInWithPin(kept.custody, "830517")),
  );
  assert.equal(refused?.name, "AuthenticationFailed");
  await Promise.all([phone.context.close(), second.context.close()]);
});

test("an authenticator app resets a forgotten PIN", async () => {
  const phone = await stage.device();
  const { key } = await enrolled(phone);
  const uri = await phone.page.evaluate(
    async () => (await sdk.enrolTotp(kept.custody, "notes")).otpauth,
  );
  await phone.page.evaluate(
    (code) => sdk.confirmTotp(kept.custody, code),
    authenticatorCode(uri, 0),
  );
  const seen = await phone.page.evaluate(
    async (code) => {
      const { custody } = kept;
      await sdk.signOut(custody);
      const signedIn = await sdk.signInWithTotp(custody, code);
      await sdk.setPin(custody, "294061");
      await sdk.signOut(custody);
      const again = await sdk.signInWithPin(custody, "294061");
      return { factor: signedIn.factor, key: again.unlocked?.thumbprint };
    },
    authenticatorCode(uri, 1),
  );
  assert.deepEqual(seen, { factor: "totp", key });
  await phone.context.close();
});

test("a new phone, no passkey, the PIN forgotten: a code by mail", async () => {
  const [phone, second] = [await stage.device(), await stage.device()];
  const { key } = await enrolled(phone);
  let sent = outboxOrNone().length;
  await phone.page.evaluate(async () => {
    Object.assign(kept, {
      claim: await sdk.claimContact(kept.custody, { email: "ann@example.com" }),
    });
  });
  const confirmation = await codeFor("ann@example.com", sent);
  await phone.page.evaluate(
    (code) =>
      sdk.confirmContact(kept.custody, (kept as unknown as { claim: Sdk.Claim }).claim, code),
    confirmation,
  );
  sent = outboxOrNone().length;
  const who = { alias: "ann@example.com" };
  await second.page.evaluate((who) => sdk.requestCode(kept.custody, who), who);
  const code = await codeFor("ann@example.com", sent);
  const seen = await second.page.evaluate(
    async ({ who, code }) => {
      const { custody } = kept;
      const limited = await sdk.signInWithCode(custody, who, code);
      await sdk.setPin(custody, "294061");
      const signedIn = await sdk.continueWithPin(custody, "294061", { bindDevice: "phone B" });
      return { scope: limited.scope, full: signedIn.scope, key: signedIn.unlocked?.thumbprint };
    },
    { who, code },
  );
  assert.deepEqual(seen, { scope: "pin-only", full: "full", key });
  await Promise.all([phone.context.close(), second.context.close()]);
});

test("a recovery code from paper", async () => {
  const [phone, second] = [await stage.device(), await stage.device()];
  const { account, key } = await enrolled(phone);
  const codes = await phone.page.evaluate(async () =>
    (await sdk.setRecoveryCodes(kept.custody)).map((c) => c.text),
  );
  const seen = await second.page.evaluate(
    async ({ account, code, slip }) => {
      const options = { account, bindDevice: "phone B" };
      const slipped = await kept.tried(() =>
        sdk.signInWithRecoveryCode(kept.custody, slip, options),
      );
      const signedIn = await sdk.signInWithRecoveryCode(kept.custody, code, options);
      const spent = await kept.tried(() => sdk.signInWithRecoveryCode(kept.custody, code, options));
      return {
        slipped: slipped?.code,
        key: signedIn.unlocked?.thumbprint,
        spent: spent !== undefined,
      };
    },
    { account, code: codes[0]!, slip: codes[0]!.replace(/.$/, "U") },
  );
  assert.deepEqual(seen, { slipped: "code-mistyped", key, spent: true });
  await Promise.all([phone.context.close(), second.context.close()]);
});
