/** RFC 6962's own recursive definitions (section 2.1), to make trees and proofs for tests. */
import { type Bytes, sha256 } from "../../src/bytes.js";

/** The largest power of two below n. */
function split(n: number): number {
  let k = 1;
  while (k * 2 < n) k *= 2;
  return k;
}

/** MTH(D[n]) */
export async function root(leaves: readonly Bytes[]): Promise<Bytes> {
  if (leaves.length === 0) return sha256();
  if (leaves.length === 1) return sha256(new Uint8Array([0]), leaves[0]!);
  const k = split(leaves.length);
  const [left, right] = [await root(leaves.slice(0, k)), await root(leaves.slice(k))];
  return sha256(new Uint8Array([1]), left, right);
}

/** PATH(m, D[n]) */
export async function path(m: number, leaves: readonly Bytes[]): Promise<Bytes[]> {
  if (leaves.length <= 1) return [];
  const k = split(leaves.length);
  return m < k
    ? [...(await path(m, leaves.slice(0, k))), await root(leaves.slice(k))]
    : [...(await path(m - k, leaves.slice(k))), await root(leaves.slice(0, k))];
}

/** PROOF(m, D[n]) */
export async function consistency(m: number, leaves: readonly Bytes[]): Promise<Bytes[]> {
  return m === leaves.length ? [] : subproof(m, leaves, true);
}

async function subproof(m: number, leaves: readonly Bytes[], whole: boolean): Promise<Bytes[]> {
  if (m === leaves.length) return whole ? [] : [await root(leaves)];
  const k = split(leaves.length);
  return m <= k
    ? [...(await subproof(m, leaves.slice(0, k), whole)), await root(leaves.slice(k))]
    : [...(await subproof(m - k, leaves.slice(k), false)), await root(leaves.slice(0, k))];
}
