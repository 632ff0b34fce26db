/**
 * Recovery codes that wait on this device until their owner has seen them. Called by `codes.ts` and `rotate.ts`.
 *
 * The daemon puts codes in the place of all earlier ones, and its answer may be lost: so they are kept before they are sent,
 * each set until an answer says which is good. They are sealed under what only a sign-in brings, the content key that
 * the device secret has once they are stored: whoever has the device, and a PIN that unlocks it offline, has none of them.
 * Where codes are all that opens it, that key could be lost with them: then the code that was signed in with opens them, too.
 *
 * After a crash, at whatever step: the slots of the device secret, as it is stored, say whether a set came about.
 */
import type { Bytes } from "../bytes.js";
import type { Custody } from "../custody.js";
import type { SlotKey } from "../slots.js";
import type { Update } from "../storage/storage.js";
import type { Held } from "../vault.js";
import { codeCredential, parseRecoveryCode, type RecoveryCode } from "./recovery-codes.js";
import { t } from "./t.js";
import { copied, demandKept } from "./wiped.js";

/** Where codes wait, and what their keys are derived for. */
export interface Shelf {
  readonly name: string;
  readonly label: string;
}

/** What is kept of a set. */
export interface Waiting {
  readonly codes: readonly RecoveryCode[];
  /** Of a rotation. */
  readonly left?: readonly string[];
}

interface Kept {
  readonly sealed: Bytes;
  /** The same, under the code that was used up for it. */
  readonly byCode?: Bytes | undefined;
  /** In milliseconds, by this device's clock. */
  readonly at: number;
}

/** A request that somebody gave up is over by then. */
const ON_ITS_WAY = 600_000;
/** Sets that were sent and not answered; an owner who tries again and again is not to fill the disk. */
const MOST = 8;

/** A single one, as it was kept before there were several. */
function sets(value: unknown): readonly Kept[] {
  if (value instanceof Uint8Array) return [{ sealed: value as Bytes, at: 0 }];
  return Array.isArray(value) ? (value as Kept[]) : [];
}

const keyFor = async (material: Bytes, label: string): Promise<CryptoKey> =>
  t.aesKey(await t.hkdf(material, label));

/**
 * A set as it waits: it opens once the device secret is stored under this content key.
 *
 * @param used the code that was signed in with, where codes are all that opens the device secret
 */
export async function sealed(
  { label }: Shelf,
  { codes, left }: Waiting,
  contentKey: Bytes,
  used?: SlotKey,
): Promise<Kept> {
  const plain = t.utf8(JSON.stringify({ codes: codes.map(({ text }) => text), left }));
  const under = async (key: Bytes) => {
    demandKept(key);
    return t.seal(await keyFor(key, label), label, plain);
  };
  // Both are begun at once, as they are now.
  const [sealed, byCode] = await Promise.all([under(contentKey), used && under(used.material)]);
  return { sealed, byCode, at: Date.now() };
}

/**
 * Puts what is to go on waiting in the place of what waits: where this account's sets do, if the device is another's by now.
 * What has come about at the daemon, or was seen, is not to be refused any more.
 */
function changed(
  custody: Custody,
  name: string,
  next: (kept: readonly Kept[]) => readonly Kept[],
  isLate = true,
): Promise<void> {
  const change = (update: Update, at: (key: string) => string) => {
    const kept = next(sets(update.get(at(name))));
    if (kept.length > 0) update.set(at(name), kept);
    else update.delete(at(name));
  };
  return t.ours(custody, [name], change, isLate);
}

/** The account's sets. */
const waitingAt = (custody: Custody, name: string): Promise<readonly Kept[]> =>
  t.ours(custody, [name], (update, at) => sets(update.get(at(name))), true);

/** When the newest set was made that each custody, which is one tab, has handed out. */
const shown = new WeakMap<Custody, number>();

/**
 * The owner has what this tab has shown. A later set, of another tab, goes on waiting: it is that one which may be good. A tab
 * that has shown none means all of them.
 */
export async function seen(custody: Custody, name: string): Promise<void> {
  const last = shown.get(custody) ?? Infinity;
  await changed(custody, name, (kept) => kept.filter(({ at }) => at > last));
}

/** Sends a set that waits from before it is sent. Without one, where nothing could say afterwards whether it came about. */
export async function sending(
  custody: Custody,
  { name }: Shelf,
  set: Kept | undefined,
  send: () => Promise<void>,
): Promise<void> {
  const made = set?.at ?? Date.now();
  // A tab whose device is another account's by now is told before anything is sent.
  await changed(custody, name, (kept) => (set ? [set, ...kept].slice(0, MOST) : kept), false);
  try {
    await send();
  } catch (error) {
    // Nothing came of this one. Of an earlier one, whose answer was lost, that is not known.
    if (set && error instanceof t.Refused && error.status < 500)
      await changed(custody, name, (kept) =>
        kept.filter((one) => !t.equal(one.sealed, set.sealed)),
      );
    throw error;
  }
  // All earlier ones are void, wherever they wait. A later one, of another tab, may be the one that is good.
  await changed(custody, name, (kept) => {
    if (!set) return [];
    const mine = kept.findIndex((one) => t.equal(one.sealed, set.sealed));
    return mine < 0 ? kept : kept.slice(0, mine + 1);
  });
  const other = name === t.ROTATION ? t.CODES : t.ROTATION;
  await changed(custody, other, (kept) => kept.filter(({ at }) => set && at > set.at));
  shown.set(custody, made);
}

async function opened(
  key: Bytes,
  label: string,
  text: Bytes,
): Promise<Required<Waiting> | undefined> {
  const plain = await t.unsealed(await keyFor(key, label), label, text);
  if (!plain) return undefined;
  const kept = JSON.parse(t.fromUtf8(plain)) as { codes: string[]; left?: string[] };
  return { codes: await Promise.all(kept.codes.map(parseRecoveryCode)), left: kept.left ?? [] };
}

/** The set that the account has, without codes that were used since; undefined where none of those that wait came about. */
export async function cameAbout(
  custody: Custody,
  { name, label }: Shelf,
  held: Held,
): Promise<Required<Waiting> | undefined> {
  // A set that a wiped key does not open would be taken for one that is void.
  const key = copied(held.key);
  try {
    for (const { sealed, at } of await waitingAt(custody, name)) {
      const found = await opened(key, label, sealed);
      const codes: RecoveryCode[] = [];
      for (const code of found?.codes ?? []) {
        const credential = await codeCredential(code.auth);
        if (held.slots.some((slot) => slot.credential === credential)) codes.push(code);
      }
      if (!found || codes.length === 0) continue;
      shown.set(custody, at);
      return { ...found, codes };
    }
    return undefined;
  } finally {
    key.fill(0);
  }
}

/** Sets that this code was used up for, whether or not they came about. */
export async function byUsedCode(
  custody: Custody,
  { name, label }: Shelf,
  typed: string,
): Promise<RecoveryCode[]> {
  const { slot } = await parseRecoveryCode(typed);
  const found: RecoveryCode[] = [];
  for (const { byCode, at } of await waitingAt(custody, name)) {
    const set = byCode && (await opened(slot, label, byCode));
    // The newest comes first.
    if (set && found.length === 0) shown.set(custody, at);
    found.push(...(set?.codes ?? []));
  }
  return found;
}

/** None of those that wait came about, and none can any more. */
export async function dropVoid(custody: Custody, { name }: Shelf): Promise<void> {
  await changed(custody, name, (kept) =>
    kept.filter(({ at }) => Math.abs(Date.now() - at) < ON_ITS_WAY),
  );
}
