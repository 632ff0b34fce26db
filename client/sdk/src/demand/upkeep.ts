/**
 * What is left to do after a sign-in: slots for factors that were used and have none, and the way over from secrets that
 * the daemon can open to such as it can not.
 *
 * Each secret is moved by one write that names the version it replaces: at any time it opens in the old way or in the
 * new one. Loaded by `../upkeep.ts` when the key is open and known to be the owner's. A failure is told and undoes nothing.
 */
import type { Custody } from "../custody.js";
import type { CustodyError, NotReady } from "../errors.js";
import type { Slot, SlotKey } from "../slots.js";
import type { Upkeep } from "../upkeep.js";
import type { Held } from "../vault.js";
import { moveRest } from "./moving.js";
import { reread } from "./reread.js";
import { contentOf, renewed, opensWithoutPrf } from "./rewrap.js";
import { t } from "./t.js";
import { slotFor, watch } from "./wiped.js";

const STRONGEST: readonly string[] = ["passkey", "recovery-code", "creation"];

/** After a sign-in; undefined where there is nothing to do, or to tell. */
export async function tend(custody: Custody): Promise<Upkeep | undefined> {
  const { moved, error } = await mend(custody);
  if (t.isMoving(custody)) return moveRest(custody, moved, error);
  return error && { moved: [], left: [], closed: [], error };
}

/** What became of the device secret. */
export interface Mended {
  readonly moved: boolean;
  readonly error?: CustodyError;
}

/**
 * Gives slots of the device secret to factors that were used and have none (a PIN that was replaced when it was
 * forgotten, a passkey that gave no PRF output when it was made), takes that of a recovery code, which is used up, and
 * the daemon's where it ends.
 */
export async function mend(custody: Custody): Promise<Mended> {
  for (let tries = 0; ; tries += 1) {
    const wasLocked = watch(custody);
    const { held } = custody;
    if (held?.version === undefined) return { moved: false };
    const slots = await wanted(custody, held);
    const moved = held.leaves && opensWithoutPrf(slots, false);
    if (held.leaves && !moved) return { moved, error: missing() };
    const same = slots.length === held.slots.length && slots.every((s) => held.slots.includes(s));
    if (same && !moved) return { moved };
    try {
      const next = await write(custody, held, slots, moved);
      if (!wasLocked()) custody.held = next;
      return { moved };
    } catch (error) {
      if (!(error instanceof t.CustodyError)) throw error;
      // Slots that another device has changed meanwhile may be too strong for this session to put back.
      const isStale =
        error instanceof t.VersionConflict || (tries === 0 && error.code === "step-up-required");
      if (tries > 2 || !isStale) return { moved: false, error };
      const failed = await again(custody);
      if (failed) return { moved: false, error: failed };
    }
  }
}

/** What a factor is missing for. */
export function missing(): NotReady {
  const message =
    "no factor of this account can keep the key: set a PIN by OPAQUE or recovery codes, which can, and sign in again";
  return new t.NotReady("slot-factor-missing", message);
}

/** Whether this session is as strong as the factor, whose slots it then may write. */
function isWorth({ transport }: Custody, { type }: SlotKey): boolean {
  const factor = transport.session?.factor ?? "";
  return STRONGEST.includes(factor) || (factor === "pin" && type === "opaque");
}

/** The slots as they shall be. */
async function wanted(custody: Custody, held: Held): Promise<Slot[]> {
  const place = t.placeOf(custody, t.DEVICE_SECRET);
  const known = custody.slotKeys.filter((key) => !key.unsure && isWorth(custody, key));
  const without = known.filter(
    (key) => key.type !== "recovery-code" && !held.slots.some((slot) => t.isFor(key, slot)),
  );
  const used = (slot: Slot) =>
    slot.type === "recovery-code" && known.some((key) => t.isFor(key, slot));
  const made = await Promise.all(without.map((key) => slotFor(place, key, held.key)));
  const kept = [...held.slots.filter((slot) => !used(slot)), ...made];
  // The last code's slot is of no use to anybody, and without it there may be none that counts.
  return opensWithoutPrf(kept, held.server || held.leaves) ? kept : [...held.slots, ...made];
}

/** Under another content key where all slots can be made, else under the same. Returns what is stored now. */
async function write(
  custody: Custody,
  held: Held,
  slots: readonly Slot[],
  moved: boolean,
): Promise<Held> {
  const anew = moved ? await renewed(custody, held, slots) : undefined;
  const same: Held = { ...held, slots, leaves: false, whole: false };
  const tries = anew?.content && anew.held ? [anew.held, same] : [same];
  for (let at = 0; ; at += 1) {
    const next = tries[at] ?? same;
    try {
      const content = contentOf(next, next.slots);
      const version = await t.put(custody, t.DEVICE_SECRET, held.version, content);
      // A code that was used up is remembered, though its slot is gone: `codes.ts` seals those under it that take its place.
      return { ...next, version };
    } catch (error) {
      // Slots of stronger factors are not this session's to make anew.
      const weak = error instanceof t.Refused && error.code === "step-up-required";
      if (!weak || at === tries.length - 1) throw error;
    }
  }
}

/** Another device was faster: what it left is opened, or the reason why not is returned. */
async function again(custody: Custody): Promise<CustodyError | undefined> {
  custody.held = undefined;
  try {
    await reread(custody);
    return undefined;
  } catch (error) {
    if (!(error instanceof t.CustodyError)) throw error;
    return error;
  }
}
