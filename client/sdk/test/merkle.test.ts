/** Proofs against RFC 6962's recursive definitions, every index and size up to a bound. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Bytes, toHex } from "../src/bytes.js";
import { continues, includes, leafHash } from "../src/receipts/merkle.js";
import { leaves } from "./support/realm.js";
import { consistency, path, root } from "./support/tree.js";

const SIZE = 20;

async function trees(): Promise<{ size: number; root: Bytes }[]> {
  const all = leaves(SIZE);
  const sizes = Array.from({ length: SIZE + 1 }, (_, size) => size);
  return Promise.all(sizes.map(async (size) => ({ size, root: await root(all.slice(0, size)) })));
}

test("the test's own tree is Certificate Transparency's (its reference vectors)", async () => {
  const bytes = (hex: string): Bytes =>
    Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
  const inputs = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
  ];
  const data = inputs.map(bytes);
  assert.equal(
    toHex(await root(data.slice(0, 1))),
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
  );
  assert.equal(
    toHex(await root(data)),
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
  );
});

test("each entry of each tree is included, at its place and nowhere else", async () => {
  const [all, logs] = [leaves(SIZE), await trees()];
  for (const log of logs) {
    for (let index = 0; index < log.size; index += 1) {
      const proof = await path(index, all.slice(0, log.size));
      const leaf = await leafHash(all[index]!);
      assert.ok(await includes(log, index, leaf, proof), `${index} of ${log.size}`);
      assert.ok(!(await includes(log, index + 1, leaf, proof)));
      assert.ok(!(await includes(log, index, await leafHash(all[(index + 1) % SIZE]!), proof)));
      assert.ok(!(await includes(log, index, leaf, [...proof, log.root])));
      if (proof.length > 0) assert.ok(!(await includes(log, index, leaf, proof.slice(1))));
      assert.ok(
        !(await includes({ ...log, root: leaf.map((byte) => byte ^ 1) }, index, leaf, proof)),
      );
    }
  }
});

test("each tree continues each before it, and no other", async () => {
  const [all, logs] = [leaves(SIZE), await trees()];
  for (const newer of logs.slice(1)) {
    for (const older of logs.slice(1, newer.size + 1)) {
      const proof = await consistency(older.size, all.slice(0, newer.size));
      assert.ok(await continues(older, newer, proof), `${older.size} to ${newer.size}`);
      const forged = { ...older, root: older.root.map((byte) => byte ^ 1) };
      assert.ok(!(await continues(forged, newer, proof)));
      assert.ok(!(await continues(older, { ...newer, root: forged.root }, proof)));
      assert.ok(!(await continues(older, newer, [...proof, newer.root])));
      if (older.size < newer.size) {
        assert.ok(!(await continues(older, newer, proof.slice(1))));
        assert.ok(!(await continues(newer, older, proof)));
      }
    }
  }
});

test("sizes that are none are no proof", async () => {
  const log = { size: 3, root: await root(leaves(3)) };
  for (const size of [-1, 0.5, NaN, Infinity, 2 ** 60]) {
    assert.ok(!(await continues({ ...log, size }, log, [])));
    assert.ok(!(await includes({ ...log, size }, 0, log.root, [])));
    assert.ok(!(await includes(log, size, log.root, [])));
  }
});
