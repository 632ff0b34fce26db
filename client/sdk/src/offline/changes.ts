/**
 * What is kept of secrets that are read and changed without a network, each under its account's name: whoever signs in to
 * another account on this device neither reads nor sends what belongs to the one of before. `queue.ts` reads and changes
 * them, `sync.ts` sends.
 */
import { type Bytes, random, toHex } from "../bytes.js";
import type { Custody } from "../custody.js";
import type { Stored } from "../secrets.js";
import { kept } from "../storage/sound.js";

/** A change that was made here and not sent. */
export interface Change {
  readonly id: string;
  readonly content: Bytes;
  /** The version that it replaces. */
  readonly base: number | undefined;
  /** Seconds since the Unix epoch, by this device's clock. */
  readonly changed: number;
}

/** The one that waits. */
export interface Queued extends Change {
  /** Others, by tabs that did not know of it, until the rule has decided. */
  readonly aside?: readonly Change[] | undefined;
}

/** The last version that this device has read or sent. */
export interface Copy extends Stored {
  /** The change that became this version. */
  readonly change?: string | undefined;
}

/** What a content was made from. Hand it on as it is. */
export interface Base {
  readonly version: number | undefined;
  /** A change of this device's that it includes. */
  readonly change?: string | undefined;
}

/** Two versions that were made without knowing of each other. */
export interface Conflict {
  readonly name: string;
  /** `changed` by the daemon's clock, as far as that is known. */
  readonly mine: { readonly content: Bytes; readonly changed: number };
  /** Undefined where it was deleted. Of another tab, it is what waits there: `version` is what that replaces. */
  readonly theirs: Stored | undefined;
}

/** Decides: new content, made of both perhaps, or that theirs stays. */
export type Rule = (conflict: Conflict) => Bytes | "theirs" | Promise<Bytes | "theirs">;

/**
 * The rule that holds unless the app gives another. Theirs stays where it was stored after mine was made, and where it was
 * deleted: that a secret is there again is a person's to decide. When theirs was *made* nobody has written down: a
 * device that was offline for long and comes back first wins over what was made after its change.
 */
export const laterWins: Rule = ({ mine, theirs }) =>
  !theirs || theirs.updated > mine.changed ? "theirs" : mine.content;

/** A version that lost a conflict. */
export interface Lost {
  readonly key: string;
  readonly name: string;
  readonly content: Bytes;
}

/** Taken down before anything is waited for: a custody may be another account's afterwards. */
export type Whose = Pick<Custody, "account">;

/** Under its account's name. */
export const of = ({ account }: Whose, kind: "copy" | "queue" | "lost", name = ""): string =>
  `${kind}/${account?.account ?? ""}/${name}`;

/** Names of the secrets that wait to be sent. */
export async function pendingChanges(custody: Custody): Promise<string[]> {
  const prefix = of(custody, "queue");
  return (await custody.storage.list(prefix)).map(([key]) => key.slice(prefix.length));
}

/** The change that waits. */
export async function queuedOf(custody: Custody, name: string): Promise<Queued | undefined> {
  const key = of(custody, "queue", name);
  return kept(key, await custody.storage.get(key)) as Queued | undefined;
}

/** Under which a version that lost is kept. */
export const lostKey = (whose: Whose, name: string): string =>
  of(whose, "lost", `${name}/${toHex(random(8))}`);

/** Versions that lost a conflict and are nowhere else. */
export async function lostVersions(custody: Custody): Promise<Lost[]> {
  const entries = await custody.storage.list(of(custody, "lost"));
  return entries.map(([key, value]) => ({ ...(kept(key, value) as Lost), key }));
}

/** Drops a version that lost, once a person has looked at it. */
export async function dropLost(custody: Custody, lost: Lost): Promise<void> {
  await custody.storage.update([], (update) => {
    update.delete(lost.key);
  });
}
