/** Threshold mode: new shares of the same secret, interrupted wherever it hurts. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Unlocked } from "../src/keys.js";
import { enrolAtAll, groupEnrolmentPending } from "../src/threshold/enrol.js";
import { RealmsFailed } from "../src/threshold/failures.js";
import { forgetGroup, type Group, lockGroup, unlockedOf } from "../src/threshold/group.js";
import { recover } from "../src/threshold/recover.js";
import { refreshShares } from "../src/threshold/refresh.js";
import { combineShares, splitSecret, writeDocument } from "../src/threshold/share.js";
import { writeStored } from "../src/threshold/stored.js";
import {
  anyGive,
  device,
  type Fate,
  type Keeper,
  keepers,
  recovered,
  signIn,
  unlockedDevice,
} from "./support/group.js";
import { atStep } from "./support/steps.js";

/** As somebody would write it who has not thought of crashes: one realm after the other. */
async function naive(group: Group, unlocked: Unlocked, realms: Keeper[]): Promise<void> {
  const names = group.custodies.map(({ realm }) => realm.name);
  const plan = { version: 9, threshold: group.threshold, realms: names };
  const fresh = await splitSecret(unlocked.secret, unlocked.wrapped, plan);
  for (const [at, custody] of group.custodies.entries()) {
    await writeStored(custody, writeDocument([fresh[at]!]), realms[at]!.stored?.version);
  }
}

test("a refresh changes all shares, and old ones are worth nothing with new ones", async () => {
  const [realms, unlocked] = [await keepers(3), await Unlocked.create()];
  const group = await unlockedDevice(realms, 2, unlocked);
  assert.deepEqual(await refreshShares(group), { version: 1, wrong: [] });
  const [stolen] = await realms[0]!.shares();
  assert.deepEqual(await refreshShares(group), { version: 2, wrong: [] });
  for (const keeper of realms) {
    const shares = await keeper.shares();
    assert.deepEqual(
      shares.map(({ manifest }) => manifest.version),
      [2],
    );
    assert.equal(await combineShares([stolen!, shares[0]!]), undefined);
  }
  assert.ok(await anyGive(realms, 2, unlocked));
});

test("locked at any step of a refresh, any realms that are enough give the key", async () => {
  const owner = await Unlocked.create();
  for (let at = 1; ; at += 1) {
    const realms = await keepers(3);
    const open = await Unlocked.open(owner.secret, owner.wrapped);
    const group = await unlockedDevice(realms, 2, open);
    await refreshShares(group);
    const lockAll = () => {
      lockGroup(group);
    };
    const [first] = group.custodies;
    const { reached, error } = await atStep(first!, at, lockAll, () => refreshShares(group));
    assert.equal(error, undefined, `locked at ${at}`);
    assert.ok(await anyGive(realms, 2, owner), `locked at ${at}`);
    if (!reached) break;
  }
});

for (const [count, threshold] of [
  [3, 2],
  [3, 3],
  [5, 3],
] as const) {
  test(`interrupted at any request of a refresh, any ${threshold} of ${count} give the key`, async () => {
    const [realms, unlocked] = [await keepers(count), await Unlocked.create()];
    await refreshShares(await unlockedDevice(realms, threshold, unlocked));
    let stoppedAtAll = 0;
    for (const fate of ["lost", "answer-lost"] as const) {
      for (let at = 1; at <= 3 * count + 1; at += 1) {
        let [asked, down] = [0, false];
        const group = await unlockedDevice(realms, threshold, unlocked, (): Fate => {
          asked += 1;
          if (down) return "lost";
          down = asked === at;
          return down ? fate : "done";
        });
        const failure = await refreshShares(group).then(
          () => undefined,
          (error: unknown) => error,
        );
        const where = `${fate} at ${at} of ${asked}`;
        assert.ok(await anyGive(realms, threshold, unlocked), where);
        if (!failure) continue;
        stoppedAtAll += 1;
        assert.ok(failure instanceof RealmsFailed && failure.realms("unreachable").length > 0);
        const again = await recovered(realms.slice(0, threshold), threshold);
        assert.equal(again.unlocked.thumbprint, unlocked.thumbprint, where);
      }
    }
    assert.equal(stoppedAtAll, 2 * 3 * count);
    // Afterwards it goes through, and nothing of what was begun is left.
    await refreshShares(await unlockedDevice(realms, threshold, unlocked));
    for (const keeper of realms) assert.equal((await keeper.shares()).length, 1);
    // The control: the same check finds out who overwrites one share after the other.
    let puts = 0;
    const group = await unlockedDevice(realms, threshold, unlocked, (_, { method }): Fate => {
      if (method === "PUT") puts += 1;
      return puts > 1 ? "lost" : "done";
    });
    await assert.rejects(naive(group, unlocked, realms));
    assert.equal(await anyGive(realms, threshold, unlocked), false);
  });
}

test("a realm is replaced, and the threshold raised; a damaged share is mended", async () => {
  const [realms, unlocked] = [await keepers(4), await Unlocked.create()];
  await refreshShares(await unlockedDevice(realms.slice(0, 3), 2, unlocked));
  const others = [realms[0]!, realms[2]!, realms[3]!];
  const group = await unlockedDevice(others, 2, unlocked);
  await refreshShares(group, { threshold: 3 });
  await assert.rejects(recovered(others.slice(0, 2), 2), { code: "too-few-shares" });
  assert.equal((await recovered(others, 2)).unlocked.thumbprint, unlocked.thumbprint);
  realms[0]!.stored = { version: 77, content: "bm8" };
  assert.deepEqual(await refreshShares(group), { version: 3, wrong: ["a.example"] });
  assert.ok(await anyGive(others, 2, unlocked));
});

test("a realm that is put back to an older share is told from one that lies", async () => {
  const [realms, unlocked] = [await keepers(3), await Unlocked.create()];
  const group = await unlockedDevice(realms, 2, unlocked);
  await refreshShares(group);
  const before = realms[1]!.stored;
  await refreshShares(group);
  realms[1]!.stored = before;
  const { answers, version } = await recover(await device(realms, 2), signIn);
  assert.deepEqual(
    [version, ...answers.map(({ outcome }) => outcome)],
    [2, "done", "other-set", "done"],
  );
});

test("a group that has nothing open splits nothing, and enrols once", async () => {
  const realms = await keepers(2);
  const group = await device(realms, 2);
  await assert.rejects(refreshShares(group), { code: "locked" });
  assert.equal(await groupEnrolmentPending(group), false);
  const enrolled = await unlockedDevice(realms, 2, await Unlocked.create());
  await assert.rejects(enrolAtAll(enrolled), { code: "already-enrolled" });
  await forgetGroup(enrolled);
  assert.throws(() => unlockedOf(enrolled), { code: "locked" });
  assert.deepEqual(await enrolled.custodies[0]!.storage.list(""), []);
});
