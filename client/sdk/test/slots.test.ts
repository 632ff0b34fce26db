/** Unlocking without a network: the slots, without an authenticator (that one is in e2e). */
import assert from "node:assert/strict";
import { test } from "node:test";
import { random, toBase64Url } from "../src/bytes.js";
import { type Custody, keepAccount, lock } from "../src/custody.js";
import { Unlocked } from "../src/keys.js";
import { changePinOffline, keepOfflineByPin } from "../src/offline/pin.js";
import { OFFLINE } from "../src/offline/kept.js";
import { sync } from "../src/offline/sync.js";
import { hashPin } from "../src/offline/argon2.js";
import { dropOfflinePasskey, dropOthersOffline, renewOfflinePin } from "../src/demand/ended.js";
import {
  dropOffline,
  keepOfflineByPasskey,
  offlineState,
  renewOffline,
  unlockOfflineByPasskey,
  unlockOfflineByPin,
} from "../src/offline/slots.js";
import { keepAppKey } from "../src/session.js";
import { toHex } from "../src/bytes.js";
import { use } from "../src/demand/t.js";
import { tools } from "../src/tools.js";
import { FakeDaemon } from "./support/daemon.js";
import { Realm } from "./support/realm.js";

// As `onDemand` does it.
use(tools());

async function unlockedCustody(): Promise<[Custody, string]> {
  const daemon = new FakeDaemon(() => {
    throw new TypeError("nobody asks the daemon");
  });
  const custody = await daemon.custody(await Realm.make());
  await keepAccount(custody, { account: "a-1" });
  const unlocked = await Unlocked.create();
  await keepAppKey(custody, unlocked);
  return [custody, unlocked.thumbprint];
}

test("Argon2id is the reference's (its test vector of version 19, 64 MiB, two passes)", async () => {
  const salt = new TextEncoder().encode("somesalt");
  const hash = await hashPin("password", salt, { memoryKib: 65_536, passes: 2, lanes: 1 });
  assert.equal(toHex(hash), "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7");
});

test("the right PIN unlocks, wrong ones are counted first and add up", async () => {
  const [custody, key] = await unlockedCustody();
  await assert.rejects(unlockOfflineByPin(custody, "830517"), { code: "no-offline-slot" });
  await keepOfflineByPin(custody, "830517");
  lock(custody);
  for (const wrong of ["111222", "83051", ""]) {
    await assert.rejects(unlockOfflineByPin(custody, wrong), { code: "offline-pin-wrong" });
  }
  assert.equal((await offlineState(custody)).wrongPins, 3);
  assert.equal((await unlockOfflineByPin(custody, "830517")).thumbprint, key);
  assert.equal(custody.unlocked?.thumbprint, key);
  assert.equal((await offlineState(custody)).wrongPins, 0);
});

test("wrong PINs are reported once there is somebody to tell, and the right one is none of them", async () => {
  const reports: unknown[] = [];
  let reachable = false;
  const daemon = new FakeDaemon(({ path, body }) => {
    if (!reachable) throw new TypeError("nobody asks the daemon");
    assert.equal(path, "/v1/account/offline-report");
    reports.push(JSON.parse(body!));
    return { status: 204 };
  });
  const custody = await daemon.custody(await Realm.make());
  await keepAccount(custody, { account: "a-1" });
  await keepAppKey(custody, await Unlocked.create());
  await keepOfflineByPin(custody, "830517");
  for (const wrong of ["111222", "333444"]) {
    await assert.rejects(unlockOfflineByPin(custody, wrong), { code: "offline-pin-wrong" });
  }
  await unlockOfflineByPin(custody, "830517");
  custody.transport.session = { token: "t-1", scope: "read" } as never;
  assert.deepEqual(await sync(custody), {
    sent: [],
    waiting: [],
    because: undefined,
    unopened: [],
  });
  reachable = true;
  await sync(custody);
  await sync(custody);
  assert.deepEqual(reports, [{ wrong_pins: 2 }]);
});

