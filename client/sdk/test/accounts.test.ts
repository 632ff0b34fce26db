/**
 * One device, two tabs, two accounts: a tab that has the first one open while the device is the second one's by now, since the
 * other tab has signed in to that.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { eraseAccount } from "../src/account.js";
import { fromUtf8, random, toBase64Url, utf8 } from "../src/bytes.js";
import { type Custody, forgetDevice, keepAccount } from "../src/custody.js";
import { begin } from "../src/demand/enrol.js";
import { abandonEnrolment, enrolmentPending } from "../src/enrol.js";
import { codesPending, codesSeen, setRecoveryCodes, unseenCodes } from "../src/factors.js";
import { Unlocked } from "../src/keys.js";
import { changePinOffline, keepOfflineByPin } from "../src/offline/pin.js";
import { loadSecret, saveSecret } from "../src/offline/queue.js";
import { reportOffline } from "../src/offline/report.js";
import { dropOfflinePasskey, renewOfflinePin } from "../src/demand/ended.js";
import {
  dropOffline,
  keepOfflineByPasskey,
  offlineState,
  unlockOfflineByPin,
} from "../src/offline/slots.js";
import { rotateSecret } from "../src/rotation.js";
import { keepAppKey } from "../src/session.js";
import { memoryStorage } from "../src/storage/memory.js";
import { blind, signInElsewhere, tab, theirs } from "./support/accounts.js";
import { Safe } from "./support/safe.js";

const PIN = "830517";
const prf = () => ({
  ...{ credentialId: toBase64Url(random(16)), output: random(32), deviceId: "key-1" },
  ...{ salt: toBase64Url(random(32)), rpId: "localhost" },
});

/** Everything that writes what belongs to one account. */
const WRITES: Readonly<Record<string, (custody: Custody) => Promise<unknown>>> = {
  "a PIN that is to unlock offline": (custody) => keepOfflineByPin(custody, PIN),
  "a passkey that is to": (custody) => keepOfflineByPasskey(custody, prf()),
  "a PIN that was changed": async (custody) => {
    await renewOfflinePin(custody, PIN);
    await dropOffline(custody, "pin");
  },
  "ways that end": (custody) => dropOffline(custody),
  "a passkey that was removed": (custody) => dropOfflinePasskey(custody, "d"),
  "another app key": async (custody) => keepAppKey(custody, await Unlocked.create()),
  "another secret": (custody) => rotateSecret(custody),
  "recovery codes": (custody) => setRecoveryCodes(custody),
  "an enrolment that is given up": abandonEnrolment,
  "a device that is forgotten": forgetDevice,
};

test("no tab writes its own account's records where another's are by now, and what it would lose stays", async () => {
  for (const [what, write] of Object.entries(WRITES)) {
    for (const looks of [true, false]) {
      const safe = await Safe.make(true);
      const storage = memoryStorage();
      const { custody, asked } = await tab(safe, storage);
      await keepOfflineByPin(custody, PIN);
      const own = await storage.get("offline");
      await signInElsewhere(custody);
      const before = await theirs(storage);
      if (!looks) {
        Object.assign(custody, { storage: blind(storage) });
        await write(custody).catch(() => undefined);
        assert.notDeepEqual(await theirs(storage), before, `the control: ${what}`);
        continue;
      }
      await assert.rejects(write(custody), { name: "NotReady", code: "other-account" }, what);
      assert.deepEqual(await theirs(storage), before, what);
      assert.deepEqual(await storage.get("of/a-1/offline"), own, what);
      // Recovery codes and secrets of before are good still: it is refused before anything is changed at the daemon.
      assert.deepEqual(
        asked.filter((one) => !one.startsWith("GET")),
        [],
        what,
      );
      // And whoever signs in again in this tab goes on as before.
      if (what === "a device that is forgotten") continue;
      await keepAccount(custody, { account: "a-1" });
      assert.deepEqual(await storage.get("offline"), own, what);
      await write(custody);
    }
  }
});

test("a PIN is neither tried nor told where the ways to unlock are another account's", async () => {
  const safe = await Safe.make(true);
  const storage = memoryStorage();
  const { custody, asked } = await tab(safe, storage);
  await keepOfflineByPin(custody, PIN);
  await signInElsewhere(custody);
  const before = await theirs(storage);
  for (const use of [
    () => unlockOfflineByPin(custody, PIN),
    () => changePinOffline(custody, PIN, "294061"),
    () => reportOffline(custody),
    () => offlineState(custody),
  ]) {
    await assert.rejects(use, { code: "other-account" });
  }
  assert.deepEqual([asked, await theirs(storage)], [[], before]);
  // The control: a tab that does not look has the other account's wrong PINs told as this one's.
  const told: string[] = [];
  const careless = await safe.device(blind(storage), ({ path }) => {
    told.push(path);
    return "lost";
  });
  await assert.rejects(reportOffline(careless));
  assert.deepEqual(told, ["/v1/account/offline-report"]);
});

