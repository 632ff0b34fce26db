/** What the pinned keys are believed, and what else is refused. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { toBase64, toHex } from "../src/bytes.js";
import { type Doubt, Untrusted } from "../src/errors.js";
import { rawSignature, verifyBinding, verifyCheckpoint } from "../src/receipts/realm.js";
import { leaves, Realm } from "./support/realm.js";

async function doubted(doubt: Doubt, work: Promise<unknown>): Promise<void> {
  await assert.rejects(work, (error) => error instanceof Untrusted && error.doubt === doubt, doubt);
}

test("a checkpoint of the pinned realm is believed", async () => {
  const realm = await Realm.make();
  for (let round = 0; round < 20; round += 1) {
    // Signatures differ in the lengths of r and s.
    const checkpoint = await verifyCheckpoint(realm.trust, await realm.note(leaves(round), 3));
    assert.deepEqual([checkpoint.epoch, checkpoint.size], [3, round]);
  }
});

test("any change of a checkpoint is noticed", async () => {
  const realm = await Realm.make();
  const good = await realm.note(leaves(5));
  await verifyCheckpoint(realm.trust, good);
  const impostor = await Realm.make();
  await doubted("key-unknown", verifyCheckpoint(realm.trust, await impostor.note(leaves(5))));
  await doubted("other-log", verifyCheckpoint({ ...realm.trust, name: "other.example" }, good));
  await doubted("signature-wrong", verifyCheckpoint(realm.trust, good.replace("\n5\n", "\n6\n")));
  const second = await realm.note(leaves(6));
  const swapped = good.slice(0, good.indexOf("\n\n")) + second.slice(second.indexOf("\n\n"));
  await doubted("signature-wrong", verifyCheckpoint(realm.trust, swapped));
  for (const bad of [
    "",
    "\n\n",
    good.trimEnd(),
    good.replace("\n\n", "\n"),
    good.replace("\u2014", "-"),
    `${good}x\n`,
  ]) {
    await doubted("shape-wrong", verifyCheckpoint(realm.trust, bad));
  }
  const origin = "test.example/custodyd/log/1";
  const root = toBase64(new Uint8Array(32));
  for (const size of ["-1", "05", "5.0", "1e3", "99999999999999999999", ""]) {
    const note = await realm.sign(origin, `${origin}\n${size}\n${root}\n`);
    await doubted("other-log", verifyCheckpoint(realm.trust, note));
  }
  const extended = await realm.sign(origin, `${origin}\n5\n${root}\nmore\n`);
  await doubted("shape-wrong", verifyCheckpoint(realm.trust, extended));
});

test("signatures of other keys are passed over", async () => {
  const realm = await Realm.make();
  const witness = (await (await Realm.make()).note(leaves(5))).split("\n\n")[1]!;
  const cosigned = (await realm.note(leaves(5))) + witness;
  assert.equal((await verifyCheckpoint(realm.trust, cosigned)).size, 5);
});

test("the Ed25519 line of a public log is passed over, also where its key is pinned", async () => {
  const realm = await Realm.make();
  const ed25519 = {
    kty: "OKP",
    crv: "Ed25519",
    x: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    use: "custodyd-checkpoint",
    note_key_id: "01020304",
  };
  const line = toBase64(new Uint8Array([1, 2, 3, 4, ...new Uint8Array(64)]));
  const note = `${await realm.note(leaves(5))}\u2014 ${realm.name}/custodyd/log/1 ${line}\n`;
  const pinned = { ...realm.trust, keys: [...realm.trust.keys, ed25519] };
  assert.equal((await verifyCheckpoint(realm.trust, note)).size, 5);
  assert.equal((await verifyCheckpoint(pinned, note)).size, 5);
  // That line alone is not enough for who does not verify it.
  const [text, signatures] = note.split("\n\n");
  const alone = `${text}\n\n${signatures!.split("\n")[1]}\n`;
  await doubted("key-unknown", verifyCheckpoint(pinned, alone));
});

test("only the DER that DER allows is read", () => {
  const one = `3006020101020102`;
  const raw = rawSignature(Uint8Array.from(one.match(/../g)!, (pair) => parseInt(pair, 16)))!;
  assert.equal(toHex(raw), "01".padStart(64, "0") + "02".padStart(64, "0"));
  for (const bad of [
    "",
    "30",
    "3006020101020102ff",
    "300702020001020102",
    "3006020181020102",
    "3006020101030102",
    "3005020101020102",
    "30060200010201",
    `30270222${"11".repeat(34)}020101`,
  ]) {
    const bytes = Uint8Array.from(bad.match(/../g) ?? [], (pair) => parseInt(pair, 16));
    assert.equal(rawSignature(bytes), undefined, bad);
  }
});

test("a binding is believed for what it says", async () => {
  const realm = await Realm.make();
  const claims = { app: "notes", sub: "a-1", device_id: "d-1", kind: "app-key", iat: 7 };
  const good = await realm.binding(claims);
  const expected = { app: "notes", sub: "a-1", device_id: "d-1", kind: "app-key" };
  assert.deepEqual(await verifyBinding(realm.trust, good, expected), {
    iss: realm.name,
    ...claims,
  });
  for (const [name, value] of Object.entries({ app: "x", sub: "x", device_id: "x", kind: "pin" })) {
    await doubted(
      "statement-differs",
      verifyBinding(realm.trust, good, { ...expected, [name]: value }),
    );
  }
  const moved = { ...realm.trust, name: "other" };
  await doubted("statement-differs", verifyBinding(moved, good, expected));
  await doubted(
    "shape-wrong",
    verifyBinding(realm.trust, await realm.binding(claims, "JWT"), expected),
  );
  await doubted("shape-wrong", verifyBinding(realm.trust, "nonsense", expected));
  await doubted("key-unknown", verifyBinding((await Realm.make()).trust, good, expected));
  const other = await realm.binding({ ...claims, sub: "a-2" });
  const spliced = good.slice(0, good.lastIndexOf(".")) + other.slice(other.lastIndexOf("."));
  await doubted("signature-wrong", verifyBinding(realm.trust, spliced, expected));
});
