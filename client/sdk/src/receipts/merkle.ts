/**
 * Proofs of an RFC 6962 log: that an entry is in it, and that one state of it continues another.
 *
 * The algorithms are those of RFC 9162, sections 2.1.3.2 and 2.1.4.2. Sizes are numbers below
 * 2^53, so nothing here uses bitwise operators, which end at 2^32. Everything given is the adversary's.
 */
import { type Bytes, equal, sha256 } from "../bytes.js";

const LEAF = new Uint8Array([0]);
const NODE = new Uint8Array([1]);

/** The hash of an entry. */
export async function leafHash(entry: Uint8Array): Promise<Bytes> {
  return sha256(LEAF, entry);
}

async function node(left: Uint8Array, right: Uint8Array): Promise<Bytes> {
  return sha256(NODE, left, right);
}

const half = (number: number): number => Math.floor(number / 2);
const odd = (number: number): boolean => number % 2 === 1;

function isSize(...numbers: number[]): boolean {
  return numbers.every((number) => Number.isSafeInteger(number) && number >= 0);
}

/** Whether the entry with this hash is at `index` of the log with this size and root. */
export async function includes(
  log: { size: number; root: Bytes },
  index: number,
  leaf: Bytes,
  path: readonly Bytes[],
): Promise<boolean> {
  if (!isSize(index, log.size) || index >= log.size) return false;
  let [at, last, hash] = [index, log.size - 1, leaf];
  for (const sibling of path) {
    if (last === 0) return false;
    if (odd(at) || at === last) {
      hash = await node(sibling, hash);
      while (!odd(at) && at !== 0) [at, last] = [half(at), half(last)];
    } else {
      hash = await node(hash, sibling);
    }
    [at, last] = [half(at), half(last)];
  }
  return last === 0 && equal(hash, log.root);
}

/** Whether the first `older.size` entries of `newer` are the log `older`. */
export async function continues(
  older: { size: number; root: Bytes },
  newer: { size: number; root: Bytes },
  proof: readonly Bytes[],
): Promise<boolean> {
  if (!isSize(older.size, newer.size) || older.size === 0 || older.size > newer.size) return false;
  if (older.size === newer.size) return proof.length === 0 && equal(older.root, newer.root);
  let [at, last] = [older.size - 1, newer.size - 1];
  while (odd(at)) [at, last] = [half(at), half(last)];
  // Where the old size is a power of two, its root is the first node and is not sent.
  const nodes = at === 0 ? [older.root, ...proof] : [...proof];
  const first = nodes.shift();
  if (!first) return false;
  let [before, after] = [first, first];
  for (const sibling of nodes) {
    if (last === 0) return false;
    if (odd(at) || at === last) {
      before = await node(sibling, before);
      after = await node(sibling, after);
      while (!odd(at) && at !== 0) [at, last] = [half(at), half(last)];
    } else {
      after = await node(after, sibling);
    }
    [at, last] = [half(at), half(last)];
  }
  return last === 0 && equal(before, older.root) && equal(after, newer.root);
}
