/** Logs that are kept apart: a fork for each who asks, an epoch beside another one, an older trail, and what is never shown. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { toBase64Url, utf8 } from "../src/bytes.js";
import { checkLog, newestCheckpoint, takeReceipt } from "../src/receipts/log.js";
import { all, doubted, Log, started } from "./support/log.js";
import { leaves } from "./support/realm.js";

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
