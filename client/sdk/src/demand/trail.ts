/**
 * The account's trail of events, each proven to be in the log. Loaded when an app shows it.
 */
import type { Bytes } from "../bytes.js";
import type { Custody } from "../custody.js";
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

async function verifyEvent(checkpoint: Checkpoint, event: Schemas["ProvenEvent"]): Promise<string> {
  const entry = await eventEntry(event.log);
  const path = t.hashes(event.log.proof ?? [], [checkpoint.note]);
  if (!(await t.includes(checkpoint, event.log.index, await t.leafHash(entry), path))) {
    const what = `event ${event.number} is not in the log`;
    throw new t.Untrusted("not-included", what, [checkpoint.note, JSON.stringify(event)]);
  }
  return t.toBase64Url(entry);
}

/** Called by `verifiedEvents` of `../receipts/log.ts`. */
export async function* trail(custody: Custody): AsyncGenerator<Schemas["ProvenEvent"]> {
  const { receipts } = t.remembered(await custody.storage.get(t.LOG));
  const kept = new Map(receipts.map(({ index, leaf }) => [index, leaf]));
  let newer: Schemas["ProvenEvent"] | undefined;
  let from: string | undefined;
  let oldest = 1;
  do {
    const query = from === undefined ? {} : { from };
    const page = await custody.transport.request("get", "/v1/account/events", { query });
    const checkpoint = await t.verifyCheckpoint(custody.realm, page.checkpoint);
    oldest = page.complete_from;
    for (const event of page.events) {
      const entry = await verifyEvent(checkpoint, event);
      const chained =
        !newer || (newer.number === event.number + 1 && newer.previous === event.log.index);
      if (!chained || (kept.get(event.log.index) ?? entry) !== entry) {
        throw new t.Untrusted("event-missing", `an event is missing near ${event.number}`, [
          checkpoint.note,
        ]);
      }
      kept.delete(event.log.index);
      newer = event;
      yield event;
    }
    from = page.next ?? undefined;
  } while (from !== undefined);
  const complete = newer ? newer.number <= oldest : oldest > 1;
  const reached = newer?.log.index ?? 0;
  if (!complete || [...kept.keys()].some((index) => index >= reached)) {
    throw new t.Untrusted("event-missing", "the trail does not hold every event it should", []);
  }
}
