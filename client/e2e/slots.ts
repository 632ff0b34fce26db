/**
 * In an app whose policy has no server slots, a wiped browser comes back by passkey, PIN and recovery code, factors come and
 * go with their slots, and what opens a slot never leaves the browser. One story is of an app that has them.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type * as Sdk from "../sdk/src/index.js";
import type { Device } from "./support/browser.js";
import { type Kept, openSealed, Stage } from "./support/stage.js";
import { authenticatorCode } from "./support/totp.js";

declare const sdk: typeof Sdk;
declare const kept: Kept;

let stage: Stage;
before(async () => {
  stage = await Stage.set();
});
after(() => stage.clear());

async function device(): Promise<Device> {
  const made = await stage.device();
  await openSealed(made);
  return made;
}

interface Enrolled {
  readonly account: string;
  readonly key: string;
  readonly codes: string[];
}

/** Enrols with a PIN, a passkey and recovery codes. */
async function enrolled(at: Device): Promise<Enrolled> {
  return at.page.evaluate(async () => {
    const { custody } = kept;
    const unlocked = await sdk.enrol(custody, { deviceName: "phone A" });
    await sdk.setPin(custody, "830517");
    const codes = await sdk.setRecoveryCodes(custody);
    await sdk.addPasskey(custody, { user: "Ann" });
    const account = custody.account?.account ?? "";
    return { account, key: unlocked.thumbprint, codes: codes.map(({ text }) => text) };
  });
}

/** The browser's storage cleared: another load of the page knows nothing. */
async function wipe(at: Device): Promise<void> {
  await at.page.evaluate(() => sdk.forgetDevice(kept.custody));
  await stage.reload(at);
  await openSealed(at);
}

/** The device secret as the daemon hands it out: what is sealed, and whom its slots are for. */
async function stored(at: Device, name = "device-secret") {
  return at.page.evaluate(async (name) => {
    const path = { name };
    const route = "/v1/account/secrets/{name}";
    const secret = await kept.custody.transport.request("get", route, { path });
    const { sealed, slots, server_slot: server } = secret;
    return { sealed, slots, server: server ?? undefined };
  }, name);
}

test("a wiped browser comes back by passkey, by recovery code, and by PIN on a bound device", async () => {
  const phone = await device();
  const { account, key, codes } = await enrolled(phone);
  const { slots, server } = await stored(phone);
  const kinds = slots.map(({ type }) => type);
  assert.deepEqual([kinds.length, new Set(kinds).size, server], [12, 3, undefined]);
  assert.deepEqual(
    (await stored(phone, "app-key")).slots.map(({ type, credential }) => [type, credential]),
    [["secret", "device-secret"]],
  );

  await wipe(phone);
  const byPasskey = await phone.page.evaluate(async () => {
    const signedIn = await sdk.signInWithPasskey(kept.custody, { bindDevice: "phone A again" });
    return { account: signedIn.account, key: signedIn.unlocked?.thumbprint };
  });
  assert.deepEqual(byPasskey, { account, key });

  // The PIN, on the device that the passkey has just bound.
  await stage.reload(phone);
  await openSealed(phone);
  const byPin = await phone.page.evaluate(async () => {
    const { unlocked } = await sdk.signInWithPin(kept.custody, "830517");
    return unlocked?.thumbprint;
  });
  assert.equal(byPin, key);

  await wipe(phone);
  const byCode = await phone.page.evaluate(
    async ({ account, code }) => {
      const options = { account, bindDevice: "phone A once more" };
      const { unlocked } = await sdk.signInWithRecoveryCode(kept.custody, code, options);
      return unlocked?.thumbprint;
    },
    { account, code: codes[4] ?? "" },
  );
  assert.equal(byCode, key);
  // The code is used up, and so is its slot; the content is what it was.
  const now = await stored(phone);
  assert.equal(now.slots.length, 11);
  await phone.context.close();
});

test("a passkey that comes changes slots and no content, and takes the content key along when it goes", async () => {
  const phone = await device();
  await phone.page.evaluate(async () => {
    await sdk.enrol(kept.custody);
    await sdk.setPin(kept.custody, "830517");
  });
  const before = [await stored(phone), await stored(phone, "app-key")];
  const id = await phone.page.evaluate(async () => (await sdk.addPasskey(kept.custody)).deviceId);
  const [with_, app] = [await stored(phone), await stored(phone, "app-key")];
  assert.deepEqual(
    with_.slots.map(({ type }) => type),
    ["opaque", "prf"],
  );
  assert.equal(with_.slots[1]?.credential, id);
  assert.deepEqual([with_.sealed, app], [before[0]?.sealed, before[1]]);
  const after = await phone.page.evaluate(async (id) => {
    const { custody } = kept;
    // Not the last one that counts, and then the passkey.
    const last = await kept.tried(() => sdk.removePin(custody));
    const { contentKey } = await sdk.removePasskey(custody, id);
    await sdk.setPin(custody, "294061");
    await sdk.signOut(custody);
    const { unlocked } = await sdk.signInWithPin(custody, "294061");
    return { last: last?.code, contentKey, key: unlocked !== undefined };
  }, id);
  assert.deepEqual(after, { last: "last-slot", contentKey: "renewed", key: true });
  const now = await stored(phone);
  assert.deepEqual(
    now.slots.map(({ type }) => type),
    ["opaque"],
  );
  // Nothing of what the passkey could open is left, and what hangs on the device secret is as it was.
  assert.notEqual(now.sealed, before[0]?.sealed);
  assert.deepEqual(await stored(phone, "app-key"), app);
  await phone.context.close();
});

