/** What a device remembers of the log, against a realm that goes on, goes back, forks and omits. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { toBase64Url, utf8 } from "../src/bytes.js";
import { Untrusted } from "../src/errors.js";
import { acceptNewLog, checkLog, newestCheckpoint, takeReceipt } from "../src/receipts/log.js";
import { all, doubted, type Log, started } from "./support/log.js";
import { leaves, Realm } from "./support/realm.js";

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
