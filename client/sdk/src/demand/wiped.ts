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
 * What opens meanwhile, beside what is at hand: of this view it is put there, or wiped, once it is known whether `lock` came. A
 * sign-in that follows a `lock` has its own, and neither takes this one's nor loses its own by it.
 */
export function beside(custody: Custody): Custody {
  const own = Object.create(custody) as Custody;
  return Object.assign(own, { unlocked: undefined, held: undefined });
}

/** Whether `lock` was called since: what was opened before it is not to be at hand any more. */
export function watch(custody: Custody): () => boolean {
  const { locks } = custody;
  return () => custody.locks !== locks;
}
