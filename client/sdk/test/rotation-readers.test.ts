/** A rotation where much hangs on the device secret, where no login reads all of it, and on devices that are open meanwhile. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { random, toBase64Url, utf8 } from "../src/bytes.js";
import type { Custody } from "../src/custody.js";
import { codeCredential } from "../src/demand/recovery-codes.js";
import { removePasskey } from "../src/factors.js";
import { aesKey, open, Unlocked } from "../src/keys.js";
import { sync } from "../src/offline/sync.js";
import { ROTATION, resumeRotation, rotateSecret } from "../src/rotation.js";
import { getSecret, putSecret, unlock } from "../src/secrets.js";
import { hkdf } from "../src/bytes.js";
import { memoryStorage } from "../src/storage/memory.js";
import { MOST, Safe } from "./support/safe.js";
import { opensTo, stolen } from "./support/thief.js";

/** What the app is told of its key, in order. */
function told(custody: Custody): (Unlocked | undefined)[] {
  const heard: (Unlocked | undefined)[] = [];
  Object.assign(custody, { onReplaced: (now: Unlocked | undefined) => heard.push(now) });
  return heard;
}

test("however much hangs on it, the rotation is one request, and contents stay as they are", async () => {
  const safe = await Safe.make(true);
  const phone = await safe.device();
  await safe.opened(phone, safe.pin, safe.passkey);
  const names = ["a", "b", "c", "d", "e"];
  for (const name of names) await putSecret(phone, name, random(14_000), undefined);
  const before = new Map(safe.secrets);
  const sealed = names.map((name) => before.get(name)!.sealed!);
  assert.ok(sealed.join("").length > MOST, "the control: together they do not fit");
  const thief = stolen(phone);
  assert.equal((await opensTo(safe, thief)).length, 7);
  assert.deepEqual((await rotateSecret(phone)).left, []);
  assert.deepEqual(await opensTo(safe, thief), []);
  assert.deepEqual(
    names.map((name) => safe.secrets.get(name)!.sealed),
    sealed,
  );
  for (const name of names) assert.equal((await getSecret(phone, name))?.content.length, 14_000);
  // A thief who has read one knows its content key, which is that content's alone: the next write has another.
  const draft = safe.secrets.get("a")!;
  await putSecret(phone, "a", utf8("newer"), draft.version);
  assert.notEqual(safe.secrets.get("a")!.slots![0]!.ciphertext, draft.slots![0]!.ciphertext);
});

test("where no login reads all, the strongest one rotates, and what it may not read is named and follows", async () => {
  const safe = await Safe.make(true);
  const [phone, weak] = [await safe.device(), await safe.device(memoryStorage(), undefined, "pin")];
  await safe.opened(phone, safe.pin, safe.passkey);
  await putSecret(phone, "diary", utf8("mine"), undefined);
  await putSecret(phone, "ledger", utf8("sums"), undefined);
  safe.readers.set("diary", ["pin"]).set("ledger", ["passkey"]);
  const thief = stolen(phone);
  await safe.opened(weak, safe.pin, safe.passkey);
  await assert.rejects(rotateSecret(weak), { code: "step-up-required", needAtLeast: "passkey" });
  assert.equal(weak.unlocked!.secret.length, 32);
  const { left, closed } = await rotateSecret(phone);
  assert.deepEqual([left, closed], [["diary"], []]);
  assert.deepEqual(await opensTo(safe, thief), ["diary"]);
  assert.deepEqual((await getSecret(phone, "ledger"))?.content, utf8("sums"));
  // The PIN reads it, by the secret of before, and what it stores anew hangs on the one of now.
  await safe.opened(weak, safe.pin);
  const diary = await getSecret(weak, "diary");
  assert.deepEqual(diary?.content, utf8("mine"));
  await putSecret(weak, "diary", diary.content, diary.version);
  assert.deepEqual(await opensTo(safe, thief), []);
});

test("a login that reads the device secret, and not all that hangs on it, gives it a slot and nothing else", async () => {
  const safe = await Safe.make(true);
  const [phone, weak] = [await safe.device(), await safe.device(memoryStorage(), undefined, "pin")];
  await safe.opened(phone, safe.pin);
  await putSecret(phone, "ledger", utf8("sums"), undefined);
  safe.readers.set("ledger", ["passkey"]);
  await safe.opened(weak, safe.pin);
  const { version, ...stored } = safe.secrets.get("device-secret")!;
  const put = (body: object, version: number) =>
    weak.transport.request("put", "/v1/account/secrets/{name}", {
      ...{ path: { name: "device-secret" }, headers: { "If-Match": `"${version}"` } },
      body: body as never,
    });
  const needs = { code: "step-up-required", needOneOf: ["passkey"] };
  await assert.rejects(put({ ...stored, slots: stored.slots!.slice(1) }, version), needs);
  await assert.rejects(put({ ...stored, sealed: toBase64Url(random(99)) }, version), needs);
  const more = { type: "opaque", credential: "pin-2", ciphertext: toBase64Url(random(61)) };
  await put({ ...stored, slots: [...stored.slots!, more] }, version);
});

