/** Logs that are kept apart: a fork for each who asks, an epoch beside another one, an older trail, and what is never shown. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { toBase64, toBase64Url, utf8 } from "../src/bytes.js";
import { checkLog, newestCheckpoint, takeReceipt, verifiedEvents } from "../src/receipts/log.js";
import { all, doubted, Log, started } from "./support/log.js";
import { leaves } from "./support/realm.js";
import { consistency, path } from "./support/tree.js";

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

const DAY = 86_400_000;

test("a daemon that says that the trail begins later hides nothing that happened here this month", async () => {
  const [log, custody] = await started();
  const page = log.page.bind(log);
  // The first two events are said to be so old that they were deleted; this device has a receipt of the second.
  log.page = async (query) => {
    const whole = (await page(query)) as { events: { number: number }[] };
    const events = whole.events.filter(({ number }) => number > 2);
    return { ...whole, events, complete_from: 3, next: undefined };
  };
  await takeReceipt(custody, await log.realm.receipt(2, log.leaves), "a-1");
  await doubted("event-missing", all(custody));
  // The control: what is so old may be deleted, also where an earlier release kept the receipt.
  for (const at of [Date.now() - 31 * DAY, undefined, Date.now() + DAY]) {
    await custody.storage.update(["log"], (update) => {
      const kept = update.get("log") as { receipts: { index: number }[] };
      const aged = kept.receipts.map((one) => (one.index === 2 ? { ...one, at } : one));
      update.set("log", { ...kept, receipts: aged });
    });
    assert.deepEqual(await all(custody), [4, 3]);
  }
});

test("a receipt that a wrong clock has dated later is not taken for new once that time is there", async () => {
  for (const isAsked of [true, false]) {
    const [log, custody] = await started();
    const page = log.page.bind(log);
    await takeReceipt(custody, await log.realm.receipt(2, log.leaves), "a-1");
    await custody.storage.update(["log"], (update) => {
      const kept = update.get("log") as { receipts: object[] };
      const receipts = kept.receipts.map((one) => ({ ...one, at: Date.now() + 40 * DAY }));
      update.set("log", { ...kept, receipts });
    });
    if (isAsked) await checkLog(custody);
    log.page = async (query) => {
      const whole = (await page(query)) as { events: { number: number }[] };
      const events = whole.events.filter(({ number }) => number > 2);
      return { ...whole, events, complete_from: 3, next: undefined };
    };
    const now = Date.now;
    Date.now = () => now() + 41 * DAY;
    try {
      if (isAsked) assert.deepEqual(await all(custody), [4, 3]);
      // The control: where nothing was written since the clock is right, it is.
      else await doubted("event-missing", all(custody));
    } finally {
      Date.now = now;
    }
  }
});

/** A daemon whose checkpoint does not cover the newest events yet. */
function bounded(log: Log, covered: number): void {
  const page = log.page.bind(log);
  log.page = async (query) => {
    const whole = (await page(query)) as { events: { log: { index: number; proof?: string[] } }[] };
    const signed = new Log(log.realm);
    signed.leaves = log.leaves.slice(0, covered);
    const proven = whole.events.map(async (event) => {
      const { index } = event.log;
      const rest = { ...event.log };
      delete rest.proof;
      if (index >= covered) return { ...event, log: rest };
      const proof = (await path(index, signed.leaves)).map(toBase64);
      return { ...event, log: { ...rest, proof } };
    });
    const checkpoint = await log.realm.note(signed.leaves);
    const since = query.get("since");
    const consistent = since !== null && (await consistency(Number(since), signed.leaves));
    const links = consistent ? { consistency: consistent.map(toBase64) } : {};
    return { ...whole, events: await Promise.all(proven), checkpoint, ...links };
  };
}

test("an event that no checkpoint covers yet is no lie, and is not said to be proven", async () => {
  const [log, custody] = await started();
  await checkLog(custody);
  await log.happen();
  bounded(log, 8);
  const seen: number[] = [];
  await assert.rejects(
    (async () => {
      for await (const { number } of verifiedEvents(custody)) seen.push(number);
    })(),
    { code: "log-unproven" },
  );
  assert.deepEqual(seen, [5, 4, 3, 2, 1]);
  // Where it is missing in the chain, or another entry than that of this device's receipt, it is a lie.
  const leaf = toBase64Url(utf8("another"));
  await takeReceipt(custody, { index: 8, leaf, proof: null }, "a-1");
  await doubted("event-missing", all(custody));
});

test("an event without a proof that a checkpoint covers is a lie; the control: with it, all is proven", async () => {
  const [log, custody] = await started();
  await log.happen();
  assert.deepEqual(await all(custody), [5, 4, 3, 2, 1]);
  const page = log.page.bind(log);
  log.page = async (query) => {
    const whole = (await page(query)) as { events: { log: { proof?: string[] } }[] };
    for (const event of whole.events) delete event.log.proof;
    return whole;
  };
  await doubted("not-included", all(custody));
});
