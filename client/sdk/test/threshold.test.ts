/** Threshold mode: splitting, recovery from any t of n, and realms that lie. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { combine } from "shamir-secret-sharing";
import { advice } from "../src/advice.js";
import { type Bytes, equal, fromUtf8, random, utf8 } from "../src/bytes.js";
import { refused } from "../src/errors.js";
import { Unlocked } from "../src/keys.js";
import { RealmsFailed } from "../src/threshold/failures.js";
import { openGroup } from "../src/threshold/group.js";
import { recover } from "../src/threshold/recover.js";
import { refreshShares } from "../src/threshold/refresh.js";
import {
  combineShares,
  readDocument,
  type Share,
  splitSecret,
  writeDocument,
} from "../src/threshold/share.js";
import { choices, device, keepers, recovered, signIn, unlockedDevice } from "./support/group.js";
import { Realm } from "./support/realm.js";

const names = (count: number) => Array.from({ length: count }, (_, at) => `${at}.example`);

function plan(threshold: number, count: number, version = 1) {
  return { threshold, realms: names(count), version };
}

/** As the library does it, which does not know whether the result is right. */
async function bare(shares: readonly Share[]): Promise<Bytes> {
  return new Uint8Array(await combine(shares.map(({ value }) => value)));
}

test("any t of n give the secret, fewer do not, whatever t and n are", async () => {
  for (let count = 2; count <= 6; count += 1) {
    for (let threshold = 2; threshold <= count; threshold += 1) {
      const secret = random(32);
      const shares = await splitSecret(secret, random(64), plan(threshold, count));
      for (const some of choices(shares, threshold)) {
        assert.deepEqual(await combineShares(some), secret, `${threshold} of ${count}`);
      }
      for (const few of choices(shares, threshold - 1)) {
        assert.equal(await combineShares(few), undefined);
        if (few.length > 1) assert.ok(!equal(await bare(few), secret));
      }
      // The same one twice is still one.
      const twice = [...shares.slice(1, threshold), shares[1]!];
      assert.equal(await combineShares(twice), undefined);
    }
  }
  for (const [threshold, count] of [
    [1, 3],
    [4, 3],
    [2, 17],
    [2.5, 3],
  ] as const) {
    await assert.rejects(splitSecret(random(32), random(64), plan(threshold, count)), RangeError);
  }
});

test("shares of two sets never meet", async () => {
  const secret = random(32);
  const [old, fresh] = [
    await splitSecret(secret, random(64), plan(2, 3)),
    await splitSecret(secret, random(64), plan(2, 3, 2)),
  ];
  const mixed = [old[0]!, fresh[1]!];
  assert.equal(await combineShares(mixed), undefined);
  // The control: the bare library combines them, to nonsense.
  assert.ok(!equal(await bare(mixed), secret));
  assert.deepEqual(await bare([fresh[0]!, fresh[1]!]), secret);
});

test("a document whose bytes are changed gives no share that is wrong", async () => {
  const shares = await splitSecret(random(32), random(64), plan(2, 3));
  const document = writeDocument([shares[0]!]);
  const whole = await readDocument(document, "0.example");
  assert.deepEqual([whole.shares, whole.wrong], [[shares[0]], false]);
  for (let at = 0; at < document.length; at += 1) {
    const changed = document.slice();
    changed[at] = changed[at]! ^ 1;
    const read = await readDocument(changed, "0.example");
    for (const share of read.shares) {
      // The commitment holds the share; what else was changed is seen by who compares manifests and tags.
      assert.deepEqual([share.value, share.salt], [shares[0]!.value, shares[0]!.salt], `${at}`);
      assert.equal(await combineShares([share, shares[1]!]), undefined, `${at}`);
    }
    assert.ok(read.wrong || read.shares.length === 1);
  }
  assert.deepEqual(await readDocument(document, "1.example"), { shares: [], wrong: true });
  for (const rubbish of ["", "null", "[]", "{}", '{"format":1}', fromUtf8(document).slice(1)]) {
    assert.deepEqual(await readDocument(utf8(rubbish), "0.example"), { shares: [], wrong: true });
  }
  assert.deepEqual((await readDocument(random(100), "0.example")).shares, []);
});

test("any two of three realms give the key to a new device, and a dead one is named", async () => {
  const [realms, unlocked] = [await keepers(3), await Unlocked.create()];
  await refreshShares(await unlockedDevice(realms, 2, unlocked));
  for (const dead of realms) {
    const group = await device(realms, 2, (keeper) => (keeper === dead ? "lost" : "done"));
    const found = await recover(group, signIn);
    assert.equal(found.unlocked.thumbprint, unlocked.thumbprint);
    const outcomes = new Map(found.answers.map(({ realm, outcome }) => [realm, outcome]));
    assert.equal(outcomes.get(dead.realm.name), "unreachable");
    assert.equal(outcomes.size, 3);
    assert.ok(group.custodies.every((custody) => custody.unlocked === found.unlocked));
  }
  const alone = await device(realms, 2, ({ realm }) =>
    realm.name === "b.example" ? "done" : "lost",
  );
  await assert.rejects(recover(alone, signIn), (error) => {
    assert.ok(error instanceof RealmsFailed);
    assert.equal(error.code, "too-few-shares");
    assert.deepEqual(error.realms("unreachable"), ["a.example", "c.example"]);
    assert.deepEqual(error.realms("done"), ["b.example"]);
    assert.match(advice(error), /Too few of the services/);
    return true;
  });
});

