/** A daemon whose log a test replaces at will, and a device that has seen some of it. */
import assert from "node:assert/strict";
import { toBase64, toBase64Url, utf8, type Bytes } from "../../src/bytes.js";
import type { Custody } from "../../src/custody.js";
import { type Doubt, Untrusted } from "../../src/errors.js";
import { takeReceipt, verifiedEvents } from "../../src/receipts/log.js";
import { FakeDaemon } from "./daemon.js";
import { eventLeaf, Realm } from "./realm.js";
import { consistency, path } from "./tree.js";

export async function doubted(doubt: Doubt, work: Promise<unknown>): Promise<Untrusted> {
  let found: unknown;
  await assert.rejects(work, (error) => {
    found = error;
    return error instanceof Untrusted && error.doubt === doubt;
  });
  return found as Untrusted;
}

/** A daemon whose log a test replaces at will. */
export class Log {
  leaves: Bytes[] = [];
  epoch = 1;
  events: object[] = [];
  pageSize = 3;

  constructor(readonly realm: Realm) {}

  /** Adds an event of the account, and a leaf of somebody else's. */
  async happen(): Promise<void> {
    const salt = toBase64Url(utf8(`salt ${this.leaves.length}`));
    const body = toBase64Url(utf8(`body ${this.leaves.length}`));
    const previous = (this.events[0] as { index: number } | undefined)?.index ?? null;
    const index = this.leaves.length;
    this.leaves.push(await eventLeaf(salt, body), utf8(`other ${index}`));
    this.events.unshift({
      number: this.events.length + 1,
      previous,
      kind: "pin-set",
      at: 1,
      index,
      salt,
      body,
    });
  }

  async page(query: URLSearchParams): Promise<object> {
    const from = Number(query.get("from") ?? 0);
    const shown = this.events.slice(from, from + this.pageSize);
    const events = await Promise.all(
      shown.map(async (event) => {
        const { index, salt, body, ...rest } = event as {
          index: number;
          salt: string;
          body: string;
        };
        const proof = (await path(index, this.leaves)).map(toBase64);
        return { ...rest, log: { index, salt, body, proof } };
      }),
    );
    const since = query.get("since");
    const next =
      from + this.pageSize < this.events.length ? { next: String(from + this.pageSize) } : {};
    const linked =
      since !== null && Number(since) <= this.leaves.length
        ? { consistency: (await consistency(Number(since), this.leaves)).map(toBase64) }
        : {};
    const checkpoint = await this.realm.note(this.leaves, this.epoch);
    return { events, complete_from: 1, checkpoint, ...next, ...linked };
  }

  async custody(): Promise<Custody> {
    const daemon = new FakeDaemon(async ({ path: asked }) => {
      return { body: await this.page(new URL(asked, "https://c.example").searchParams) };
    });
    const custody = await daemon.custody(this.realm);
    custody.account = { account: "a-1" };
    return custody;
  }
}

export async function started(): Promise<[Log, Custody]> {
  const log = new Log(await Realm.make());
  for (let round = 0; round < 4; round += 1) await log.happen();
  const custody = await log.custody();
  await takeReceipt(custody, await log.realm.receipt(6, log.leaves), "a-1");
  return [log, custody];
}

export async function all(custody: Custody): Promise<number[]> {
  const numbers = [];
  for await (const event of verifiedEvents(custody)) numbers.push(event.number);
  return numbers;
}
