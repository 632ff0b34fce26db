/**
 * What this device has seen of the realm's log, and the demand that the log only ever goes on.
 *
 * The newest checkpoint that everything before was linked to is *trusted*; checkpoints of receipts
 * wait until a consistency proof links them. A log that became shorter, or forked, is `Untrusted`
 * with both notes as evidence, and what is remembered stays as it was.
 */
import { type Bytes, equal, fromBase64, toBase64Url } from "../bytes.js";
import type { Custody } from "../custody.js";
import { CustodyError, Untrusted } from "../errors.js";
import { kept } from "../storage/sound.js";
import { onDemand } from "../tools.js";
import type { Schemas } from "../transport.js";
import { continues, includes, leafHash } from "./merkle.js";
import { type Checkpoint, verifyCheckpoint } from "./realm.js";

/** Where it is kept. */
export const LOG = "log";
/** So many of the newest receipts are kept. */
const RECEIPTS = 100;
/** So often it is asked for one checkpoint that continues everything, while the log grows. */
const ROUNDS = 5;

interface Remembered {
  /** Signed notes. */
  readonly trusted?: string | undefined;
  readonly waiting: readonly string[];
  /** Not all are of one account, where the device had several. `at` by its clock, in milliseconds; earlier releases kept none. */
  readonly receipts: readonly { index: number; leaf: string; account?: string; at?: number }[];
}

/**
 * What was kept. A time to come was told by a clock that has been set back since: when the event was is not known, and the next
 * write says so, or it would be taken for new once that time is there.
 */
export function remembered(value: unknown): Remembered {
  const log = (kept(LOG, value) ?? { waiting: [], receipts: [] }) as Remembered;
  const receipts = log.receipts.map((one) =>
    (one.at ?? 0) > Date.now() ? { ...one, at: 0 } : one,
  );
  return { ...log, receipts };
}

/** Hashes of a proof. */
export function hashes(texts: readonly unknown[], evidence: string[]): Bytes[] {
  return texts.map((text) => {
    const hash = fromBase64(String(text));
    if (hash?.length !== 32) throw new Untrusted("shape-wrong", "a proof holds no hash", evidence);
    return hash;
  });
}

/** Two notes must be of one epoch, and where they are of one size, of one log. */
function agree(one: Checkpoint, other: Checkpoint): void {
  const evidence = [one.note, other.note];
  if (one.epoch !== other.epoch) {
    throw new Untrusted("other-log", "the realm was restored: its log has another epoch", evidence);
  }
  if (one.size === other.size && !equal(one.root, other.root)) {
    throw new Untrusted("not-consistent", "the realm signed two logs of one size", evidence);
  }
}

/** Verifies a C2SP tlog-proof; returns its checkpoint. */
export async function verifyReceipt(
  custody: Custody,
  receipt: Schemas["LogReceipt"],
  proof: string,
): Promise<Checkpoint> {
  const at = proof.indexOf("\n\n");
  const [version, extra = "", index = "", ...path] = proof.slice(0, at).split("\n");
  const entry = fromBase64(extra.replace(/^extra /, ""));
  const wanted = `index ${receipt.index}`;
  if (at < 0 || version !== "c2sp.org/tlog-proof@v1" || !entry || index !== wanted) {
    throw new Untrusted("shape-wrong", "a receipt is no tlog-proof of its entry", [proof]);
  }
  if (toBase64Url(entry) !== receipt.leaf) {
    throw new Untrusted("statement-differs", "a receipt proves another entry", [proof]);
  }
  const checkpoint = await verifyCheckpoint(custody.realm, proof.slice(at + 2));
  const leaf = await leafHash(entry);
  if (!(await includes(checkpoint, receipt.index, leaf, hashes(path, [proof])))) {
    throw new Untrusted("not-included", "a receipt's entry is not in the log it names", [proof]);
  }
  return checkpoint;
}

/** Verifies and keeps the receipt of an answer, for this account's trail; its checkpoint waits for `checkLog`. */
export async function takeReceipt(
  custody: Custody,
  receipt: Schemas["LogReceipt"] | null | undefined,
  account: string,
): Promise<void> {
  if (!receipt) return;
  const checkpoint = receipt.proof
    ? await verifyReceipt(custody, receipt, receipt.proof)
    : undefined;
  const before = remembered(await custody.storage.get(LOG));
  if (before.trusted !== undefined && checkpoint) {
    agree(checkpoint, await verifyCheckpoint(custody.realm, before.trusted));
  }
  await custody.storage.update([LOG], (update) => {
    const state = remembered(update.get(LOG));
    const waiting = new Set(state.waiting);
    if (checkpoint && checkpoint.note !== state.trusted) waiting.add(checkpoint.note);
    const { index, leaf } = receipt;
    const receipts = [...state.receipts, { index, leaf, account, at: Date.now() }];
    update.set(LOG, { ...state, waiting: [...waiting], receipts: receipts.slice(-RECEIPTS) });
  });
}