test("a device that is open takes the new secret up as it reads, and its app is told", async () => {
  const safe = await Safe.make(true);
  const [phone, laptop, tablet] = [await safe.device(), await safe.device(), await safe.device()];
  const before = await safe.opened(laptop, safe.pin);
  const passkeys = await safe.opened(tablet, safe.passkey);
  const [heard, other, own] = [told(laptop), told(tablet), told(phone)];
  // Two sign-ins, one key: of two, `lock` would leave one open.
  assert.equal(await safe.opened(laptop, safe.pin), before);
  const mine = await safe.opened(phone, safe.pin);
  await rotateSecret(phone);
  await putSecret(phone, "draft", utf8("after"), undefined);
  assert.deepEqual((await getSecret(laptop, "draft"))?.content, utf8("after"));
  assert.deepEqual([before.locked, laptop.unlocked!.locked, mine.locked], [true, false, true]);
  await new Promise((resolve) => setTimeout(resolve, 0));
  assert.ok(heard.length === 1 && heard[0] === laptop.unlocked);
  assert.ok(own.length === 1 && own[0] === phone.unlocked);
  // The passkey has no slot any more. The key goes on for what it opens, and the app knows that it is the one of before.
  for (let times = 0; times < 2; times += 1)
    await assert.rejects(getSecret(tablet, "draft"), { code: "locked" });
  await new Promise((resolve) => setTimeout(resolve, 0));
  assert.deepEqual([other, passkeys.locked], [[undefined], false]);
  await safe.opened(tablet, safe.pin);
  assert.deepEqual((await getSecret(tablet, "draft"))?.content, utf8("after"));
  assert.equal(passkeys.locked, true);
});

test("sync takes it up though there is nothing to send", async () => {
  const safe = await Safe.make(true);
  const [phone, laptop] = [await safe.device(), await safe.device()];
  const before = await safe.opened(laptop, safe.pin);
  await safe.opened(phone, safe.pin);
  await rotateSecret(phone);
  const synced = await sync(laptop);
  assert.deepEqual([synced.waiting, synced.because], [[], undefined]);
  assert.deepEqual([before.locked, laptop.unlocked!.secret.length], [true, 64]);
  // Where it can not, there is nothing that waits for it either.
  await rotateSecret(phone);
  Object.assign(laptop, { slotKeys: [] });
  assert.equal((await sync(laptop)).because, undefined);
});

test("codes that wait open by what a sign-in brings, and not by what unlocks offline", async () => {
  const safe = await Safe.make(true);
  const phone = await safe.device();
  await safe.opened(phone, safe.pin, safe.passkey);
  const { codes } = await rotateSecret(phone);
  await unlock(phone);
  const label = "custodyd/sdk/rotation/v2";
  const [set] = (await phone.storage.get(ROTATION)) as { sealed: Uint8Array<ArrayBuffer> }[];
  const kept = set!.sealed;
  const opens = async (key: Uint8Array<ArrayBuffer>) =>
    (await open(await aesKey(await hkdf(key, label)), label, kept)) !== undefined;
  assert.deepEqual(
    [await opens(phone.unlocked!.secret.slice(0, 32)), await opens(phone.held!.key)],
    [false, true],
  );
  // As it was kept before there were several.
  await phone.storage.update([], (update) => {
    update.set(ROTATION, kept);
  });
  const again = await resumeRotation(phone);
  assert.deepEqual([safe.sets.length, again.codes[0]!.text], [1, codes[0]!.text]);
  // With another content key nobody has them: they are made again.
  for (const { auth, slot: material } of codes) {
    const credential = await codeCredential(auth);
    phone.slotKeys = [...phone.slotKeys, { type: "recovery-code", credential, material }];
  }
  assert.equal((await removePasskey(phone, "key-1")).contentKey, "renewed");
  assert.notEqual((await resumeRotation(phone)).codes[0]!.text, codes[0]!.text);
  assert.equal(safe.sets.length, 2);
});
