/**
 * A new factor, with its slot of the device secret in the same commit, or without where the session may not make it.
 *
 * Called by what makes factors: `codes.ts`, `opaque.ts`, `passkey.ts`.
 */
import type { Custody } from "../custody.js";
import type { SlotKey } from "../slots.js";
import type { Schemas } from "../transport.js";
import type { Rewrapping } from "./rewrap.js";
import { t } from "./t.js";

/** What became of a new factor's slot. */
export interface Made {
  /**
   * `missing`: the session may not write the device secret. Where the policy has server slots, the factor brings the key
   * back all the same. Elsewhere it does once it was used right after one that does, with no `lock` or `signOut` between.
   */
  readonly slot: "made" | "missing";
}

/**
 * Makes a factor with a call. Its key is remembered before the answer is there, which may be lost, and forgotten where
 * the call was refused: no slot is made later for what the account does not have.
 */
export async function making<T>(
  custody: Custody,
  rewrap: Pick<Rewrapping, "remember">,
  key: SlotKey | undefined,
  call: () => Promise<T>,
): Promise<T> {
  if (key) rewrap.remember({ ...key, unsure: true });
  try {
    const made = await call();
    if (key) rewrap.remember(key);
    return made;
  } catch (error) {
    if (key && error instanceof t.Refused && error.status < 500) t.forget(custody, key);
    throw error;
  }
}

/**
 * Makes a factor with a call that takes its slot along, or its slots: without them where the session may not write what
 * they open. Recovery codes are no use so, where nothing else opens it: then the refusal stands.
 */
export async function along<T>(
  custody: Custody,
  rewrap: Rewrapping,
  by: SlotKey | readonly SlotKey[] | undefined,
  call: (secrets: Record<string, Schemas["Rewrapped"]>) => Promise<T>,
): Promise<[T, Made["slot"]]> {
  const keys = by ? [by].flat() : [];
  const type = keys[0]?.type;
  // All codes are replaced at once, and none is kept at hand.
  const [replaces, one] = [
    type === "prf" ? undefined : type,
    keys.length > 1 ? undefined : keys[0],
  ];
  const made = async (keys: readonly SlotKey[]): Promise<[T, Made["slot"]]> => {
    const secrets = await rewrap.with(keys, replaces);
    const answer = await making(custody, rewrap, one, () => call(secrets));
    return [answer, t.DEVICE_SECRET in secrets ? "made" : "missing"];
  };
  try {
    return await made(keys);
  } catch (error) {
    const isRead = error instanceof t.StepUpRequired && error.needOneOf.length > 0;
    if (!isRead || (keys.length > 1 && rewrap.needsSlots)) throw error;
    return await made([]);
  }
}
