/**
 * The newest revision of each secret that this device has seen: an older one that is shown again is `Untrusted`.
 *
 * The revision is sealed with the content, so that whoever has no slot can not make one up. Called by all that opens or
 * writes secrets. It is this device's memory: another device, or a cleared one, knows nothing of it.
 */
import { type Custody } from "./custody.js";
import { Untrusted } from "./errors.js";
import type { Place } from "./slots.js";

/** What is remembered of a secret. */
export interface Seen {
  readonly revision: number;
  /** It had no slot of the daemon's any more. */
  readonly sealed: boolean;
}

/** Where it is kept. */
export const SEEN = "seen/";
const keyOf = ({ account, name }: Place): string => `${SEEN}${account}/${name}`;

/** What is remembered of a secret. */
export async function seenOf({ storage }: Custody, place: Place): Promise<Seen> {
  const kept = (await storage.get(keyOf(place))) as Seen | undefined;
  return kept ?? { revision: 0, sealed: false };
}

/** Refuses what is older than what was seen before. */
export async function demandNewest(custody: Custody, place: Place, revision: number) {
  const seen = await seenOf(custody, place);
  if (revision >= seen.revision) return;
  const shown = `${place.name}: revision ${revision} is shown, ${seen.revision} was seen before`;
  throw new Untrusted("older-secret", "an older version of a secret was put back", [shown]);
}

/** Remembers what was shown, once it is known to be the owner's, or was written. */
export async function note(custody: Custody, place: Place, now: Seen): Promise<void> {
  const before = await seenOf(custody, place);
  if (now.revision <= before.revision && (before.sealed || !now.sealed)) return;
  const key = keyOf(place);
  await custody.storage.update([key], (update) => {
    const kept = update.get(key) as Seen | undefined;
    const revision = Math.max(now.revision, kept?.revision ?? 0);
    update.set(key, { revision, sealed: now.sealed || (kept?.sealed ?? false) } satisfies Seen);
  });
}

/**
 * For what is written next. Time counts, too: who makes a secret anew that was deleted may not have seen what another device
 * wrote. By a clock that was ahead, that is a false alarm until its time has come (SLOTS.md), and never a missed one.
 */
export async function nextRevision(custody: Custody, place: Place): Promise<number> {
  return Math.max((await seenOf(custody, place)).revision + 1, custody.transport.now);
}