test("a PIN changed offline is pending, and the old one is gone", async () => {
  const [custody, key] = await unlockedCustody();
  await keepOfflineByPin(custody, "830517");
  await assert.rejects(changePinOffline(custody, "111222", "294061"), {
    code: "offline-pin-wrong",
  });
  await changePinOffline(custody, "830517", "294061");
  lock(custody);
  await assert.rejects(unlockOfflineByPin(custody, "830517"), { code: "offline-pin-wrong" });
  assert.equal((await unlockOfflineByPin(custody, "294061")).thumbprint, key);
  assert.equal((await offlineState(custody)).pinPending, true);
});

test("slots need an open key, PRF output where it is a passkey's, and go when they are dropped", async () => {
  const [custody] = await unlockedCustody();
  await assert.rejects(keepOfflineByPasskey(custody, undefined), { code: "prf-missing" });
  const prf = {
    credentialId: toBase64Url(random(16)),
    output: random(32),
    salt: toBase64Url(random(32)),
    rpId: "localhost",
  };
  await keepOfflineByPasskey(custody, prf);
  await keepOfflineByPin(custody, "830517");
  assert.deepEqual(await offlineState(custody), {
    byPasskey: true,
    byPin: true,
    wrongPins: 0,
    pinPending: false,
  });
  await assert.rejects(unlockOfflineByPasskey(custody), { code: "passkey-unsupported" });
  await dropOffline(custody, "pin");
  assert.deepEqual(await offlineState(custody), {
    byPasskey: true,
    byPin: false,
    wrongPins: 0,
    pinPending: false,
  });
  lock(custody);
  await assert.rejects(keepOfflineByPin(custody, "830517"), { code: "locked" });
  await dropOffline(custody);
  assert.equal((await offlineState(custody)).byPasskey, false);
});

test("a slot is the account's: moved to another it does not open", async () => {
  const [custody] = await unlockedCustody();
  await keepOfflineByPin(custody, "830517");
  const slots = await custody.storage.get(OFFLINE);
  await keepAccount(custody, { account: "a-2" });
  assert.equal((await offlineState(custody)).byPin, false);
  // As whoever writes to the device's storage may put it there.
  await custody.storage.update([], (update) => {
    update.set(OFFLINE, slots);
  });
  await assert.rejects(unlockOfflineByPin(custody, "830517"), { code: "offline-pin-wrong" });
  await keepAccount(custody, { account: "a-1" });
  assert.equal((await unlockOfflineByPin(custody, "830517")).locked, false);
});

test("a passkey that is removed, here or elsewhere, unlocks offline no more", async () => {
  const [custody] = await unlockedCustody();
  const keep = (deviceId: string | undefined) =>
    keepOfflineByPasskey(custody, {
      ...{ credentialId: toBase64Url(random(16)), output: random(32), deviceId },
      ...{ salt: toBase64Url(random(32)), rpId: "localhost" },
    });
  const left = async () => {
    const kept = (await custody.storage.get("offline")) as { passkeys: { deviceId?: string }[] };
    return kept.passkeys.map(({ deviceId }) => deviceId);
  };
  for (const id of ["one", "two", "three", undefined]) await keep(id);
  await dropOthersOffline(custody, new Set(["one", "two"]));
  // Which one the last is an earlier release has not written down: it might be one that was removed.
  assert.deepEqual(await left(), ["one", "two"]);
  await dropOfflinePasskey(custody, "two");
  assert.deepEqual(await left(), ["one"]);
});

test("a passkey that an earlier release kept is kept anew with its name once it was used, and ends when that is removed", async () => {
  const [custody] = await unlockedCustody();
  const old = { credentialId: "AAAA", output: random(32), salt: "AAAA", rpId: "localhost" };
  await keepOfflineByPasskey(custody, { ...old, deviceId: undefined });
  const by = async () => (await offlineState(custody)).byPasskey;
  await dropOthersOffline(custody, new Set(["one"]));
  assert.equal(await by(), false);
  // Another one that was never kept is not.
  await renewOffline(custody, { ...old, credentialId: "BBBB", deviceId: "two" });
  assert.equal(await by(), false);
  await renewOffline(custody, { ...old, deviceId: "one" });
  await dropOthersOffline(custody, new Set(["one"]));
  assert.equal(await by(), true);
  await dropOthersOffline(custody, new Set(["two"]));
  assert.equal(await by(), false);
});

