/** Whom a secret opens to; and daemons that lie to get what opens it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fromBase64Url, random, toBase64Url, fromUtf8, utf8 } from "../src/bytes.js";
import { lock } from "../src/custody.js";
import { rewrapping } from "../src/demand/rewrap.js";
import { loadSecret } from "../src/offline/queue.js";
import { getSecret, putSecret, unlock } from "../src/secrets.js";
import { openContent } from "../src/slots.js";
import { mend } from "../src/demand/upkeep.js";
import { forget, remember } from "../src/vault.js";
import { backedUp, code, passkey, pin, place, scene } from "./support/vault.js";

test("a daemon that says it may have content keys gets them, unless the app says that it does not", async () => {
  for (const endToEnd of [false, true]) {
    const { custody, sent } = await scene(endToEnd);
    await putSecret(custody, "draft", utf8("sealed by the app"), undefined);
    const [{ sealed, slots, server_slot: server } = {}] = sent;
    assert.deepEqual([slots?.length, typeof server], endToEnd ? [1, "undefined"] : [0, "string"]);
    const { content } = (await getSecret(custody, "draft"))!;
    assert.deepEqual(content, utf8("sealed by the app"));
    lock(custody);
    if (endToEnd) await assert.rejects(getSecret(custody, "draft"), { code: "locked" });
    else {
      assert.deepEqual((await getSecret(custody, "draft"))?.content, content);
      const draft = { ...place, name: "draft" };
      const opened = await openContent(draft, fromBase64Url(server!)!, fromBase64Url(sealed!)!);
      assert.deepEqual(opened, content);
    }
  }
});

test("while the key is locked, what this device has read of a sealed secret is read again", async () => {
  const { custody } = await scene(true);
  await putSecret(custody, "draft", utf8("one"), undefined);
  await putSecret(custody, "other", utf8("never read"), undefined);
  const known = async () => {
    const { content, from, locked } = (await loadSecret(custody, "draft"))!;
    return [fromUtf8(content), from, locked];
  };
  assert.deepEqual(await known(), ["one", "server", undefined]);
  lock(custody);
  assert.deepEqual(await known(), ["one", "copy", true]);
  await assert.rejects(loadSecret(custody, "other"), { code: "locked" });
});

test("a secret that a daemon has made up, with the key at hand, is none of an end-to-end app", async () => {
  for (const endToEnd of [false, true]) {
    const { custody, secrets } = await scene(endToEnd);
    const { key, ...made } = await backedUp(random(32), []);
    secrets.set("device-secret", { ...made, server_slot: toBase64Url(key) });
    secrets.set("app-key", { version: 1, server_slot: toBase64Url(utf8("whatever")) });
    const opened = unlock(custody);
    await assert.rejects(opened, { code: endToEnd ? "no-slot" : "secret-damaged" });
  }
});

test("a slot is made for a factor that has none, and a used code's goes; content keys stay here", async () => {
  const { custody, secrets, sent } = await scene(true);
  const [old, used, key] = [pin(), code(), passkey()];
  const { key: contentKey, ...stored } = await backedUp(custody.unlocked!.secret, [old, used]);
  // The daemon pretends that the app has given it the key before.
  secrets.set("device-secret", { ...stored, server_slot: toBase64Url(random(32)) });
  remember(custody, used);
  remember(custody, key);
  await getSecret(custody, "device-secret");
  await mend(custody);
  assert.equal(sent.length, 1);
  const kinds = sent[0]!.slots?.map(({ type }) => type);
  assert.deepEqual([kinds, sent[0]!.server_slot], [["opaque", "prf"], undefined]);
  assert.equal(sent[0]!.sealed, stored.sealed);
  assert.ok(!JSON.stringify(sent).includes(toBase64Url(contentKey)));
  await mend(custody);
  assert.equal(sent.length, 1, "there is nothing left to mend");
  // The new slot opens by itself.
  lock(custody);
  remember(custody, key);
  assert.equal((await getSecret(custody, "device-secret"))?.content.length, 32);
});

test("the last code's slot stays where nothing but a passkey's would be left", async () => {
  const { custody, secrets, sent } = await scene(true);
  const [used, key] = [code(), passkey()];
  const stored = await backedUp(custody.unlocked!.secret, [used, key]);
  secrets.set("device-secret", stored);
  remember(custody, used);
  await getSecret(custody, "device-secret");
  await mend(custody);
  assert.deepEqual(sent, []);
});

test("a new factor's slot goes beside the others, or in the place of those it replaces", async () => {
  const { custody, secrets } = await scene(true);
  const [old, used] = [pin(), code()];
  const { key, ...stored } = await backedUp(custody.unlocked!.secret, [old, used]);
  secrets.set("device-secret", stored);
  const closed = rewrapping(custody);
  await assert.rejects(closed, { code: "locked" });
  remember(custody, old);
  const rewrap = await rewrapping(custody);
  assert.deepEqual([rewrap.needsSlots, rewrap.hasOnlyPrf], [true, false]);
  const added = await rewrap.with([passkey()]);
  const kinds = (body: typeof added) =>
    body["device-secret"]?.slots?.map(({ type, credential }) => `${type} ${credential}`);
  assert.deepEqual(kinds(added), ["opaque pin-1", "recovery-code code-1", "prf key-1"]);
  assert.equal(added["device-secret"]?.if_version, 1);
  assert.equal(added["device-secret"].content, undefined);
  const replaced = await rewrap.with([{ ...pin(), credential: "pin-2" }], "opaque");
  assert.deepEqual(kinds(replaced), ["recovery-code code-1", "opaque pin-2"]);
  assert.deepEqual(await rewrap.with([]), {});
  assert.ok(!JSON.stringify([added, replaced]).includes(toBase64Url(key)));
});

test("what was stored before there were content keys is sealed with the next factor", async () => {
  const { custody, secrets } = await scene(false);
  const secret = custody.unlocked!.secret.slice();
  secrets.set("device-secret", { version: 3, server_slot: toBase64Url(secret) });
  const by = pin();
  const body = (await (await rewrapping(custody)).with([by], "opaque"))["device-secret"];
  const { sealed, slots, server_slot: server } = body?.content ?? {};
  assert.deepEqual([body?.if_version, slots?.length], [3, 1]);
  const key = fromBase64Url(server!)!;
  assert.deepEqual(await openContent(place, key, fromBase64Url(sealed!)!), secret);
  assert.notDeepEqual(key, secret);
});

test("an account has one PIN, and a factor that is gone opens nothing", async () => {
  const { custody } = await scene(true);
  const names = () => custody.slotKeys.map(({ credential }) => credential);
  for (const credential of ["pin-1", "pin-2"]) remember(custody, { ...pin(), credential });
  for (const credential of ["key-1", "key-2", "key-1"]) {
    remember(custody, { ...passkey(), credential });
  }
  assert.deepEqual(names(), ["pin-2", "key-2", "key-1"]);
  forget(custody, { type: "prf", credential: "key-2" });
  forget(custody, { type: "opaque" });
  assert.deepEqual(names(), ["key-1"]);
});

test("locking wipes what opens slots", async () => {
  const { custody, secrets } = await scene(true);
  const by = pin();
  secrets.set("device-secret", await backedUp(custody.unlocked!.secret, [by]));
  remember(custody, by);
  await getSecret(custody, "device-secret");
  const [kept, held] = [custody.slotKeys[0]!.material, custody.held!.key];
  const key = custody.unlocked!;
  assert.equal(key.privateKey.extractable, false);
  const { secret } = key;
  lock(custody);
  assert.ok([...kept, ...held, ...secret].every((byte) => byte === 0));
  assert.throws(() => key.privateKey, { code: "locked" });
  await assert.rejects(key.sign(new Uint8Array(1)), { code: "locked" });
  assert.deepEqual([custody.slotKeys.length, custody.held], [0, undefined]);
  // What the app was given is the app's.
  assert.ok(by.material.some((byte) => byte !== 0));
});
