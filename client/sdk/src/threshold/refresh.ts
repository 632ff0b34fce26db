/**
 * New shares of the same secret. What an operator, or a thief of one, kept of the old ones is worth
 * nothing together with the new ones.
 *
 * Two rounds over the realms, always in the same order. In the first each realm gets its new share *beside*
 * the old one; in the second, which begins when all have it, the old ones go. So at any moment every realm of the group
 * holds a share of one and the same set, and any t of them give the key back, wherever it is
 * interrupted. Each write names the version that it replaces. Two devices at once meet at the first realm, where the
 * second to write stops the first: no old share goes while another set is on its way.
 */
import type { Bytes } from "../bytes.js";
import type { Custody } from "../custody.js";
import { CustodyError } from "../errors.js";
import type { Unlocked } from "../keys.js";
import { answerOf, type Outcome, type RealmAnswer, RealmsFailed } from "./failures.js";
import { atEach, type Group, unlockedOf } from "./group.js";
import { keepVersion, knownVersion } from "./recover.js";
import { isOf, readDocument, type Share, splitSecret, together, writeDocument } from "./share.js";
import { readStored, writeStored } from "./stored.js";

/** What became of a refresh. */
export interface Refreshed {
  /** Of the set that all realms of the group hold now. */
  readonly version: number;
  /** Realms that held something else than the owner's devices had stored: it was replaced. */
  readonly wrong: readonly string[];
}

/** What one realm holds before. */
interface Held {
  readonly custody: Custody;
  /** The daemon's version of it; undefined where there is none. */
  readonly version: number | undefined;
  /** The owner's, of this secret. */
  readonly shares: readonly Share[];
  readonly wrong: boolean;
}

/**
 * Splits the open key's secret anew over the realms of the group. All have to answer; where one does
 * not, `refresh-unfinished` or `realms-failed` names it, nothing is lost, and the next call starts over.
 *
 * The group may be another one than before: open it with the realms that shall hold shares from now on. The old
 * share of a realm that was left out stays there, until it is deleted (`deleteSecret`, name `SHARE`).
 *
 * @param options.threshold how many are needed from now on. Default: the group's.
 */
export async function refreshShares(
  group: Group,
  options: { readonly threshold?: number } = {},
): Promise<Refreshed> {
  return spread(group, unlockedOf(group), options.threshold ?? group.threshold);
}

/** Also for the first set, which replaces nothing. */
export async function spread(
  group: Group,
  unlocked: Unlocked,
  threshold: number,
): Promise<Refreshed> {
  // A copy: locked on the way, it would be zeros that are split, or that a set is tagged with.
  const secret = unlocked.secret.slice();
  try {
    return await spreading(group, secret, unlocked.wrapped, threshold);
  } finally {
    secret.fill(0);
  }
}

async function spreading(
  group: Group,
  secret: Bytes,
  wrapped: Bytes,
  threshold: number,
): Promise<Refreshed> {
  const held = await atEach(group, (custody) => holding(custody, secret));
  demandGenuine(group, held);
  // Those that hold something first: there two devices meet, even if they see different groups.
  const order = [...held.filter(isHolding), ...held.filter((one) => !isHolding(one))];
  const seen = held.flatMap(({ shares }) => shares.map(({ manifest }) => manifest.version));
  const version = Math.max(await knownVersion(group), ...seen) + 1;
  const realms = group.custodies.map(({ realm }) => realm.name);
  const fresh = await splitSecret(secret, wrapped, {
    version,
    threshold,
    realms,
  });
  const shareFor = ({ custody }: Held) =>
    fresh.filter((_, at) => realms[at] === custody.realm.name);
  const base = safest(held);
  const versions = new Map<Held, number>();
  await inTurn(group, order, async (one) => {
    const beside = one.shares.filter((share) => !base || !isCovered(held, share, base));
    // The new one first: of too many, the last are not read.
    const document = writeDocument([...shareFor(one), ...beside]);
    versions.set(one, await writeStored(one.custody, document, one.version));
  });
  await keepVersion(group, version);
  await inTurn(group, order.filter(isHolding), async (one) => {
    await writeStored(one.custody, writeDocument(shareFor(one)), versions.get(one));
  });
  const wrong = held.filter((one) => one.wrong).map(({ custody }) => custody.realm.name);
  return { version, wrong };
}

/**
 * Where what realms hold is not of this key, and too little of it is, the open key is the one to be doubted: nothing is
 * written over.
 */
function demandGenuine(group: Group, held: readonly Held[]): void {
  if (held.filter(isHolding).length >= group.threshold || !held.some(({ wrong }) => wrong)) return;
  const answers: RealmAnswer[] = held.map((one) => {
    const outcome = one.wrong ? "wrong" : isHolding(one) ? "done" : "nothing";
    return { realm: one.custody.realm.name, outcome };
  });
  const message = "too few realms hold a share of the key that is open; nothing was changed";
  throw new RealmsFailed("realms-failed", message, answers);
}

function isHolding({ shares }: Held): boolean {
  return shares.length > 0;
}

async function holding(custody: Custody, secret: Bytes): Promise<Held> {
  const stored = await readStored(custody);
  if (!stored) return { custody, version: undefined, shares: [], wrong: false };
  const read = await readDocument(stored.content, custody.realm.name);
  const genuine = await Promise.all(read.shares.map((share) => isOf(secret, share)));
  const shares = read.shares.filter((_, at) => genuine[at]);
  const wrong = read.wrong || genuine.includes(false);
  return { custody, version: stored.version, shares, wrong };
}

/**
 * A share of the set that most realms hold, of the newest among those; it stays until the new one is
 * everywhere. None where no set is complete in this group: then every share stays.
 */
function safest(held: readonly Held[]): Share | undefined {
  const all = held.flatMap(({ shares }) => shares);
  // Realms, not shares: one of them may show the same thing twice.
  const holders = (share: Share) => held.filter((one) => holds(one, share)).length;
  const complete = all.filter((share) => holders(share) >= share.manifest.threshold);
  complete.sort(
    (one, other) => holders(other) - holders(one) || other.manifest.version - one.manifest.version,
  );
  return complete[0];
}

function holds({ shares }: Held, share: Share): boolean {
  return shares.some((other) => together(share, other));
}

/**
 * Whether this share may go, because every realm that shows one of its set shows one of `base` as well. A realm may not
 * show what it holds; by that rule it takes no set away from the others.
 */
function isCovered(held: readonly Held[], share: Share, base: Share): boolean {
  return (
    !together(share, base) &&
    held.filter((one) => holds(one, share)).every((one) => holds(one, base))
  );
}

/** One realm after the other; the first that fails ends it. */
async function inTurn(
  group: Group,
  order: readonly Held[],
  step: (one: Held) => Promise<void>,
): Promise<void> {
  const answers: RealmAnswer[] = [];
  for (const one of order) {
    const realm = one.custody.realm.name;
    try {
      await step(one);
      answers.push({ realm, outcome: "done" });
    } catch (error) {
      if (!(error instanceof CustodyError)) throw error;
      answers.push(answerOf(realm, error));
      throw unfinished(group, answers);
    }
  }
}

function unfinished(group: Group, answers: readonly RealmAnswer[]): RealmsFailed {
  const notAsked: Outcome = "not-asked";
  const all = group.custodies.map(({ realm: { name: realm } }) => {
    return answers.find((answer) => answer.realm === realm) ?? { realm, outcome: notAsked };
  });
  const message = "the refresh was interrupted; the key can be recovered, call it again";
  return new RealmsFailed("refresh-unfinished", message, all);
}
