/**
 * The key back from any t of n realms, whatever the others do: not answer, refuse, or give a share
 * that is not the one they were given.
 *
 * Shares are sorted by set, and a set counts once as many realms as it asks for have given a share that it commits
 * to. A realm that lies makes a set of its own, which comes to nothing unless t of them lie together.
 */
import { fromBase64Url } from "../bytes.js";
import { type Custody, KEPT } from "../custody.js";
import { CustodyError, Untrusted } from "../errors.js";
import { Unlocked } from "../keys.js";
import { demandBinding, type SignedIn } from "../session.js";
import { answerOf, type Outcome, type RealmAnswer, RealmsFailed } from "./failures.js";
import { type Group, keepUnlocked } from "./group.js";
import { combineShares, isOf, type Manifest, readDocument, type Share, together } from "./share.js";
import { contentOf, SHARE } from "./stored.js";

/** What a sign-in has to ask for. */
export interface Ask {
  readonly release: readonly string[];
}

/** How realms are asked. */
export interface RecoverOptions {
  /** One realm after the other until there is enough: for passkeys, which ask the owner each time. */
  readonly oneByOne?: boolean;
  /** How long the others are waited for once there is enough, to say what they answered. Default: 2000 ms. */
  readonly patience?: number;
}

/** The key, and what the realms answered. */
export interface Recovered {
  readonly unlocked: Unlocked;
  /** The set that gave it. */
  readonly version: number;
  /** Of each realm. Show what is `wrong` to the owner: that operator, or whoever broke in there, has lied. */
  readonly answers: readonly RealmAnswer[];
}

/** What came of one realm so far. */
interface Given {
  readonly custody: Custody;
  answer: RealmAnswer;
  shares: readonly Share[];
}

/**
 * Signs in at the realms, and brings the app key back with what any t of them give.
 *
 * @param signIn signs in at one realm, for instance `(custody, ask) => signInWithPin(custody, pin, ask)`
 */
export async function recover(
  group: Group,
  signIn: (custody: Custody, ask: Ask) => Promise<SignedIn>,
  options: RecoverOptions = {},
): Promise<Recovered> {
  const given: Given[] = [];
  const [next, asked] = asking(group, signIn, options);
  for (let one = await next(); one; one = await next()) {
    given.push(one);
    const found = await opened(group, given);
    if (!found) continue;
    given.push(...(await waited(asked, given, options)));
    const unlocked = await keepUnlocked(group, found.unlocked);
    await keepVersion(group, found.share.manifest.version);
    await judge(given, { ...found, unlocked });
    const { version } = found.share.manifest;
    return { unlocked, version, answers: inOrder(group, given) };
  }
  const message = `${group.threshold} realms have to give a share of one set`;
  throw new RealmsFailed("too-few-shares", message, inOrder(group, given));
}

type Next = () => Promise<Given | undefined>;

/** The next answer whenever one is there; and all that were begun. */
function asking(
  group: Group,
  signIn: (custody: Custody, ask: Ask) => Promise<SignedIn>,
  { oneByOne = false }: RecoverOptions,
): [Next, Promise<Given>[]] {
  const ask = (custody: Custody) => shareOf(custody, signIn);
  if (oneByOne) {
    const left = [...group.custodies];
    return [
      () => {
        const custody = left.shift();
        return custody ? ask(custody) : Promise.resolve(undefined);
      },
      [],
    ];
  }
  const asked = group.custodies.map(ask);
  const waiting = new Map(asked.map((one, at) => [at, one.then((given) => ({ at, given }))]));
  return [
    async () => {
      if (waiting.size === 0) return undefined;
      const { at, given } = await Promise.race(waiting.values());
      waiting.delete(at);
      return given;
    },
    asked,
  ];
}

async function shareOf(
  custody: Custody,
  signIn: (custody: Custody, ask: Ask) => Promise<SignedIn>,
): Promise<Given> {
  const realm = custody.realm.name;
  const is = (outcome: Outcome, shares: readonly Share[] = []): Given => {
    return { custody, answer: { realm, outcome }, shares };
  };
  try {
    const { secrets } = await signIn(custody, { release: [SHARE] });
    const content = contentOf(secrets[SHARE]);
    if (!content) return is("nothing");
    const { shares, wrong } = await readDocument(content, realm);
    return is(wrong && shares.length === 0 ? "wrong" : "done", shares);
  } catch (error) {
    const answer = answerOf(realm, ours(error));
    return { custody, answer: { ...answer, outcome: lied(error) ?? answer.outcome }, shares: [] };
  }
}

/** An answer of any shape is this realm's failure, and nobody else's. */
function ours(error: unknown): CustodyError {
  if (error instanceof CustodyError) return error;
  const message = "the realm's answer can not be used";
  return new CustodyError("answer-unknown", message, { cause: error });
}

