/** What a sign-in is believed, and what is left of it where it is not. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { random } from "../src/bytes.js";
import { isBound, keepAccount, openCustody } from "../src/custody.js";
import { followRemovals } from "../src/demand/ended.js";
import { StorageFailed, Untrusted } from "../src/errors.js";
import { open, seal, Unlocked, WRAPPED, wrappingKey } from "../src/keys.js";
import { acceptNewLog } from "../src/receipts/log.js";
import { keepAppKey } from "../src/session.js";
import { OFFLINE } from "../src/offline/kept.js";
import { keepOfflineByPin } from "../src/offline/pin.js";
import { offlineState, unlockOfflineByPin } from "../src/offline/slots.js";
import { continueWithPin, openReadOnly, signInWithPin } from "../src/sign-in.js";
import { memoryStorage } from "../src/storage/memory.js";
import type { Storage } from "../src/storage/storage.js";
import { problem, type Reply } from "./support/daemon.js";
import { leaves, Realm } from "./support/realm.js";
import { scene } from "./support/scene.js";

test("a key that this device knows is opened, also where the log can not be asked", async () => {
  const { custody, unlocked } = await scene();
  await keepAppKey(custody, unlocked);
  const signedIn = await signInWithPin(custody, "830517", { account: "a-1", onServer: true });
  assert.equal(signedIn.unlocked?.thumbprint, unlocked.thumbprint);
  assert.ok(isBound(custody) && custody.transport.session);
});

test("what fails after a sign-in does not undo it, and is told", async () => {
  const stage = await scene();
  const { custody, unlocked } = stage;
  await keepAppKey(custody, unlocked);
  const working = custody.storage;
  const full = new StorageFailed("storage-unavailable", "the disk is full");
  const failing: Storage = {
    ...working,
    update: (keys, change) =>
      working.update(keys, (update) =>
        change({
          get: (key) => update.get(key),
          set: (key, value) => {
            if (key === OFFLINE) throw full;
            update.set(key, value);
          },
          delete: (key) => {
            update.delete(key);
          },
        }),
      ),
  };
  stage.events = () => Promise.resolve(problem(503, "busy"));
  const options = { account: "a-1", onServer: true };
  const ways = [
    () => signInWithPin(custody, "830517", options),
    () => continueWithPin(custody, "830517", options),
  ];
  for (const signIn of ways) {
    await working.update([], (update) => {
      update.set(OFFLINE, { passkeys: [], wrongPins: 0, stale: ["pin"] });
    });
    Object.assign(custody, { storage: failing });
    const { undone, unlocked: key } = await signIn();
    assert.deepEqual(
      undone.map(({ what, error }) => [what, error.code]),
      [
        ["log", "busy"],
        ["offline", "storage-unavailable"],
      ],
    );
    assert.ok(key && custody.transport.session);
    assert.equal((await offlineState(custody)).byPin, false);
    // The next one does what was left undone.
    Object.assign(custody, { storage: working });
    assert.deepEqual(
      (await signIn()).undone.map(({ what }) => what),
      ["log"],
    );
    assert.equal((await offlineState(custody)).byPin, true);
  }
});

test("where the log does not go on, neither session nor key is left", async () => {
  const stage = await scene();
  const { custody, realm, unlocked } = stage;
  await keepAppKey(custody, unlocked);
  const fork = leaves(3).reverse();
  stage.events = async () => {
    const body = {
      events: [],
      complete_from: 1,
      checkpoint: await realm.note(fork),
      consistency: [],
    };
    return { body };
  };
  await assert.rejects(
    signInWithPin(custody, "830517", { account: "a-1", onServer: true }),
    Untrusted,
  );
  assert.deepEqual([custody.transport.session, custody.unlocked], [undefined, undefined]);
});

test("a key that this device sees for the first time must be bound by the realm", async () => {
  for (const good of [true, false]) {
    const stage = await scene();
    const { custody, realm, unlocked } = stage;
    const device_id = unlocked.thumbprint;
    const claims = { app: "notes", sub: "a-1", kind: "app-key", device_id, iat: 1 };
    const binding = await (good ? realm : await Realm.make()).binding(claims);
    const app_keys = [{ device_id, jwk: unlocked.jwk, binding, added: 1 }];
    stage.view = () => Promise.resolve({ body: { account: "a-1", app: "notes", app_keys } });
    const signing = signInWithPin(custody, "830517", { account: "a-1", onServer: true });
    if (good) assert.equal((await signing).unlocked?.thumbprint, device_id);
    else await assert.rejects(signing, Untrusted);
    assert.equal(custody.unlocked !== undefined, good);
  }
});

test("what the daemon says of this device's binding is what holds", async () => {
  const stage = await scene();
  const { custody, unlocked } = stage;
  await keepAppKey(custody, unlocked);
  await keepAccount(custody, { account: "a-1", boundDevice: custody.device.thumbprint });
  stage.bound = false;
  await signInWithPin(custody, "830517", { account: "a-1", onServer: true });
  assert.ok(!isBound(custody));
});

test("a device key is kept, and one that is damaged is said to be", async () => {
  const { trust: realm } = await Realm.make();
  const options = { url: "https://c.example", app: "notes", realm, storage: memoryStorage() };
  const [first, second] = [await openCustody(options), await openCustody(options)];
  assert.equal(first.device.thumbprint, second.device.thumbprint);
  assert.equal(first.device.privateKey.extractable, false);
  await options.storage.update([], (update) => {
    update.set("device-key", { half: "written" });
  });
  await assert.rejects(openCustody(options), (error) => {
    return error instanceof StorageFailed && error.code === "storage-damaged";
  });
});

test("wrong offline PINs are told with the first session that is opened, one that only reads too", async () => {
  const stage = await scene();
  const { custody, reports } = stage;
  await keepAccount(custody, { account: "a-1" });
  const typed = { passkeys: [], wrongPins: 3, unreported: 3 };
  await custody.storage.update([], (update) => {
    update.set(OFFLINE, typed);
  });
  Object.assign(custody, { checkLog: false, member: true });
  stage.reporting = () => problem(503, "busy");
  const first = await openReadOnly(custody);
  assert.deepEqual(
    first.undone.map(({ what, error }) => [what, error.code]),
    [["report", "busy"]],
  );
  stage.reporting = () => ({ status: 204 });
  assert.deepEqual((await openReadOnly(custody)).undone, []);
  await openReadOnly(custody);
  assert.deepEqual(reports, Array(2).fill('{"wrong_pins":3}'));
});

test("a session of another account than was asked for is none", async () => {
  const { custody } = await scene();
  Object.assign(custody, { checkLog: false, member: true });
  const asked = { account: "a-2", onServer: true };
  await assert.rejects(signInWithPin(custody, "830517", asked), { doubt: "statement-differs" });
  assert.deepEqual([custody.transport.session, custody.account], [undefined, undefined]);
  await signInWithPin(custody, "830517", { ...asked, account: "a-1" });
  assert.ok(custody.transport.session);
});

test("a session that only reads and comes late does not take the place of the one that its owner has opened", async () => {
  const stage = await scene();
  const { custody } = stage;
  Object.assign(custody, { checkLog: false, member: true });
  await keepAccount(custody, { account: "a-1" });
  let come: () => void = () => undefined;
  stage.reading = new Promise((resolve) => (come = resolve));
  const reading = openReadOnly(custody);
  await signInWithPin(custody, "830517", { account: "a-1", onServer: true });
  come();
  assert.equal((await reading).scope, "read");
  assert.equal(custody.transport.session?.scope, "full");
  // The control: who asks for it afterwards gets it.
  await openReadOnly(custody);
  assert.equal(custody.transport.session.scope, "read");
  // And whoever has signed out meanwhile stays so.
  stage.reading = new Promise((resolve) => (come = resolve));
  const late = openReadOnly(custody);
  custody.transport.session = undefined;
  come();
  await late;
  assert.equal(custody.transport.session, undefined);
});

/** A page without events, whose log is this one. */
const page = async (realm: Realm, size: number, epoch = 1): Promise<Reply> => {
  const checkpoint = await realm.note(leaves(size), epoch);
  return { body: { events: [], complete_from: 1, checkpoint, consistency: [] } };
};
const SIGN_IN = { account: "a-1", onServer: true } as const;

