/**
 * Another device secret, so that what a lost device or a removed factor knows of the one of before opens nothing that is
 * stored from then on: `demand/rotate.ts` does it.
 */
import { type Custody, ourRecord } from "./custody.js";
import type { Rotated } from "./demand/rotate.js";
import { onDemand } from "./tools.js";

/** Where it is remembered that a rotation was begun. */
export const ROTATION = "rotation";

export type { Rotated } from "./demand/rotate.js";

/**
 * Gives the account another device secret, wraps the private key under it, and makes ten new recovery codes: show them
 * once, then call `rotationSeen`. All of it is one commit, or nothing of it. Remove the lost device, and what unlocked it,
 * before.
 *
 * Needs the open key and a session that may change all factors. Each factor that was used since the last `lock` gets its
 * slot; those in `closed` follow once they are used right after one of these. The key object of before is locked: take
 * `custody.unlocked`, and from its `dataKeys` what opens earlier data.
 */
export async function rotateSecret(custody: Custody): Promise<Rotated> {
  return (await onDemand()).rotate(custody);
}

/** The new codes were shown to their owner, who has them: the rotation is over. */
export async function rotationSeen(custody: Custody): Promise<void> {
  await (await onDemand()).seen(custody, ROTATION);
}

/** Goes on with the rotation that was begun here: its codes, where it came about, and else it begins anew. */
export async function resumeRotation(custody: Custody): Promise<Rotated> {
  return (await onDemand()).rotate(custody, true);
}

/** Whether a rotation was begun here and its codes were perhaps not seen. Sign in, and `resumeRotation`. */
export async function rotationPending(custody: Custody): Promise<boolean> {
  return (await ourRecord(custody, ROTATION)) !== undefined;
}
