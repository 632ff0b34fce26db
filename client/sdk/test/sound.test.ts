/** Half of a record: an error with a name, and not whatever the first access makes of it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Custody, isBound, keepAccount, openCustody } from "../src/custody.js";
import { enrol } from "../src/enrol.js";
import { Unlocked } from "../src/keys.js";
import { lostVersions } from "../src/offline/changes.js";
import { pendingChanges } from "../src/offline/changes.js";
import { loadSecret, saveSecret } from "../src/offline/queue.js";
import { offlineState } from "../src/offline/slots.js";
import { newestCheckpoint } from "../src/receipts/log.js";
import { repairDevice } from "../src/repair.js";
import { keepAppKey } from "../src/session.js";
import { memoryStorage } from "../src/storage/memory.js";
import type { Storage } from "../src/storage/storage.js";
import { FakeDaemon } from "./support/daemon.js";
import { Realm } from "./support/realm.js";

test("a record that is damaged is said to be, and is left as it is", async () => {
  const daemon = new FakeDaemon(() => {
    throw new TypeError("Failed to fetch");
  });
  const custody = await daemon.custody(await Realm.make());
  await keepAccount(custody, { account: "a-1" });
  for (const [key, value, read] of [
    ["log", { trusted: "x" }, () => newestCheckpoint(custody)],
    ["offline", { wrongPins: 1 }, () => offlineState(custody)],
    ["enrolment", { idempotencyKey: "x" }, () => enrol(custody)],
    ["app-key", { thumbprint: "x" }, async () => keepAppKey(custody, await Unlocked.create())],
    ["queue/a-1/notes", { id: "x" }, () => loadSecret(custody, "notes")],
    ["queue/a-1/notes", null, () => saveSecret(custody, "notes", new Uint8Array())],
    ["copy/a-1/other", { version: 1 }, () => loadSecret(custody, "other")],
    ["lost/a-1/notes/1", "half", () => lostVersions(custody)],
  ] as const) {
    await custody.storage.update([], (update) => {
      update.set(key, value);
    });
    await assert.rejects(read(), { name: "StorageFailed", code: "storage-damaged" }, key);
    assert.deepEqual(await custody.storage.get(key), value);
  }
});

test("a damaged device key is replaced, with whatever a sign-in makes anew, and nothing else goes", async () => {
  const realm = (await Realm.make()).trust;
  const storage = memoryStorage();
  const fetch = () => Promise.reject(new TypeError("Failed to fetch"));
  const options = { url: "https://c.example", app: "notes", realm, storage, fetch };
  const before = await openCustody(options);
  await keepAccount(before, { account: "a-1", boundDevice: before.device.thumbprint });
  await saveSecret(before, "notes", new Uint8Array([1]));
  // Where nothing is damaged nothing is changed.
  assert.deepEqual(await repairDevice(options), { replaced: [], left: [] });
  assert.ok(isBound(await openCustody(options)));
  const damaged: Record<string, unknown> = {
    "device-key": { publicKey: "half" },
    "app-key": { thumbprint: "x" },
    offline: { wrongPins: 1 },
    "copy/a-1/other": { version: 1 },
    "queue/a-1/list": { id: "x" },
    log: { trusted: "x" },
  };
  await storage.update([], (update) => {
    for (const [key, value] of Object.entries(damaged)) update.set(key, value);
  });
  await assert.rejects(openCustody(options), { code: "storage-damaged" });
  const { replaced, left } = await repairDevice(options);
  assert.deepEqual(replaced, ["app-key", "copy/a-1/other", "device-key", "offline"]);
  assert.deepEqual(left, ["log", "queue/a-1/list"]);
  const after = await openCustody(options);
  // The same account, on a device that is a stranger to it; the change waits, and what is damaged is as it was.
  assert.deepEqual([after.account?.account, isBound(after)], ["a-1", false]);
  assert.deepEqual(await pendingChanges(after), ["list", "notes"]);
  assert.deepEqual((await loadSecret(after, "notes"))?.content, new Uint8Array([1]));
  for (const key of left) assert.deepEqual(await storage.get(key), damaged[key]);
  assert.equal((await offlineState(after)).byPin, false);
});

test("a device that does not know any more whose it is says so, and what was not sent is there once it is repaired", async () => {
  const realm = (await Realm.make()).trust;
  const storage = memoryStorage();
  const fetch = () => Promise.reject(new TypeError("Failed to fetch"));
  const options = { url: "https://c.example", app: "notes", realm, storage, fetch };
  const before = await openCustody(options);
  await keepAccount(before, { account: "a-1" });
  await saveSecret(before, "notes", new Uint8Array([1]));
  await storage.update([], (update) => {
    update.set("account", { boundDevice: "half" });
    update.set("enrolment", { idempotencyKey: "half" });
  });
  await assert.rejects(openCustody(options), { code: "storage-damaged" });
  const { replaced, left } = await repairDevice(options);
  assert.deepEqual([replaced, left], [["account", "enrolment"], []]);
  const after = await openCustody(options);
  assert.deepEqual([after.account, after.device.thumbprint], [undefined, before.device.thumbprint]);
  await keepAccount(after, { account: "a-1" });
  assert.deepEqual(await pendingChanges(after), ["notes"]);
});

test("what another tab has mended meanwhile is not let go again", async () => {
  const realm = (await Realm.make()).trust;
  const storage = memoryStorage();
  const fetch = () => Promise.reject(new TypeError("Failed to fetch"));
  const options = { url: "https://c.example", app: "notes", realm, storage, fetch };
  await storage.update([], (update) => {
    update.set("device-key", { publicKey: "half" });
    update.set("copy/a-1/notes", { version: 1 });
    update.set("copy/a-1/other", { version: 1 });
  });
  // The other tab is faster: it has repaired, opened the custody, and read one of the two anew.
  let [seen, theirs]: [number, Custody | undefined] = [0, undefined];
  const late: Storage = {
    ...storage,
    async list(prefix) {
      const found = await storage.list(prefix);
      seen = found.length;
      await repairDevice(options);
      theirs = await openCustody(options);
      await storage.update([], (update) => {
        update.set("copy/a-1/notes", { version: 2, content: new Uint8Array([7]) });
      });
      return found;
    },
  };
  assert.deepEqual(await repairDevice({ ...options, storage: late }), { replaced: [], left: [] });
  assert.equal(seen, 3, "the control: all of it was damaged when this tab looked");
  const { device } = await openCustody(options);
  assert.equal(device.thumbprint, theirs!.device.thumbprint);
  assert.ok(await storage.get("copy/a-1/notes"));
});

test("of two tabs that sign in to two accounts at once, neither takes what the other's account keeps", async () => {
  const daemon = new FakeDaemon(() => ({}));
  const first = await daemon.custody(await Realm.make());
  const { storage } = first;
  await keepAccount(first, { account: "a" });
  await storage.update([], (update) => {
    update.set("codes", "of a");
  });
  // Each looks before either writes.
  const [second, third] = [{ ...first }, { ...first }];
  await Promise.all([keepAccount(second, { account: "b" }), keepAccount(third, { account: "c" })]);
  await storage.update([], (update) => {
    update.set("codes", "of c");
  });
  await keepAccount(second, { account: "a" });
  assert.equal(await storage.get("codes"), "of a");
  await keepAccount(second, { account: "c" });
  assert.equal(await storage.get("codes"), "of c");
});

test("a storage that was cleared under an open page has the device key again after the sign-in", async () => {
  const daemon = new FakeDaemon(() => ({}));
  const realm = (await Realm.make()).trust;
  const storage = memoryStorage();
  const options = { url: "https://c.example", app: "notes", realm, storage, fetch: daemon.fetch };
  const before = await openCustody(options);
  await storage.clear();
  await keepAccount(before, { account: "a-1", boundDevice: before.device.thumbprint });
  const after = await openCustody(options);
  assert.ok(isBound(after));
  assert.equal(after.device.thumbprint, before.device.thumbprint);
});