test("a daemon that shows again what it has shown before, and no receipt, is noticed", async () => {
  const stage = await scene();
  const { custody, realm, unlocked } = stage;
  await keepAppKey(custody, unlocked);
  stage.events = () => page(realm, 2);
  // The control: with its receipt nothing is to be told of.
  assert.deepEqual((await signInWithPin(custody, "830517", SIGN_IN)).undone, []);
  stage.log = () => Promise.resolve(undefined);
  const { undone } = await signInWithPin(custody, "830517", SIGN_IN);
  assert.deepEqual(
    undone.map(({ what, error }) => [what, error.code]),
    [["log", "log-unproven"]],
  );
  // A session that only reads is no event.
  assert.deepEqual((await openReadOnly(custody)).undone, []);
});

test("a receipt without a proof, of an entry that was there long before, is noticed", async () => {
  const stage = await scene();
  const { custody, realm, unlocked } = stage;
  await keepAppKey(custody, unlocked);
  stage.events = () => page(realm, 2);
  await signInWithPin(custody, "830517", SIGN_IN);
  for (const [index, expected] of [
    [1, ["log"]],
    // The control: one that no checkpoint covered before may have no proof yet.
    [2, []],
  ] as const) {
    stage.log = () => Promise.resolve({ index, leaf: "AA", proof: null });
    const { undone } = await signInWithPin(custody, "830517", SIGN_IN);
    assert.deepEqual(
      undone.map(({ what }) => what),
      expected,
    );
  }
});

