/** Another device secret: what was known of the one of before opens nothing new, and whatever breaks off loses nothing. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { toBase64Url, utf8 } from "../src/bytes.js";
import { lock } from "../src/custody.js";
import { codeCredential } from "../src/demand/recovery-codes.js";
import { setRecoveryCodes } from "../src/factors.js";
import { open, seal, Unlocked } from "../src/keys.js";
import { OFFLINE, slotsOf } from "../src/offline/kept.js";
import { loadSecret, saveSecret } from "../src/offline/queue.js";
import { sync } from "../src/offline/sync.js";
import { keepOfflineByPasskey, offlineState, renewOffline } from "../src/offline/slots.js";
import { resumeRotation, rotateSecret, rotationPending, rotationSeen } from "../src/rotation.js";
import { getSecret, putSecret, unlock } from "../src/secrets.js";
import type { SlotKey } from "../src/slots.js";
import { memoryStorage } from "../src/storage/memory.js";
import { closedWays } from "../src/upkeep.js";
import { remember } from "../src/vault.js";
import { problem } from "./support/daemon.js";
import { failing, type Fate, Safe } from "./support/safe.js";
import { opensTo, stolen } from "./support/thief.js";

async function sealedNote(key: Unlocked, text: string) {
  return seal(await key.dataKey("notes"), "notes", utf8(text));
}

test("after a rotation the secret of before opens nothing that is stored, and the owner opens all of it", async () => {
  const safe = await Safe.make(true);
  const phone = await safe.device();
  const before = await safe.opened(phone, safe.pin, safe.passkey);
  await putSecret(phone, "draft", utf8("a draft"), undefined);
  const note = await sealedNote(before, "old");
  const thief = stolen(phone);
  // The control: with the secret of now, a thief opens everything.
  assert.deepEqual(await opensTo(safe, thief), ["device-secret", "app-key", "draft"]);
  const { codes, closed, left } = await rotateSecret(phone);
  assert.deepEqual([codes.length, closed, left], [10, [], []]);
  assert.deepEqual(await opensTo(safe, thief), []);
  // One commit, and nothing under a slot of before.
  assert.deepEqual(Object.keys(safe.sets[0]!.secrets!).sort(), [
    "app-key",
    "device-secret",
    "draft",
  ]);
  const { slots } = safe.secrets.get("device-secret")!;
  const kinds = slots!.map(({ type }) => type);
  assert.deepEqual([kinds.length, kinds[0], kinds[1]], [12, "opaque", "prf"]);
  const now = phone.unlocked!;
  assert.ok(before.locked && !now.locked);
  assert.equal(now.thumbprint, before.thumbprint);
  await assert.rejects(Unlocked.open(thief.secret, now.wrapped), { code: "secret-damaged" });
  assert.deepEqual(await open(await now.dataKeys("notes"), "notes", note), utf8("old"));
  const newer = await sealedNote(now, "new");
  const old = await Unlocked.open(thief.secret, before.wrapped);
  assert.equal(await open(await old.dataKeys("notes"), "notes", newer), undefined);
  assert.deepEqual(await open(await now.dataKey("notes"), "notes", newer), utf8("new"));
  assert.deepEqual((await getSecret(phone, "draft"))?.content, utf8("a draft"));
  assert.equal(await rotationPending(phone), true);
  await rotationSeen(phone);
  assert.equal(await rotationPending(phone), false);
});

test("another device takes the new secret up at its next sign-in, with all that it had", async () => {
  const safe = await Safe.make(true);
  const [phone, storage] = [await safe.device(), memoryStorage()];
  const laptop = await safe.device(storage);
  const before = await safe.opened(laptop, safe.passkey);
  const note = await sealedNote(before, "written under way");
  const way = { credentialId: "c", salt: "s", rpId: "r", output: safe.passkey.material };
  await keepOfflineByPasskey(laptop, { ...way, deviceId: "key-1" });
  await saveSecret(laptop, "draft", utf8("one"));
  await safe.opened(phone, safe.pin, safe.passkey);
  await rotateSecret(phone);
  await putSecret(phone, "draft", utf8("two"), safe.secrets.get("draft")!.version);
  // Locked, it knows what it knew; unlocked offline, it is told to sign in, and shows its copy.
  const back = await safe.device(storage);
  back.unlocked = before;
  const { content, from, locked } = (await loadSecret(back, "draft"))!;
  assert.deepEqual(
    { content, from, locked },
    {
      ...{ content: utf8("one"), from: "copy", locked: true },
    },
  );
  const now = await safe.opened(back, safe.passkey);
  assert.equal(now.thumbprint, before.thumbprint);
  assert.deepEqual(
    await open(await now.dataKeys("notes"), "notes", note),
    utf8("written under way"),
  );
  assert.deepEqual((await loadSecret(back, "draft"))?.content, utf8("two"));
  // What unlocked here offline would open nothing: it is made anew by the passkey, and was not silently kept.
  assert.deepEqual(slotsOf(await storage.get(OFFLINE)).stale, ["c"]);
  assert.equal((await offlineState(back)).byPasskey, false);
  await renewOffline(back, { ...way, deviceId: "key-1" });
  assert.deepEqual([(await offlineState(back)).byPasskey], [true]);
  assert.deepEqual(slotsOf(await storage.get(OFFLINE)).stale, []);
});

test("a device that is open goes over to the new secret before it sends anything", async () => {
  const safe = await Safe.make(true);
  const [phone, laptop] = [await safe.device(), await safe.device()];
  await safe.opened(laptop, safe.pin);
  const thief = stolen(laptop);
  await safe.opened(phone, safe.pin, safe.passkey);
  await rotateSecret(phone);
  const synced = await saveSecret(laptop, "draft", utf8("a draft"));
  assert.deepEqual([synced.sent, synced.because], [["draft"], undefined]);
  assert.deepEqual(await opensTo(safe, thief), []);
  assert.deepEqual((await getSecret(phone, "draft"))?.content, utf8("a draft"));
  // One whose factor has no slot any more sends nothing under the old one: it has to sign in.
  const tablet = await safe.device();
  await safe.opened(tablet, safe.passkey);
  lock(phone);
  await safe.opened(phone, safe.pin);
  assert.deepEqual((await rotateSecret(phone)).closed, ["passkey"]);
  const waits = await saveSecret(tablet, "list", utf8("milk"));
  assert.deepEqual([waits.waiting, waits.because, waits.unopened], [["list"], "sign-in", []]);
  assert.deepEqual(await closedWays(phone), ["passkey"]);
  // Used right after one that opens, the passkey gets its slot.
  await safe.opened(tablet, safe.pin);
  assert.deepEqual((await sync(tablet)).sent, ["list"]);
});

test("interrupted at any request and at any write, the key comes back and nothing is lost", async () => {
  let stopped = 0;
  for (const endToEnd of [true, false])
    for (const where of ["network", "disk"] as const)
      for (const fate of ["lost", "answer-lost"] as const)
        for (let at = 1; ; at += 1) {
          const safe = await Safe.make(endToEnd);
          const storage = memoryStorage();
          let [asked, armed] = [0, false];
          const fates = (which: "network" | "disk") => (): Fate => {
            if (!armed || which !== where) return "done";
            asked += 1;
            if (asked < at) return "done";
            return asked === at ? fate : "lost";
          };
          const phone = await safe.device(failing(storage, fates("disk")), fates("network"));
          const before = await safe.opened(phone, safe.pin, safe.passkey);
          const note = await sealedNote(before, "old");
          await putSecret(phone, "draft", utf8("a draft"), undefined);
          armed = true;
          const done = await rotateSecret(phone).then(
            () => true,
            () => false,
          );
          armed = false;
          const told = `${endToEnd} ${where} ${fate} at ${at}`;
          const happened = safe.sets.length > 0;
          // Loaded again, and signed in with either factor.
          for (const by of [safe.pin, safe.passkey]) {
            const again = await safe.device(storage);
            assert.ok(!happened || (await rotationPending(again)), told);
            const key = await safe.opened(again, by);
            assert.equal(key.thumbprint, safe.first.thumbprint, told);
            assert.deepEqual(await open(await key.dataKeys("notes"), "notes", note), utf8("old"));
            assert.deepEqual((await getSecret(again, "draft"))?.content, utf8("a draft"), told);
          }
          const again = await safe.device(storage);
          await safe.opened(again, safe.pin, safe.passkey);
          const { codes } = await resumeRotation(again);
          // What came about is not done twice, and its codes are the ones that the daemon has.
          assert.equal(safe.sets.length, 1, told);
          const auths = codes.map(({ auth }) => toBase64Url(auth));
          assert.deepEqual(auths, safe.sets[0]!.codes, told);
          await rotationSeen(again);
          assert.equal(await rotationPending(again), false, told);
          assert.equal(again.unlocked!.secret.length, 64, told);
          const fresh = await safe.device();
          const key = await safe.opened(fresh, safe.passkey);
          assert.deepEqual(await open(await key.dataKeys("notes"), "notes", note), utf8("old"));
          if (done && asked < at) break;
          stopped += 1;
        }
  assert.ok(stopped > 30, String(stopped));
});

test("two devices that rotate at once: one begins again, and both end with the same secret", async () => {
  const safe = await Safe.make(true);
  const [phone, laptop] = [await safe.device(), await safe.device()];
  for (const device of [phone, laptop]) await safe.opened(device, safe.pin, safe.passkey);
  await Promise.all([rotateSecret(phone), rotateSecret(laptop)]);
  assert.equal(safe.sets.length, 2);
  const [one, other] = [await unlock(phone), await unlock(laptop)];
  assert.equal(one.secret.length, 96);
  assert.deepEqual(one.secret, other.secret);
});

test("codes that wait to be seen are void once others were made, and nothing without the new secret", async () => {
  const safe = await Safe.make(true);
  const storage = memoryStorage();
  const phone = await safe.device(storage);
  await safe.opened(phone, safe.pin, safe.passkey);
  const { codes } = await rotateSecret(phone);
  const [set] = (await storage.get("rotation")) as { sealed: Uint8Array; byCode?: unknown }[];
  assert.equal(set!.byCode, undefined);
  const kept = JSON.stringify([...set!.sealed]);
  for (const { text } of codes) assert.ok(!kept.includes(text));
  // Another device makes other codes: those that wait here are not handed out any more.
  const laptop = await safe.device();
  await safe.opened(laptop, safe.pin, safe.passkey);
  await setRecoveryCodes(laptop);
  const again = await resumeRotation(phone);
  assert.deepEqual([safe.sets.length, again.codes.length], [3, 10]);
  assert.notEqual(again.codes[0]!.text, codes[0]!.text);
  await setRecoveryCodes(phone);
  assert.equal(await rotationPending(phone), false);
});

test("codes that nobody has seen yet are not all that opens it", async () => {
  const safe = await Safe.make(true);
  const phone = await safe.device();
  await safe.opened(phone, safe.pin);
  const [first] = await setRecoveryCodes(phone);
  lock(phone);
  const code: SlotKey = {
    ...{ type: "recovery-code", credential: await codeCredential(first!.auth) },
    material: first!.slot,
  };
  await safe.opened(phone, code);
  const sets = safe.sets.length;
  await assert.rejects(rotateSecret(phone), { code: "slot-factor-missing" });
  assert.deepEqual([safe.sets.length, await rotationPending(phone)], [sets, false]);
  // With the PIN beside it, it goes.
  remember(phone, safe.pin);
  await rotateSecret(phone);
});

test("what this session may not read stays as it is and is named, and a refusal changes nothing", async () => {
  const safe = await Safe.make(true);
  const phone = await safe.device();
  const before = await safe.opened(phone, safe.pin, safe.passkey);
  await putSecret(phone, "diary", utf8("mine"), undefined);
  safe.readers.set("diary", ["pin"]);
  safe.refuse = ({ path }) =>
    path.endsWith("/recovery-codes")
      ? problem(403, "step-up-required", { need_at_least: "passkey", need_fresh: true })
      : undefined;
  await assert.rejects(rotateSecret(phone), { code: "step-up-required" });
  assert.deepEqual([await rotationPending(phone), before.locked], [false, false]);
  safe.refuse = () => undefined;
  assert.deepEqual((await rotateSecret(phone)).left, ["diary"]);
  safe.readers.clear();
  assert.deepEqual((await getSecret(phone, "diary"))?.content, utf8("mine"));
});

test("recovery codes that would open nothing are not set where nothing else does", async () => {
  for (const endToEnd of [true, false]) {
    const safe = await Safe.make(endToEnd);
    const phone = await safe.device();
    await safe.opened(phone, safe.pin);
    let refused = 0;
    safe.refuse = ({ path, body }) => {
      if (!path.endsWith("/recovery-codes") || !body?.includes("if_version")) return undefined;
      refused += 1;
      return problem(403, "step-up-required", { need_one_of: ["passkey"] });
    };
    if (endToEnd) await assert.rejects(setRecoveryCodes(phone), { code: "step-up-required" });
    else assert.equal((await setRecoveryCodes(phone)).length, 10);
    assert.deepEqual([refused, safe.sets.length], [1, endToEnd ? 0 : 1]);
    // The same where the session may not read what they would open.
    lock(phone);
    safe.refuse = () => undefined;
    safe.readers.set("device-secret", ["pin"]);
    if (endToEnd) await assert.rejects(setRecoveryCodes(phone), { code: "release-forbidden" });
    else assert.equal((await setRecoveryCodes(phone)).length, 10);
  }
});