/** A page of the account's events, and its checkpoint, proven to continue `older` where one is given. */
export async function linked(
  custody: Custody,
  older: Checkpoint | undefined,
  from: Readonly<Record<string, string>> = {},
): Promise<[Checkpoint, Schemas["EventPage"]]> {
  const query = older ? { ...from, since: String(older.size) } : from;
  const page = await custody.transport.request("get", "/v1/account/events", { query });
  const now = await verifyCheckpoint(custody.realm, page.checkpoint);
  if (!older) return [now, page];
  const evidence = [older.note, now.note];
  agree(older, now);
  if (now.size < older.size || !page.consistency) {
    throw new Untrusted("log-shrank", "the realm's log has become shorter", evidence);
  }
  if (!(await continues(older, now, hashes(page.consistency, evidence)))) {
    throw new Untrusted("not-consistent", "the realm's log does not continue its past", evidence);
  }
  return [now, page];
}

/**
 * Demands that the log continues everything that this device has seen of it: that one checkpoint continues it all, since of two
 * logs each could be continued by itself. Needs a session.
 *
 * @returns the newest checkpoint, which is remembered from now on
 * @throws `log-unproven` where what was seen is not proven to be of one log, or an earlier receipt not to be in it: a log that
 * grows between all questions, or a daemon that keeps something back. What is not linked waits for the next time.
 */
export async function checkLog(custody: Custody): Promise<Checkpoint> {
  const state = remembered(await custody.storage.get(LOG));
  const notes = [...(state.trusted === undefined ? [] : [state.trusted]), ...state.waiting];
  const known = await Promise.all(notes.map((note) => verifyCheckpoint(custody.realm, note)));
  let ends: (Checkpoint | undefined)[] = known.length > 0 ? known : [undefined];
  let rounds = 0;
  do {
    // At once: the log has hardly time to grow between the answers.
    const answers = await Promise.all(ends.map((older) => linked(custody, older)));
    const seen = answers.map(([now]) => now);
    const all = [...known, ...seen];
    for (const one of all) for (const other of all) agree(one, other);
    ends = seen.filter(({ size }, at) => seen.findIndex((one) => one.size === size) === at);
    rounds += 1;
  } while (ends.length > 1 && rounds < ROUNDS);
  // What is trusted was asked for first.
  const [newest, ...unlinked] = ends as [Checkpoint, ...Checkpoint[]];
  const isKept = await custody.storage.update([LOG], (update) => {
    // Another tab has gone on meanwhile, and perhaps further: what it trusts is linked, too.
    const now = remembered(update.get(LOG));
    if (now.trusted !== state.trusted) return false;
    const late = now.waiting.filter((note) => !notes.includes(note));
    const waiting = [...new Set([...unlinked.map(({ note }) => note), ...late])];
    update.set(LOG, { ...now, trusted: newest.note, waiting });
    return true;
  });
  if (!isKept) return checkLog(custody);
  // The last receipt may be too new for a checkpoint.
  const isShort = state.receipts.slice(0, -1).some(({ index }) => index >= newest.size);
  if (unlinked.length > 0 || isShort) throw unproven();
  return newest;
}

/** What was not shown is no proof of a lie. */
export const unproven = (): CustodyError =>
  new CustodyError("log-unproven", "the log was not shown to hold all that this device knows of");

/** The trusted checkpoint, or undefined before the first `checkLog`. */
export async function newestCheckpoint(custody: Custody): Promise<Checkpoint | undefined> {
  const { trusted } = remembered(await custody.storage.get(LOG));
  return trusted === undefined ? undefined : verifyCheckpoint(custody.realm, trusted);
}

/**
 * Forgets what was seen of the log, after a person has decided that a restore announced by the
 * operator explains an `Untrusted` of the doubt `other-log`.
 */
export async function acceptNewLog(custody: Custody): Promise<void> {
  await (await onDemand()).acceptNewLog(custody);
}

/**
 * The account's own trail, newest first: each event proven to be in the log, none missing, and each
 * receipt that this device keeps among them. What an event *says* is the daemon's word.
 */
export async function* verifiedEvents(custody: Custody): AsyncGenerator<Schemas["ProvenEvent"]> {
  yield* (await onDemand()).trail(custody);
}
