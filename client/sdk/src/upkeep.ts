/**
 * What is left to do after a sign-in, where there is anything: `demand/upkeep.ts` does it.
 */
import type { Custody } from "./custody.js";
import { type CustodyError, failure } from "./errors.js";
import { unlock } from "./secrets.js";
import { isFor } from "./slots.js";
import { onDemand } from "./tools.js";
import { isMoving } from "./vault.js";

/** What was done to the slots that open an account's secrets. */
export interface Upkeep {
  /** Secrets that the daemon could open, and can not any more. */
  readonly moved: readonly string[];
  /** Secrets that it can open still, though it shall not. */
  readonly left: readonly string[];
  /** Factors of the account that bring nothing back any more, until each was used right after one that does, or made anew. */
  readonly closed: readonly Closed[];
  /** Why something is left, or a slot was not made. `slot-factor-missing`: a PIN or recovery codes have to be set. */
  readonly error: CustodyError | undefined;
}

/** `pin` is one that the daemon checks. */
export type Closed = "passkey" | "pin" | "recovery-code" | "totp";

const nothing: Upkeep = { moved: [], left: [], closed: [], error: undefined };

/** After a sign-in; undefined where there was nothing to do, or to tell. */
export async function tend(custody: Custody): Promise<Upkeep | undefined> {
  const { held, slotKeys } = custody;
  const isDone =
    !held ||
    (!held.leaves &&
      slotKeys.every(
        (key) => key.type !== "recovery-code" && held.slots.some((slot) => isFor(key, slot)),
      ));
  if (isDone && !isMoving(custody)) return undefined;
  try {
    return await (await onDemand()).tend(custody);
  } catch (cause) {
    // The sign-in stands all the same.
    return { ...nothing, error: failure(cause) };
  }
}

/** Ways of signing in that bring nothing back, as it is stored now. Needs the open key. */
export async function closedWays(custody: Custody): Promise<readonly Closed[]> {
  return (await onDemand()).closedWays(custody);
}

/**
 * Moves what the daemon can open, and shall not any more, at once: a sign-in does so by itself. The error of what is left
 * is thrown.
 */
export async function moveSecrets(custody: Custody): Promise<Upkeep> {
  // As it is stored now: a factor may have been added since, and its slot with it.
  await unlock(custody);
  const upkeep = await tend(custody);
  if (upkeep?.error) throw upkeep.error;
  return upkeep ?? nothing;
}