test("a PIN that the daemon checks is known by its name once it was used", async () => {
  const stage = await scene();
  const { custody, realm, unlocked } = stage;
  await keepAppKey(custody, unlocked);
  stage.events = () => page(realm, 2);
  stage.credential = "pin-1";
  await signInWithPin(custody, "830517", SIGN_IN);
  await keepOfflineByPin(custody, "830517");
  stage.view = () => Promise.resolve({ body: { passkeys: [], pin: { device_id: "pin-1" } } });
  await followRemovals(custody);
  assert.equal((await offlineState(custody)).byPin, true);
  // Changed on another device, it unlocks here no more.
  stage.view = () => Promise.resolve({ body: { passkeys: [], pin: { device_id: "pin-2" } } });
  await followRemovals(custody);
  assert.equal((await offlineState(custody)).byPin, false);
  stage.credential = "pin-2";
  await signInWithPin(custody, "294061", SIGN_IN);
  await unlockOfflineByPin(custody, "294061");
});

test("after a restore the doubt is the log's, which a person can accept, and then the older secrets are taken", async () => {
  const stage = await scene();
  const { custody, realm, unlocked: older } = stage;
  // Of before the restore: a device secret that was replaced since, and a newer revision of it.
  const plain = (await open(await wrappingKey(older.secret), WRAPPED, older.wrapped))!;
  const secret = random(32);
  const wrapped = await seal(await wrappingKey(secret), WRAPPED, plain);
  const newer = await Unlocked.open(secret, wrapped);
  await keepAccount(custody, { account: "a-1" });
  await keepAppKey(custody, newer);
  await custody.storage.update([], (update) => {
    update.set("seen/a-1/device-secret", { revision: 5, sealed: false });
    update.set("queue/a-1/draft", { id: "q", content: random(4) });
  });
  const note = await realm.note(leaves(2));
  await custody.storage.update([], (update) => {
    update.set("log", { trusted: note, waiting: [], receipts: [] });
  });
  const device_id = older.thumbprint;
  const claims = { app: "notes", sub: "a-1", kind: "app-key", device_id, iat: 1 };
  const app_keys = [{ device_id, jwk: older.jwk, binding: await realm.binding(claims), added: 1 }];
  stage.view = () => Promise.resolve({ body: { account: "a-1", app: "notes", app_keys } });
  stage.log = () => Promise.resolve({ index: 1, leaf: "AA", proof: null });
  // The control: while the log is the one of before, older secrets are a lie.
  stage.events = () => page(realm, 2);
  await assert.rejects(signInWithPin(custody, "830517", SIGN_IN), { doubt: "older-secret" });
  stage.events = () => page(realm, 2, 2);
  await assert.rejects(signInWithPin(custody, "830517", SIGN_IN), { doubt: "other-log" });
  await acceptNewLog(custody);
  const { unlocked } = await signInWithPin(custody, "830517", SIGN_IN);
  assert.equal(unlocked?.thumbprint, device_id);
  assert.ok(await custody.storage.get("queue/a-1/draft"));
  // What was accepted was accepted once.
  await custody.storage.update([], (update) => {
    update.set("app-key", { thumbprint: device_id, wrapped });
  });
  await assert.rejects(signInWithPin(custody, "830517", SIGN_IN), { doubt: "statement-differs" });
});
