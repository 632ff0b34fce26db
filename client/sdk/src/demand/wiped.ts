/**
 * `lock` wipes in place what opens slots and content keys, and work that is on its way has them by reference: what it then
 * seals would lie under zeros, open to whoever has the database, or hold them, and open to nobody.
 *
 * So nothing here is sealed but by copies that were looked at, without an `await` in between. Called by all of `demand/` that
 * seals.
 */
import type { Bytes } from "../bytes.js";
import type { Custody } from "../custody.js";
import type { NotReady } from "../errors.js";
import type { Place, Slot, SlotKey } from "../slots.js";
import { t } from "./t.js";

/** A change was stopped by `lock` before anything of it was sent. */
export const locked = (): NotReady =>
  new t.NotReady(
    "locked",
    "it was locked meanwhile, and nothing was changed: unlock, and try again",
  );

/** Refuses what `lock` has wiped. */
export function demandKept(bytes: Bytes): void {
  if (bytes.every((byte) => byte === 0)) throw locked();
}

/** A copy of what it has not wiped. It is its maker's to wipe. */
export function copied(bytes: Bytes): Bytes {
  demandKept(bytes);
  return bytes.slice();
}

/** The content key, sealed for one factor: both as they are now. */
export async function slotFor(place: Place, by: SlotKey, key: Bytes): Promise<Slot> {
  const [material, content] = [copied(by.material), copied(key)];
  try {
    return await t.sealSlot(place, { ...by, material }, content);
  } finally {
    for (const copy of [material, content]) copy.fill(0);
  }
}

/**
 * What reads and keeps at hand: stopped by `lock`, it keeps nothing, and what did not open any more for that reason is no fault of
 * anybody's.
 */
export async function unlessLocked<T>(custody: Custody, work: () => Promise<T>): Promise<T> {
  const wasLocked = watch(custody);
  try {
    const done = await work();
    if (!wasLocked()) return done;
  } catch (error) {
    const isShut = error instanceof t.CanNotOpen || error instanceof t.NotReady;
    if (!isShut || !wasLocked()) throw error;
  }
  // What was opened after it is at hand again.
  t.lock(custody);
  throw locked();
}

/** Whether `lock` was called since: what was opened before it is not to be at hand any more. */
export function watch(custody: Custody): () => boolean {
  const { locks } = custody;
  return () => custody.locks !== locks;
}
