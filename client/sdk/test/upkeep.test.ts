/** What is done to slots after a sign-in and when factors go; and states from before that are shown again. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fromBase64Url, random, toBase64Url, utf8 } from "../src/bytes.js";
import { lock } from "../src/custody.js";
import { begin } from "../src/demand/enrol.js";
import { Refused, Unreachable } from "../src/errors.js";
import { removePasskey, setPin } from "../src/factors.js";
import { acceptNewLog } from "../src/receipts/log.js";
import { rewrapping } from "../src/demand/rewrap.js";
import { forgetSeen } from "../src/demand/trail.js";
import { getSecret, putSecret } from "../src/secrets.js";
import { openContent, openSlot, sealContent, type SlotKey } from "../src/slots.js";
import { memoryStorage } from "../src/storage/memory.js";
import { mend, tend } from "../src/demand/upkeep.js";
import { making } from "../src/demand/along.js";
import { remember } from "../src/vault.js";
import { backedUp, code, passkey, pin, place, scene } from "./support/vault.js";

test("an older version that is put back is noticed by who has seen a newer one, and by nobody else", async () => {
  const { custody, secrets } = await scene(true);
  const version = await putSecret(custody, "draft", utf8("first"), undefined);
  const first = secrets.get("draft")!;
  await putSecret(custody, "draft", utf8("second"), version);
  const second = secrets.get("draft")!;
  secrets.set("draft", { ...first, version: 99 });
  const shown = getSecret(custody, "draft");
  await assert.rejects(shown, { code: "untrusted", doubt: "older-secret" });
  secrets.set("draft", second);
  assert.deepEqual((await getSecret(custody, "draft"))?.content, utf8("second"));
  // The control: a device that has seen neither takes what it gets.
  secrets.set("draft", { ...first, version: 99 });
  const fresh = { ...custody, storage: memoryStorage() };
  assert.deepEqual((await getSecret(fresh, "draft"))?.content, utf8("first"));
  // After a restore that a person has accepted, older is what there is.
  await acceptNewLog(custody);
  assert.deepEqual((await getSecret(custody, "draft"))?.content, utf8("first"));
});

test("a device secret that is not the open key's is kept for nothing", async () => {
  const { custody, secrets, sent } = await scene(false);
  const { key, ...made } = await backedUp(random(32), []);
  secrets.set("device-secret", { ...made, server_slot: toBase64Url(key) });
  await getSecret(custody, "device-secret");
  assert.equal(custody.held, undefined);
  await assert.rejects(rewrapping(custody), { doubt: "statement-differs" });
  remember(custody, pin());
  await mend(custody);
  assert.deepEqual(sent, []);
});

test("while the app moves, the daemon's slot goes, and once gone it is not believed again", async () => {
  const { custody, secrets, sent } = await scene("moving");
  const by = pin();
  const { key, ...stored } = await backedUp(custody.unlocked!.secret, [by]);
  const before = { ...stored, server_slot: toBase64Url(key) };
  secrets.set("device-secret", before);
  remember(custody, by);
  await getSecret(custody, "device-secret");
  const upkeep = await tend(custody);
  assert.deepEqual(
    [upkeep?.moved, upkeep?.left, upkeep?.error],
    [["device-secret"], [], undefined],
  );
  const [{ sealed, slots, server_slot: server } = {}] = sent;
  assert.deepEqual([slots?.length, server], [1, undefined]);
  // All slots could be made: what the daemon had opens nothing of it.
  assert.equal(await openContent(place, key, fromBase64Url(sealed!)!), undefined);
  lock(custody);
  // What it had is shown again, or something of its own: both are none of the owner's.
  secrets.set("device-secret", before);
  await assert.rejects(getSecret(custody, "device-secret"), { code: "unsealed" });
  remember(custody, by);
  await assert.rejects(getSecret(custody, "device-secret"), { doubt: "older-secret" });
});

test("what a device knows to be sealed is not taken from the daemon in clear, nor sealed anew for it", async () => {
  for (const plain of [true, false]) {
    const { custody, secrets, sent } = await scene("moving");
    const by = pin();
    const { version: first, sealed: held, slots } = await backedUp(custody.unlocked!.secret, [by]);
    secrets.set("device-secret", { version: first, sealed: held, slots });
    remember(custody, by);
    await getSecret(custody, "device-secret");
    const version = await putSecret(custody, "draft", utf8("the owner's"), undefined);
    const written = sent.length;
    const forged = utf8("the daemon's");
    const key = random(32);
    const revision = 2 ** 32;
    const sealed = await sealContent({ ...place, name: "draft" }, key, forged, revision);
    const made = plain
      ? { version: version + 1, server_slot: toBase64Url(forged) }
      : {
          ...{ version: version + 1, sealed: toBase64Url(sealed) },
          ...{ slots: [], server_slot: toBase64Url(key) },
        };
    secrets.set("draft", made);
    await assert.rejects(getSecret(custody, "draft"), { code: "unsealed" });
    const upkeep = await tend(custody);
    assert.deepEqual([upkeep?.left, upkeep?.error?.code], [["draft"], "unsealed"]);
    assert.equal(sent.length, written);
    // The control: a device that has not seen it sealed takes it, and seals it as the owner's.
    const fresh = { ...custody, storage: memoryStorage() };
    await getSecret(fresh, "device-secret");
    assert.deepEqual((await tend(fresh))?.moved, ["draft"]);
    assert.deepEqual((await getSecret(fresh, "draft"))?.content, forged);
    // What the owner writes over it is the way out.
    const there = secrets.get("draft")!.version;
    secrets.set("draft", { ...made, version: there });
    await putSecret(custody, "draft", utf8("again"), there);
    assert.deepEqual((await getSecret(custody, "draft"))?.content, utf8("again"));
  }
});

test("a passkey that goes takes the content key along, where all others can be given another", async () => {
  const { custody, secrets, removals } = await scene(true);
  const [by, gone, used] = [pin(), passkey(), code()];
  const { key, ...stored } = await backedUp(custody.unlocked!.secret, [by, gone]);
  secrets.set("device-secret", stored);
  for (const one of [by, gone]) remember(custody, one);
  const removed = await removePasskey(custody, gone.credential);
  assert.deepEqual(removed, { contentKey: "renewed", needs: [] });
  const { if_version: version, content } = removals[0]!.secrets!["device-secret"]!;
  assert.deepEqual([version, content!.slots!.map(({ type }) => type)], [1, ["opaque"]]);
  const sealed = fromBase64Url(content!.sealed!)!;
  assert.equal(await openContent(place, key, sealed), undefined);
  const fresh = await openSlot(place, by, content!.slots![0]!);
  assert.deepEqual(await openContent(place, fresh!, sealed), custody.unlocked!.secret);
  // What it wrote is the newest that it knows: the state of before is not taken again.
  remember(custody, by);
  await assert.rejects(getSecret(custody, "device-secret"), { doubt: "older-secret" });
  await forgetSeen(custody);
  // With a code whose key nobody has typed: the slots that are there stay, and so does the key.
  const three = await backedUp(custody.unlocked!.secret, [by, gone, used], 2);
  secrets.set("device-secret", three);
  const kept = await removePasskey(custody, gone.credential);
  assert.deepEqual(kept, { contentKey: "kept", needs: ["recovery-code"] });
  assert.deepEqual(removals[1], { secrets: {} });
  // Whoever can open nothing can remove a stolen passkey all the same.
  lock(custody);
  await removePasskey(custody, gone.credential);
  assert.deepEqual(removals[2], { secrets: {} });
});

test("a factor that was refused leaves nothing behind, and one whose answer was lost leaves its key", async () => {
  const { custody, secrets, sent } = await scene(true);
  const [old, next] = [pin(), { ...pin(), credential: "pin-2" }];
  const stored = await backedUp(custody.unlocked!.secret, [old]);
  secrets.set("device-secret", stored);
  remember(custody, old);
  const names = () => custody.slotKeys.map(({ credential }) => credential);
  const rewrap = {
    remember: (key: SlotKey) => {
      remember(custody, key);
    },
  };
  const refusal = new Refused({ code: "pin-weak", status: 422, detail: "" });
  for (const [error, left] of [
    [refusal, ["pin-1"]],
    [new Unreachable("lost"), ["pin-1", "pin-2"]],
  ] as const) {
    await assert.rejects(
      making(custody, rewrap, next, () => Promise.reject(error)),
      error,
    );
    assert.deepEqual(names(), left);
  }
  // Nobody knows whether the account has it: no slot is made for it.
  await getSecret(custody, "device-secret");
  assert.deepEqual(await mend(custody), { moved: false });
  assert.deepEqual(sent, []);
  await making(custody, rewrap, next, () => Promise.resolve());
  assert.deepEqual(names(), ["pin-2"]);
});

test("a backup that waits is not left waiting by a PIN that can not carry it", async () => {
  const { custody } = await scene(true);
  await begin(custody);
  const setting = setPin(custody, "830517", { onServer: true });
  await assert.rejects(setting, { code: "slot-factor-missing" });
});

test("a session makes no slots for factors that are stronger than its own", async () => {
  const { custody, secrets, sent } = await scene(true);
  const [by, key] = [pin(), passkey()];
  secrets.set("device-secret", await backedUp(custody.unlocked!.secret, [by]));
  for (const one of [by, key]) remember(custody, one);
  await getSecret(custody, "device-secret");
  custody.transport.session = { token: "t", scope: "full", factor: "pin" } as never;
  assert.deepEqual(await mend(custody), { moved: false });
  assert.equal(sent.length, 0);
  custody.transport.session = { token: "t", scope: "full", factor: "passkey" } as never;
  await mend(custody);
  const kinds = sent[0]?.slots?.map(({ type }) => type);
  assert.deepEqual(kinds, ["opaque", "prf"]);
});

test("two devices that move at once: the slower one finds what is done, and does what is left", async () => {
  for (const ahead of [0, 1]) {
    const { custody, secrets, sent } = await scene("moving");
    const [by, used] = [pin(), code()];
    const { key, ...stored } = await backedUp(custody.unlocked!.secret, [by, used]);
    secrets.set("device-secret", { ...stored, server_slot: toBase64Url(key) });
    const draft = { ...place, name: "draft" };
    const sealed = toBase64Url(await sealContent(draft, key, utf8("a note"), 1));
    secrets.set("draft", { version: 2, sealed, server_slot: toBase64Url(key) });
    const other = { ...custody, storage: memoryStorage() };
    for (const [device, own] of [
      [custody, by],
      [other, used],
    ] as const) {
      remember(device, own);
      await getSecret(device, "device-secret");
    }
    const both = ahead === 0 ? [custody, other] : [other, custody];
    const done = await Promise.all(both.map((device) => tend(device)));
    assert.deepEqual(
      done.map((one) => one?.error),
      [undefined, undefined],
    );
    const now = secrets.get("device-secret")!;
    assert.deepEqual(
      [now.server_slot, now.slots!.map(({ type }) => type)],
      [undefined, ["opaque"]],
    );
    assert.equal(secrets.get("draft")!.server_slot, undefined);
    assert.deepEqual((await getSecret(custody, "draft"))?.content, utf8("a note"));
    assert.ok(sent.length <= 4, String(sent.length));
  }
});