test("a PIN that an earlier release kept is not taken for the one that the daemon names", async () => {
  const daemon = new FakeDaemon(() => {
    return { body: { passkeys: [], pin: { device_id: "pin-2" } } };
  });
  const custody = await daemon.custody(await Realm.make());
  await keepAccount(custody, { account: "a-1" });
  await keepAppKey(custody, await Unlocked.create());
  custody.transport.session = { token: "t-1", scope: "read" } as never;
  // Without its name, and another device has changed it since.
  await keepOfflineByPin(custody, "830517");
  await sync(custody);
  await unlockOfflineByPin(custody, "830517");
  custody.pin = "pin-2";
  await renewOffline(custody, "294061");
  await unlockOfflineByPin(custody, "294061");
  await assert.rejects(unlockOfflineByPin(custody, "830517"), { code: "offline-pin-wrong" });
});

test("a PIN that is changed unlocks offline in its new form alone, where it unlocked before", async () => {
  const [custody, key] = await unlockedCustody();
  await renewOfflinePin(custody, "294061");
  assert.equal((await offlineState(custody)).byPin, false);
  await keepOfflineByPin(custody, "830517");
  await renewOfflinePin(custody, "294061");
  await assert.rejects(unlockOfflineByPin(custody, "830517"), { code: "offline-pin-wrong" });
  assert.equal((await unlockOfflineByPin(custody, "294061")).thumbprint, key);
  lock(custody);
  await renewOfflinePin(custody, "112358");
  assert.equal((await offlineState(custody)).byPin, false);
});

test("a PIN that the daemon does not know yet stays one when passkeys no longer unlock offline", async () => {
  const [custody] = await unlockedCustody();
  await keepOfflineByPin(custody, "830517");
  await changePinOffline(custody, "830517", "294061");
  await dropOffline(custody, "passkey");
  assert.equal((await offlineState(custody)).pinPending, true);
  // The control: with the PIN it goes.
  await dropOffline(custody, "pin");
  assert.equal((await offlineState(custody)).pinPending, false);
});

test("a PIN that another device has changed or removed unlocks here no more, and the new one does once it was used", async () => {
  let now: string | undefined = "pin-1";
  const daemon = new FakeDaemon(() => {
    return { body: { passkeys: [], pin: now && { device_id: now } } };
  });
  const custody = await daemon.custody(await Realm.make());
  await keepAccount(custody, { account: "a-1" });
  await keepAppKey(custody, await Unlocked.create());
  custody.transport.session = { token: "t-1", scope: "read" } as never;
  const used = (credential: string) => {
    custody.pin = credential;
  };
  used("pin-1");
  await keepOfflineByPin(custody, "830517");
  // The control: while it is the account's, it unlocks.
  await sync(custody);
  await unlockOfflineByPin(custody, "830517");
  // A sign-in with another one that this device has not heard of yet.
  used("pin-2");
  await renewOffline(custody, "294061");
  await assert.rejects(unlockOfflineByPin(custody, "830517"), { code: "offline-pin-wrong" });
  await unlockOfflineByPin(custody, "294061");
  // Heard of without a sign-in.
  now = "pin-3";
  await sync(custody);
  await assert.rejects(unlockOfflineByPin(custody, "294061"), { code: "no-offline-slot" });
  used("pin-3");
  await renewOffline(custody, "517830");
  await unlockOfflineByPin(custody, "517830");
  await changePinOffline(custody, "517830", "061294");
  await sync(custody);
  assert.equal((await offlineState(custody)).pinPending, true);
  now = undefined;
  await sync(custody);
  assert.equal((await offlineState(custody)).byPin, false);
  // It comes back with no sign-in by a later PIN, unless it is asked for.
  used("pin-4");
  await renewOffline(custody, "830517");
  assert.equal((await offlineState(custody)).byPin, false);
});
