/**
 * The account's trail of events, each proven to be in the log, and a log that begins anew. Loaded when an app shows or accepts
 * it.
 */
import type { Bytes } from "../bytes.js";
import type { AppKeyRecord, Custody } from "../custody.js";
import type { Checkpoint } from "../receipts/realm.js";
import type { Schemas } from "../transport.js";
import { t } from "./t.js";

async function eventEntry(log: Schemas["LogEntry"]): Promise<Bytes> {
  const fields = [
    t.utf8("custodyd/event/v1"),
    t.fromBase64Url(log.salt),
    t.fromBase64Url(log.body),
  ];
  const framed = fields.map((field = new Uint8Array()) => t.concat(t.be32(field.length), field));
  return t.concat(new Uint8Array([1]), await t.sha256(...framed));
}

/** No policy lets events go before they are 30 days old: a day less, for two clocks that differ. In milliseconds. */
const KEPT = 29 * 86_400_000;

/** Whether an event is so new that no checkpoint covers it, as under bounded anchoring: it has no proof yet, and is to have one. */
const isToCome = (checkpoint: Checkpoint, { log }: Schemas["ProvenEvent"]): boolean =>
  !log.proof && log.index >= checkpoint.size;

async function verifyEvent(checkpoint: Checkpoint, event: Schemas["ProvenEvent"]): Promise<string> {
  const entry = await eventEntry(event.log);
  if (isToCome(checkpoint, event)) return t.toBase64Url(entry);
  const path = t.hashes(event.log.proof ?? [], [checkpoint.note]);
  if (!(await t.includes(checkpoint, event.log.index, await t.leafHash(entry), path))) {
    const what = `event ${event.number} is not in the log`;
    throw new t.Untrusted("not-included", what, [checkpoint.note, JSON.stringify(event)]);
  }
  return t.toBase64Url(entry);
}

/** Called by `verifiedEvents` of `../receipts/log.ts`. */
export async function* trail(custody: Custody): AsyncGenerator<Schemas["ProvenEvent"]> {
  const { receipts, trusted } = t.remembered(await custody.storage.get(t.LOG));
  // Each page is of a log that continues the page's before, and the first one's that which is trusted.
  let checkpoint =
    trusted === undefined ? undefined : await t.verifyCheckpoint(custody.realm, trusted);
  const own = t.accountOf(custody);
  // Another account's are not in this one's trail. Earlier releases have not written down whose they are.
  const mine = receipts.filter(({ account = own }) => account === own);
  const kept = new Map(mine.map(({ index, leaf, at }) => [index, { leaf, at }]));
  let newer: Schemas["ProvenEvent"] | undefined;
  let from: string | undefined;
  let [oldest, isProven] = [1, true];
  do {
    const query = from === undefined ? {} : { from };
    const [now, page] = await t.linked(custody, checkpoint, query);
    checkpoint = now;
    oldest = page.complete_from;
    for (const event of page.events) {
      const entry = await verifyEvent(now, event);
      const chained =
        !newer || (newer.number === event.number + 1 && newer.previous === event.log.index);
      if (!chained || (kept.get(event.log.index)?.leaf ?? entry) !== entry) {
        throw new t.Untrusted("event-missing", `an event is missing near ${event.number}`, [
          now.note,
        ]);
      }
      kept.delete(event.log.index);
      isProven &&= !isToCome(now, event);
      newer = event;
      yield event;
    }
    from = page.next ?? undefined;
  } while (from !== undefined);
  const complete = newer ? newer.number <= oldest : oldest > 1;
  const reached = newer?.log.index ?? 0;
  // Where the trail begins is the daemon's word: what happened here a short while ago is in it, whatever that says.
  const isMissing = ([index, { at = 0 }]: [number, { at?: number | undefined }]) =>
    index >= reached || Date.now() - at < KEPT;
  if (!complete || [...kept].some(isMissing)) {
    throw new t.Untrusted("event-missing", "the trail does not hold every event it should", []);
  }
  if (!isProven) throw t.unproven();
}

/** Forgets what was seen of secrets. */
export async function forgetSeen({ storage }: Custody): Promise<void> {
  const kept = await storage.list(t.SEEN);
  await storage.update([], (update) => {
    for (const [key] of kept) update.delete(key);
  });
}

/** Called by `acceptNewLog` of `../receipts/log.ts`. What was restored is older than what this device has seen, too. */
export async function acceptNewLog(custody: Custody): Promise<void> {
  await forgetSeen(custody);
  // The wrapped key may be under a device secret that the restore has lost: the realm's binding decides at the next sign-in.
  // Until then it opens offline, and nothing that waits is lost.
  await t.ours(custody, [t.KEPT.appKey], (update) => {
    update.delete(t.LOG);
    const key = update.get(t.KEPT.appKey) as AppKeyRecord | undefined;
    if (key) update.set(t.KEPT.appKey, { ...key, restored: true } satisfies AppKeyRecord);
  });
}