/** A realm that shows no honest one's proofs. */
function lied(error: unknown): "wrong" | undefined {
  return error instanceof Untrusted ? "wrong" : undefined;
}

interface Opened {
  readonly unlocked: Unlocked;
  readonly share: Share;
}

/** Opens the newest set that is complete. What turns out to be forged is taken away from who gave it. */
async function opened(group: Group, given: readonly Given[]): Promise<Opened | undefined> {
  const sets = given.flatMap(({ shares }) => shares);
  sets.sort((one, other) => other.manifest.version - one.manifest.version);
  for (const share of sets) {
    const { threshold } = share.manifest;
    const parts = sets.filter((other) => together(share, other));
    // Fewer than the app says would be for a liar to ask.
    const givers = given.filter(({ shares }) => shares.some((one) => together(one, share)));
    if (threshold < group.threshold || givers.length < threshold) continue;
    const unlocked = await keyOf(parts, share.manifest);
    if (unlocked && (await areVouching(group, givers, unlocked))) return { unlocked, share };
    // Fewer shares than before: it ends.
    if (!unlocked)
      givers.forEach((giver) => {
        lost(giver, "wrong");
      });
    return opened(group, given);
  }
  return undefined;
}

/** What this realm gave is of no use. */
function lost(giver: Given, outcome: Outcome, error?: unknown): void {
  const { realm } = giver.answer;
  giver.answer = { ...(error === undefined ? { realm } : answerOf(realm, error)), outcome };
  giver.shares = [];
}

/**
 * Whether all that gave it bind this key to their accounts, where this device sees it for the first time.
 * A realm that does not is none that holds this key.
 */
async function areVouching(
  group: Group,
  givers: readonly Given[],
  unlocked: Unlocked,
): Promise<boolean> {
  const [first] = group.custodies;
  const kept = (await first?.storage.get(KEPT.appKey)) as { thumbprint?: string } | undefined;
  if (kept?.thumbprint === unlocked.thumbprint) return true;
  const vouched = await Promise.all(
    givers.map(async (giver) => {
      try {
        await demandBinding(giver.custody, unlocked);
        return true;
      } catch (error) {
        lost(giver, lied(error) ?? answerOf("", ours(error)).outcome, ours(error));
        return false;
      }
    }),
  );
  return !vouched.includes(false);
}

async function keyOf(parts: readonly Share[], manifest: Manifest): Promise<Unlocked | undefined> {
  const secret = await combineShares(parts);
  const wrapped = fromBase64Url(manifest.wrapped);
  if (!secret || !wrapped) return undefined;
  try {
    return await Unlocked.open(secret, wrapped);
  } catch {
    return undefined;
  } finally {
    secret.fill(0);
  }
}

/** The answers that come while they are waited for. */
async function waited(
  asked: readonly Promise<Given>[],
  given: readonly Given[],
  { patience = 2000 }: RecoverOptions,
): Promise<Given[]> {
  let late: ReturnType<typeof setTimeout> | undefined;
  const end = new Promise<undefined>((resolve) => {
    late = setTimeout(() => {
      resolve(undefined);
    }, patience);
  });
  const all = await Promise.all(asked.map((one) => Promise.race([one, end])));
  clearTimeout(late);
  return all.filter((one) => one !== undefined).filter((one) => !given.includes(one));
}

/** The secret shows which sets are the owner's. */
async function judge(given: readonly Given[], { unlocked, share }: Opened): Promise<void> {
  for (const one of given) {
    if (one.answer.outcome !== "done" || one.shares.some((other) => together(other, share)))
      continue;
    const genuine = await Promise.all(one.shares.map((other) => isOf(unlocked.secret, other)));
    one.answer = { ...one.answer, outcome: genuine.includes(true) ? "other-set" : "wrong" };
  }
}

function inOrder(group: Group, given: readonly Given[]): RealmAnswer[] {
  return group.custodies.map(({ realm }) => {
    const found = given.find(({ answer }) => answer.realm === realm.name);
    return found?.answer ?? { realm: realm.name, outcome: "not-asked" };
  });
}

const VERSION = "set-version";

/** The highest version of a set that this device knows. */
export async function knownVersion(group: Group): Promise<number> {
  return ((await group.storage.get(VERSION)) as number | undefined) ?? 0;
}

/** Keeps it: the next set has a higher one. */
export async function keepVersion(group: Group, version: number): Promise<void> {
  await group.storage.update([VERSION], (update) => {
    const before = (update.get(VERSION) as number | undefined) ?? 0;
    update.set(VERSION, Math.max(before, version));
  });
}
