/** What a device remembers of the log, against a realm that goes on, goes back, forks and omits. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { toBase64, toBase64Url, utf8, type Bytes } from "../src/bytes.js";
import type { Custody } from "../src/custody.js";
import { type Doubt, Untrusted } from "../src/errors.js";
import {
  acceptNewLog,
  checkLog,
  newestCheckpoint,
  takeReceipt,
  verifiedEvents,
} from "../src/receipts/log.js";
import { FakeDaemon } from "./support/daemon.js";
import { eventLeaf, leaves, Realm } from "./support/realm.js";
import { consistency, path } from "./support/tree.js";

async function doubted(doubt: Doubt, work: Promise<unknown>): Promise<Untrusted> {
  let found: unknown;
  await assert.rejects(work, (error) => {
    found = error;
    return error instanceof Untrusted && error.doubt === doubt;
  });
  return found as Untrusted;
}

/** A daemon whose log a test replaces at will. */
class Log {
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

async function started(): Promise<[Log, Custody]> {
  const log = new Log(await Realm.make());
  for (let round = 0; round < 4; round += 1) await log.happen();
  const custody = await log.custody();
  await takeReceipt(custody, await log.realm.receipt(6, log.leaves), "a-1");
  return [log, custody];
}

async function all(custody: Custody): Promise<number[]> {
  const numbers = [];
  for await (const event of verifiedEvents(custody)) numbers.push(event.number);
  return numbers;
}

test("a log that goes on is followed, and the newest checkpoint remembered", async () => {
  const [log, custody] = await started();
  assert.equal(await newestCheckpoint(custody), undefined);
  assert.equal((await checkLog(custody)).size, 8);
  await log.happen();
  await takeReceipt(custody, await log.realm.receipt(8, log.leaves), "a-1");
  await log.happen();
  assert.equal((await checkLog(custody)).size, 12);
  assert.equal((await newestCheckpoint(custody))?.size, 12);
  assert.deepEqual(await all(custody), [6, 5, 4, 3, 2, 1]);
});

test("a log that became shorter is evidence, and what was remembered stays", async () => {
  const [log, custody] = await started();
  await checkLog(custody);
  log.leaves = log.leaves.slice(0, 6);
  log.events = log.events.slice(1);
  const { evidence } = await doubted("log-shrank", checkLog(custody));
  assert.equal(evidence.length, 2);
  assert.equal((await newestCheckpoint(custody))?.size, 8);
});

test("a fork is evidence, longer or just as long", async () => {
  const [log, custody] = await started();
  await checkLog(custody);
  log.leaves[7] = utf8("another past");
  await doubted("not-consistent", checkLog(custody));
  await doubted(
    "not-consistent",
    takeReceipt(custody, await log.realm.receipt(6, log.leaves), "a-1"),
  );
  await log.happen();
  await doubted("not-consistent", checkLog(custody));
});

test("a receipt of a fork is found out by the next check", async () => {
  const [log, custody] = await started();
  await checkLog(custody);
  const honest = [...log.leaves];
  log.leaves = [...honest, utf8("for this device alone"), utf8("x")];
  await takeReceipt(custody, await log.realm.receipt(8, log.leaves), "a-1");
  log.leaves = honest;
  for (let round = 0; round < 2; round += 1) await log.happen();
  await doubted("not-consistent", checkLog(custody));
});

test("of two tabs, the one whose answer is older does not put the other's memory back", async () => {
  const [log, custody] = await started();
  await checkLog(custody);
  const other = await log.custody();
  Object.assign(other, { storage: custody.storage });
  // This tab's answer was made before the log grew, and comes after the other tab has seen that.
  let isLate = true;
  const page = log.page.bind(log);
  log.page = async (query) => {
    const answer = await page(query);
    if (isLate) {
      isLate = false;
      await log.happen();
      await checkLog(other);
    }
    return answer;
  };
  assert.equal((await checkLog(custody)).size, 10);
  assert.equal((await newestCheckpoint(custody))?.size, 10);
});

test("another epoch is a person's to accept", async () => {
  const [log, custody] = await started();
  await checkLog(custody);
  log.epoch = 2;
  await doubted("other-log", checkLog(custody));
  await acceptNewLog(custody);
  assert.equal((await checkLog(custody)).epoch, 2);
});

test("an event that is left out, altered or not in the log is missed", async () => {
  for (const tamper of [
    (log: Log) => log.events.shift(),
    (log: Log) => log.events.splice(1, 1),
    (log: Log) => log.events.pop(),
    (log: Log) => (log.events[2] = { ...log.events[2], body: "AAAA" }),
    (log: Log) => (log.events[0] = { ...log.events[0], number: 9 }),
  ]) {
    const [log, custody] = await started();
    assert.deepEqual(await all(custody), [4, 3, 2, 1]);
    tamper(log);
    await assert.rejects(all(custody), Untrusted, tamper.toString());
  }
});

test("a receipt proves its own entry and no other", async () => {
  const [log, custody] = await started();
  const good = await log.realm.receipt(2, log.leaves);
  await takeReceipt(custody, good, "a-1");
  await takeReceipt(custody, { index: 3, leaf: "AA", proof: null }, "a-1");
  await takeReceipt(custody, undefined, "a-1");
  const foreign = await (await Realm.make()).receipt(2, log.leaves);
  await doubted("key-unknown", takeReceipt(custody, foreign, "a-1"));
  await doubted(
    "statement-differs",
    takeReceipt(custody, { ...good, leaf: toBase64Url(leaves(1)[0]!) }, "a-1"),
  );
  await doubted("shape-wrong", takeReceipt(custody, { ...good, index: 3 }, "a-1"));
  await doubted(
    "shape-wrong",
    takeReceipt(custody, { ...good, proof: "c2sp.org/tlog-proof@v1\n" }, "a-1"),
  );
  const moved = { ...good, index: 3, proof: good.proof.replace("index 2", "index 3") };
  await doubted("not-included", takeReceipt(custody, moved, "a-1"));
});

test("what this device has seen of another account's is not missed in this one's trail", async () => {
  const [log, custody] = await started();
  // Of an event of the other's that is later than this one's first.
  const theirs = await log.realm.receipt(7, log.leaves);
  await takeReceipt(custody, theirs, "a-2");
  assert.deepEqual(await all(custody), [4, 3, 2, 1]);
  // The control: of this account's, it is.
  await takeReceipt(custody, theirs, "a-1");
  await doubted("event-missing", all(custody));
});

test("one log that grows between questions is followed once it rests", async () => {
  const [log, custody] = await started();
  await checkLog(custody);
  await log.happen();
  await takeReceipt(custody, await log.realm.receipt(8, log.leaves), "a-1");
  await log.happen();
  const page = log.page.bind(log);
  let grows = 3;
  let last: Promise<unknown> = Promise.resolve();
  // One after the other: an answer is of one log.
  log.page = (query) => {
    const answer = last.then(() => page(query));
    last = answer.then(() => (grows-- > 0 ? log.happen() : undefined));
    return answer;
  };
  assert.equal((await checkLog(custody)).size, log.leaves.length);
});

test("two logs, each grown for who has seen it, are never taken for one", async () => {
  const [log, custody] = await started();
  assert.equal((await checkLog(custody)).size, 8);
  const fork = new Log(log.realm);
  [fork.leaves, fork.events] = [[...log.leaves, utf8("for this device alone")], [...log.events]];
  await takeReceipt(custody, await log.realm.receipt(8, fork.leaves), "a-1");
  const page = log.page.bind(log);
  const forked = new Set([fork.leaves.length]);
  // Of different sizes, so that no two notes accuse each other.
  log.page = async (query) => {
    const isFork = forked.has(Number(query.get("since")));
    const its = isFork ? fork : log;
    its.leaves.push(utf8("one"), utf8("two"));
    if (isFork) forked.add(fork.leaves.length);
    return isFork ? fork.page(query) : page(query);
  };
  for (let round = 0; round < 3; round += 1) {
    await assert.rejects(checkLog(custody), { code: "log-unproven" });
    assert.equal(forked.has((await newestCheckpoint(custody))!.size), false);
    // Neither is forgotten, and no more of them are kept each time.
    const { waiting } = (await custody.storage.get("log")) as { waiting: string[] };
    assert.equal(waiting.length, 1);
  }
});

test("an earlier receipt that no checkpoint covers is missed, and the last one is waited for", async () => {
  const [log, custody] = await started();
  const late = { index: 8, leaf: toBase64Url(leaves(1)[0]!), proof: null };
  await takeReceipt(custody, late, "a-1");
  await checkLog(custody);
  await takeReceipt(custody, { ...late, index: 9 }, "a-1");
  await assert.rejects(checkLog(custody), { code: "log-unproven" });
  await log.happen();
  assert.equal((await checkLog(custody)).size, 10);
});

test("notes of two epochs are two logs, though each goes on by itself", async () => {
  const [log, custody] = await started();
  await checkLog(custody);
  const other = new Log(log.realm);
  [other.leaves, other.events, other.epoch] = [[...log.leaves, utf8("x")], [...log.events], 2];
  const { trusted } = (await custody.storage.get("log")) as { trusted: string };
  const waiting = [await log.realm.note(other.leaves, 2)];
  await custody.storage.update([], (update) => {
    update.set("log", { trusted, waiting, receipts: [] });
  });
  const page = log.page.bind(log);
  log.page = (query) => (query.get("since") === "9" ? other.page(query) : page(query));
  await doubted("other-log", checkLog(custody));
  // A receipt of another epoch says so by itself.
  const receipt = await log.realm.receipt(6, log.leaves);
  const at = receipt.proof.indexOf("\n\n") + 2;
  const proof = receipt.proof.slice(0, at) + (await log.realm.note(log.leaves, 2));
  await doubted("other-log", takeReceipt(custody, { ...receipt, proof }, "a-1"));
});

test("a trail of an older log, or of another epoch, is none", async () => {
  for (const [doubt, change] of [
    [
      "log-shrank",
      (log: Log) => ([log.leaves, log.events] = [log.leaves.slice(0, 6), log.events.slice(1)]),
    ],
    ["other-log", (log: Log) => (log.epoch = 2)],
  ] as const) {
    const [log, custody] = await started();
    await checkLog(custody);
    const trusted = (await newestCheckpoint(custody))!.note;
    await custody.storage.update([], (update) => {
      update.set("log", { trusted, waiting: [], receipts: [] });
    });
    change(log);
    await doubted(doubt, all(custody));
    // The control: to a device that has seen nothing of it, it is a trail.
    const fresh = await log.custody();
    assert.equal((await all(fresh)).length, log.events.length);
  }
});