test("one after the other, no more realms are asked than are needed", async () => {
  const [realms, unlocked] = [await keepers(4), await Unlocked.create()];
  await refreshShares(await unlockedDevice(realms, 2, unlocked));
  const asked = new Set<string>();
  const group = await device(realms, 2, ({ realm }) => {
    asked.add(realm.name);
    return realm.name === "a.example" ? "lost" : "done";
  });
  const { answers } = await recover(group, signIn, { oneByOne: true });
  assert.deepEqual([...asked], ["a.example", "b.example", "c.example"]);
  assert.deepEqual(
    answers.map(({ outcome }) => outcome),
    ["unreachable", "done", "done", "not-asked"],
  );
});

/** What a realm can do to the share that it gives. */
const LIES: Record<string, (entry: Record<string, string>) => object> = {
  "another share": (entry) => ({ ...entry, share: entry["salt"]! }),
  "another place": (entry) => ({ ...entry, index: 0 }),
  "another tag": (entry) => ({ ...entry, tag: entry["salt"]! }),
  "another manifest": (entry) => ({
    ...entry,
    manifest: entry["manifest"]!.replace('"version":1', '"version":9'),
  }),
  "fewer shares needed": (entry) => ({
    ...entry,
    manifest: entry["manifest"]!.replace('"threshold":2', '"threshold":1'),
  }),
};

test("a realm that gives a wrong share is named, and changes nothing", async () => {
  for (const [lie, change] of Object.entries(LIES)) {
    const [realms, unlocked] = [await keepers(3), await Unlocked.create()];
    await refreshShares(await unlockedDevice(realms, 2, unlocked));
    // The control: unchanged, the same way of answering is believed.
    realms[1]!.lies((document) => document);
    assert.ok(
      (await recovered(realms, 2)).answers.every(({ outcome }) => outcome === "done"),
      lie,
    );
    realms[1]!.lies((document) => ({
      ...document,
      shares: (document["shares"] as Record<string, string>[]).map(change),
    }));
    const found = await recovered(realms, 2);
    assert.equal(found.unlocked.thumbprint, unlocked.thumbprint, lie);
    const wrong = found.answers.filter(({ outcome }) => outcome === "wrong");
    assert.deepEqual(
      wrong.map(({ realm }) => realm),
      ["b.example"],
      lie,
    );
    // Without the third one there is not enough, and nothing is taken for a key.
    await assert.rejects(recovered(realms.slice(0, 2), 2), { code: "too-few-shares" });
  }
});

test("realms that lie together, fewer than are needed, get no key of theirs believed", async () => {
  const [realms, unlocked] = [await keepers(5), await Unlocked.create()];
  await refreshShares(await unlockedDevice(realms, 3, unlocked));
  const theirs = await Unlocked.create();
  const all = realms.map(({ realm }) => realm.name);
  // A set of two of five, of a key that they know.
  const forged = { version: 9, threshold: 2, realms: all };
  const shares = await splitSecret(theirs.secret, theirs.wrapped, forged);
  for (const at of [0, 1]) {
    realms[at]!.bound = theirs;
    realms[at]!.lies(() => JSON.parse(fromUtf8(writeDocument([shares[at]!]))) as unknown);
  }
  const found = await recovered(realms, 3);
  assert.equal(found.unlocked.thumbprint, unlocked.thumbprint);
  assert.deepEqual(
    found.answers.map(({ outcome }) => outcome),
    ["wrong", "wrong", "done", "done", "done"],
  );
  // The control: an app that would be content with two believes them.
  const naive = await recovered(realms.slice(0, 2).concat(realms.slice(4)), 2);
  assert.equal(naive.unlocked.thumbprint, theirs.thumbprint);
});

test("a key that the realms have not bound is none, and a wrong PIN is told as one", async () => {
  const [realms, unlocked] = [await keepers(3), await Unlocked.create()];
  await refreshShares(await unlockedDevice(realms, 2, unlocked));
  realms[0]!.bound = realms[2]!.bound = await Unlocked.create();
  await assert.rejects(recovered(realms, 2), (error) => {
    assert.ok(error instanceof RealmsFailed);
    assert.deepEqual(error.realms("wrong"), ["a.example", "c.example"]);
    return true;
  });
  const group = await device(realms, 2);
  const wrong = (left: number) =>
    refused({ code: "pin-wrong", status: 401, detail: "no", attempts_left: left });
  let left = 4;
  await assert.rejects(
    recover(group, () => Promise.reject(wrong(left--))),
    (error) => {
      assert.equal(advice(error), "That is not right. 2 tries are left.");
      return error instanceof RealmsFailed && error.realms("refused").length === 3;
    },
  );
  await assert.rejects(
    recover(group, () => Promise.reject(new TypeError("a mistake of the app's"))),
    (error) => {
      const found = error instanceof RealmsFailed ? error.answers[0]?.error : undefined;
      return found?.code === "answer-unknown" && found.cause instanceof TypeError;
    },
  );
});

test("a group has different realms, and as many as are needed", async () => {
  const trust = (await Realm.make("a.example")).trust;
  const realm = { url: "https://a.example", realm: trust };
  for (const realms of [[realm], [realm, realm]]) {
    await assert.rejects(openGroup({ app: "notes", threshold: 2, realms }), RangeError);
  }
});