test("what waits under another account's name is neither shown nor gone on with", async () => {
  const safe = await Safe.make(true);
  const storage = memoryStorage();
  const { custody } = await tab(safe, storage);
  await signInElsewhere(custody);
  const begun = { idempotencyKey: "k", sealed: new Uint8Array(4), wrapped: new Uint8Array(4) };
  await storage.update([], (update) => {
    update.set("enrolment", begun);
  });
  await assert.rejects(enrolmentPending(custody), { code: "other-account" });
  await assert.rejects(codesPending(custody), { code: "other-account" });
  // A tab that has seen no account yet begins no enrolment beside one that another tab has signed in to.
  await assert.rejects(begin({ ...custody, account: undefined }), { code: "other-account" });
  assert.deepEqual(await storage.get("enrolment"), begun);
});

test("an account is not erased from a tab whose device is another's, whose changes would go with it", async () => {
  const safe = await Safe.make(true);
  const storage = memoryStorage();
  const { custody, asked } = await tab(safe, storage);
  await signInElsewhere(custody);
  await assert.rejects(eraseAccount(custody), { code: "other-account" });
  assert.deepEqual(asked, []);
  assert.ok(await storage.get("queue/a-2/notes"));
});

test("codes that came about while another tab signed in elsewhere wait for their owner", async () => {
  const safe = await Safe.make(true);
  const storage = memoryStorage();
  const { custody } = await tab(safe, storage);
  const { refuse } = safe;
  let before: unknown;
  safe.refuse = () => undefined;
  const daemon = custody.transport.request.bind(custody.transport);
  custody.transport.request = async (...call: Parameters<typeof daemon>) => {
    const answer = await daemon(...call);
    if (call[1] === "/v1/account/recovery-codes") {
      await signInElsewhere(custody);
      before = await theirs(storage);
    }
    return answer;
  };
  const codes = await setRecoveryCodes(custody);
  safe.refuse = refuse;
  assert.deepEqual(await theirs(storage), before);
  assert.equal(codes.length, 10);
  // They were not shown, as far as this device knows: the owner comes back.
  const again = await tab(safe, storage);
  assert.equal(await codesPending(again.custody), true);
  const shown = await unseenCodes(again.custody);
  assert.deepEqual(
    shown?.map(({ text }) => text),
    codes.map(({ text }) => text),
  );
  await signInElsewhere(again.custody);
  await codesSeen(again.custody);
  assert.deepEqual(await theirs(storage), before);
  await keepAccount(again.custody, { account: "a-1" });
  assert.equal(await codesPending(again.custody), false);
});

test("a change is kept and sent under its own account's name, whosever the device is", async () => {
  const safe = await Safe.make(true);
  const storage = memoryStorage();
  const { custody } = await tab(safe, storage);
  await signInElsewhere(custody);
  const before = await theirs(storage);
  const synced = await saveSecret(custody, "notes", utf8("mine"));
  assert.deepEqual(synced.sent, ["notes"]);
  assert.equal(fromUtf8((await loadSecret(custody, "notes"))?.content ?? utf8("")), "mine");
  assert.deepEqual(await theirs(storage), before);
});

test("a session that nobody has asked for leaves the device to the account that it is", async () => {
  const storage = memoryStorage();
  const safe = await Safe.make(true);
  const { custody } = await tab(safe, storage);
  await signInElsewhere(custody);
  const before = await theirs(storage);
  await keepAccount(custody, { account: "a-1" }, true);
  assert.deepEqual(await theirs(storage), before);
  // The control: one that its owner has opened makes it this account's again.
  await keepAccount(custody, { account: "a-1" });
  assert.notDeepEqual(await theirs(storage), before);
});

test("an erased account takes nothing of another one's on this device along", async () => {
  for (const others of [true, false]) {
    const safe = await Safe.make(true);
    const storage = memoryStorage();
    const { custody } = await tab(safe, storage);
    await keepOfflineByPin(custody, PIN);
    const waiting = { idempotencyKey: "k", sealed: new Uint8Array(4), wrapped: new Uint8Array(4) };
    if (others) {
      await signInElsewhere(custody);
      await storage.update([], (update) => {
        update.set("enrolment", waiting);
      });
      await keepAccount(custody, { account: "a-1" });
    }
    await storage.update([], (update) => {
      for (const kind of ["queue", "copy", "lost"]) update.set(`${kind}/a-1/notes`, {});
      update.set("an app's own", 1);
      const receipts = ["a-1", "a-2"].map((account) => ({ index: 1, leaf: "AA", account }));
      update.set("log", { waiting: ["seen"], receipts });
    });
    safe.refuse = ({ method, path }) =>
      method === "DELETE" && path === "/v1/account" ? { status: 204 } : undefined;
    await eraseAccount(custody);
    assert.deepEqual([custody.account, custody.transport.session], [undefined, undefined]);
    const left = (await storage.list("")).map(([key]) => key).sort();
    if (!others) {
      assert.deepEqual(left, []);
      continue;
    }
    assert.deepEqual(left, [
      ...["copy/a-2/notes", "device-key", "log", "of/a-2/app-key", "of/a-2/codes"],
      ...["of/a-2/enrolment", "of/a-2/offline", "of/a-2/rotation", "queue/a-2/notes"],
    ]);
    assert.deepEqual(await storage.get("log"), {
      waiting: ["seen"],
      receipts: [{ index: 1, leaf: "AA", account: "a-2" }],
    });
    // It is there when its owner is.
    await keepAccount(custody, { account: "a-2" });
    assert.deepEqual(await storage.get("enrolment"), waiting);
  }
});