test("what opens a slot never leaves the browser", async () => {
  const phone = await device();
  const sent: string[] = [];
  phone.page.on("request", (request) => sent.push(request.postData() ?? ""));
  await enrolled(phone);
  const own = await phone.page.evaluate(async () => {
    const { custody } = kept;
    await sdk.signOut(custody);
    await sdk.signInWithPin(custody, "830517");
    const pin = [...custody.slotKeys, { material: custody.held!.key }];
    const pinKeys = pin.map(({ material }) => [...material]);
    await sdk.signOut(custody);
    await sdk.signInWithPasskey(custody);
    const secret = [...custody.unlocked!.secret];
    return [...pinKeys, ...custody.slotKeys.map(({ material }) => [...material]), secret];
  });
  // Export key, content key, PRF output, device secret.
  assert.deepEqual(
    own.map(({ length }) => length),
    [64, 32, 32, 32],
  );
  const texts = own.map((bytes) => Buffer.from(bytes).toString("base64url"));
  assert.ok(sent.length > 15);
  const leaks = (text: string) => sent.some((body) => body.includes(text.slice(0, 40)));
  assert.deepEqual(texts.filter(leaks), []);
  const slot = (await stored(phone)).slots[0]?.ciphertext ?? "";
  assert.ok(leaks(slot), "the control: what is sent is seen");
  await phone.context.close();
});

test("enrolment waits for a factor that can carry the backup, and breaks off harmlessly", async () => {
  const phone = await device();
  const first = await phone.page.evaluate(async () => {
    const { custody } = kept;
    await sdk.enrol(custody);
    const passkey = await kept.tried(() => sdk.addPasskey(custody));
    const early = await kept.tried(() =>
      sdk.putSecret(custody, "notes", new Uint8Array([1]), undefined),
    );
    return {
      passkey: passkey?.code,
      early: early?.code,
      pending: await sdk.enrolmentPending(custody),
    };
  });
  assert.deepEqual(first, { passkey: "prf-only-slot", early: "slot-unknown", pending: true });
  await stage.reload(phone);
  await openSealed(phone);
  // The answer to the PIN's last message is lost; the PIN is set, and the backup with it.
  let lost = false;
  await phone.page.route("**/v1/account/opaque/finish", async (route) => {
    if (lost || route.request().method() === "OPTIONS") return route.continue();
    lost = true;
    await route.fetch({ maxRetries: 0 }).catch(() => undefined);
    return route.abort();
  });
  const seen = await phone.page.evaluate(async () => {
    const { custody } = kept;
    const { thumbprint } = await sdk.enrol(custody);
    const broken = await kept.tried(() => sdk.setPin(custody, "830517"));
    await sdk.setPin(custody, "830517");
    await sdk.putSecret(custody, "notes", new Uint8Array([1]), undefined);
    await sdk.signOut(custody);
    const { unlocked } = await sdk.signInWithPin(custody, "830517");
    const note = await sdk.getSecret(custody, "notes");
    sdk.lock(custody);
    const locked = await kept.tried(() => sdk.getSecret(custody, "notes"));
    return {
      broken: broken?.code,
      pending: await sdk.enrolmentPending(custody),
      same: unlocked?.thumbprint === thumbprint,
      note: note?.content[0],
      locked: locked?.code,
    };
  });
  assert.deepEqual(seen, {
    ...{ broken: "unreachable", pending: false, same: true, note: 1, locked: "locked" },
  });
  await phone.context.close();
});

test("where the policy has server slots an authenticator app opens, and a forgotten PIN gets its slot back", async () => {
  const phone = await stage.device();
  const uri = await phone.page.evaluate(async () => {
    const { custody } = kept;
    await sdk.enrol(custody);
    await sdk.setPin(custody, "830517");
    return (await sdk.enrolTotp(custody, "notes")).otpauth;
  });
  await phone.page.evaluate(
    (code) => sdk.confirmTotp(kept.custody, code),
    authenticatorCode(uri, 0),
  );
  const before = await stored(phone);
  assert.deepEqual([before.slots.length, before.server?.length], [1, 43]);
  const opened = await phone.page.evaluate(
    async (code) => {
      const { custody } = kept;
      await sdk.signOut(custody);
      const { unlocked } = await sdk.signInWithTotp(custody, code);
      await sdk.setPin(custody, "294061");
      return unlocked !== undefined;
    },
    authenticatorCode(uri, 1),
  );
  const now = await stored(phone);
  assert.deepEqual([opened, now.sealed], [true, before.sealed]);
  assert.notEqual(now.slots[0]?.credential, before.slots[0]?.credential);
  await phone.context.close();
});

test("where it has none, an authenticator app brings no key back, and the error says so", async () => {
  const phone = await device();
  const uri = await phone.page.evaluate(async () => {
    const { custody } = kept;
    await sdk.enrol(custody);
    await sdk.setPin(custody, "830517");
    return (await sdk.enrolTotp(custody, "sealed")).otpauth;
  });
  await phone.page.evaluate(
    (code) => sdk.confirmTotp(kept.custody, code),
    authenticatorCode(uri, 0),
  );
  const seen = await phone.page.evaluate(
    async ([first, second]) => {
      const { custody } = kept;
      await sdk.signOut(custody);
      const keys = await kept.tried(() => sdk.signInWithTotp(custody, first ?? ""));
      const { scope } = await sdk.signInWithTotp(custody, second ?? "", { release: [] });
      const forgotten = await kept.tried(() => sdk.setPin(custody, "294061"));
      return { keys: keys?.code, scope, forgotten: forgotten?.code };
    },
    [authenticatorCode(uri, 1), authenticatorCode(uri, 1)],
  );
  // With the old PIN's slot the last way in would go: the PIN is not replaced.
  assert.deepEqual(seen, { keys: "release-forbidden", scope: "full", forgotten: "last-slot" });
  await phone.context.close();
});
