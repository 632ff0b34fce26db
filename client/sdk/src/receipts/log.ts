/**
 * What this device has seen of the realm's log, and the demand that the log only ever goes on.
 *
 * The newest checkpoint that everything before was linked to is *trusted*; checkpoints of receipts
 * wait until a consistency proof links them. A log that became shorter, or forked, is `Untrusted`
 * with both notes as evidence, and what is remembered stays as it was.
 */
import { type Bytes, equal, fromBase64, toBase64Url } from "../bytes.js";
import type { Custody } from "../custody.js";
import { Untrusted } from "../errors.js";
import { kept } from "../storage/sound.js";
import { onDemand } from "../tools.js";
import type { Schemas } from "../transport.js";
import { continues, includes, leafHash } from "./merkle.js";
import { type Checkpoint, verifyCheckpoint } from "./realm.js";

/** Where it is kept. */
export const LOG = "log";
/** So many of the newest receipts are kept. */
const RECEIPTS = 100;

interface Remembered {
  /** Signed notes. */
  readonly trusted?: string | undefined;
  readonly waiting: readonly string[];
  /** Not all are of one account, where the device had several. */
  readonly receipts: readonly { index: number; leaf: string; account?: string }[];
}

/** What was kept. */
export function remembered(value: unknown): Remembered {
  return (kept(LOG, value) as Remembered | undefined) ?? { waiting: [], receipts: [] };
}

/** Hashes of a proof. */
export function hashes(texts: readonly unknown[], evidence: string[]): Bytes[] {
  return texts.map((text) => {
    const hash = fromBase64(String(text));
    if (hash?.length !== 32) throw new Untrusted("shape-wrong", "a proof holds no hash", evidence);
    return hash;
  });
}

/** Two notes of one size must be of one log. */
function agree(one: Checkpoint, other: Checkpoint): void {
  if (one.epoch === other.epoch && one.size === other.size && !equal(one.root, other.root)) {
    throw new Untrusted("not-consistent", "the realm signed two logs of one size", [
      one.note,
      other.note,
    ]);
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
    const receipts = [...state.receipts, { index: receipt.index, leaf: receipt.leaf, account }];
    update.set(LOG, { ...state, waiting: [...waiting], receipts: receipts.slice(-RECEIPTS) });
  });
}

/** The newest page, proven to continue `older` where one is given. */
async function current(custody: Custody, older: Checkpoint | undefined): Promise<Checkpoint> {
  const query = older ? { since: String(older.size) } : {};
  const page = await custody.transport.request("get", "/v1/account/events", { query });
  const now = await verifyCheckpoint(custody.realm, page.checkpoint);
  if (!older) return now;
  const evidence = [older.note, now.note];
  if (now.epoch !== older.epoch) {
    throw new Untrusted("other-log", "the realm was restored: its log has another epoch", evidence);
  }
  if (now.size < older.size || !page.consistency) {
    throw new Untrusted("log-shrank", "the realm's log has become shorter", evidence);
  }
  if (!(await continues(older, now, hashes(page.consistency, evidence)))) {
    throw new Untrusted("not-consistent", "the realm's log does not continue its past", evidence);
  }
  return now;
}

/**
 * Demands that the log continues everything that this device has seen of it. Needs a session.
 *
 * @returns the newest checkpoint, which is remembered from now on
 */
export async function checkLog(custody: Custody): Promise<Checkpoint> {
  const state = remembered(await custody.storage.get(LOG));
  const notes = [...(state.trusted === undefined ? [] : [state.trusted]), ...state.waiting];
  const known = await Promise.all(notes.map((note) => verifyCheckpoint(custody.realm, note)));
  const seen: Checkpoint[] = [];
  for (const older of known.length > 0 ? known : [undefined])
    seen.push(await current(custody, older));
  const newest = seen.reduce((one, other) => (other.size > one.size ? other : one));
  for (const other of [...known, ...seen]) agree(newest, other);
  // The log grew between two questions: what is not linked to the newest waits for the next time.
  const unlinked = seen.filter((one) => one.size < newest.size).map((one) => one.note);
  const isKept = await custody.storage.update([LOG], (update) => {
    // Another tab has gone on meanwhile, and perhaps further: what it trusts is linked, too.
    if (remembered(update.get(LOG)).trusted !== state.trusted) return false;
    const late = remembered(update.get(LOG)).waiting.filter((note) => !notes.includes(note));
    const waiting = [...new Set([...unlinked, ...late])];
    update.set(LOG, { ...remembered(update.get(LOG)), trusted: newest.note, waiting });
    return true;
  });
  return isKept ? newest : checkLog(custody);
}

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
