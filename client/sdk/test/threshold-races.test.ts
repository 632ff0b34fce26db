/** Threshold mode: two devices that make new shares of the same secret at once. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { CustodyError } from "../src/errors.js";
import { Unlocked } from "../src/keys.js";
import { refreshShares } from "../src/threshold/refresh.js";
import { anyGive, type Fate, give, type Keeper, keepers, unlockedDevice } from "./support/group.js";

/** Numbers that a seed gives again. */
function dice(seed: number): (sides: number) => number {
  let state = seed;
  return (sides) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
    return (state >>> 8) % sides;
  };
}

/** Lets devices work at once, one request at a time, in an order that a seed decides. */
class Schedule {
  readonly #waiting: { readonly who: number; readonly go: () => void }[] = [];
  #alive = 0;

  async turn(who: number): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#waiting.push({ who, go: resolve });
    });
  }

  /** Runs them all to their ends; `check` is called whenever a realm has stored something. */
  async run(
    works: (() => Promise<unknown>)[],
    roll: (sides: number) => number,
    realms: readonly Keeper[],
    check: () => Promise<void>,
  ): Promise<void> {
    this.#alive = works.length;
    let checked = "";
    const ends = works.map(async (work) => {
      try {
        await work();
      } catch (error) {
        if (!(error instanceof CustodyError)) throw error;
      } finally {
        this.#alive -= 1;
      }
    });
    const all = Promise.all(ends);
    while (this.#alive > 0) {
      const who = new Set(this.#waiting.map((one) => one.who));
      if (who.size < this.#alive) {
        await new Promise((resolve) => setImmediate(resolve));
        continue;
      }
      const [next] = this.#waiting.splice(roll(this.#waiting.length), 1);
      const now = realms.map(({ stored }) => stored?.version).join();
      if (now !== checked) await check();
      checked = now;
      next?.go();
    }
    await all;
    await check();
  }
}

/** Settles from outside. */
function signal(): { readonly given: Promise<void>; readonly give: () => void } {
  let give: () => void = () => undefined;
  const given = new Promise<void>((resolve) => {
    give = resolve;
  });
  return { given, give };
}

test("a device that overtakes another at any point, and is overtaken in turn, leaves some set whole", async () => {
  // All of three: so there is always one set that every realm holds.
  const threshold = 3;
  const [realms, unlocked] = [await keepers(3), await Unlocked.create()];
  await refreshShares(await unlockedDevice(realms, threshold, unlocked));
  const holds = async (where: string) => {
    assert.ok(await anyGive(realms, threshold, unlocked), where);
  };
  for (let at = 3; at <= 9; at += 1) {
    for (let then = 4; then <= 9; then += 1) {
      const where = `at ${at}, then at ${then}`;
      const [paused, firstEnded] = [signal(), signal()];
      let asked = 0;
      const other = await unlockedDevice(realms, threshold, unlocked, async () => {
        asked += 1;
        if (asked !== then) return "done" as const;
        paused.give();
        await firstEnded.given;
        return "done" as const;
      });
      let overtaking: Promise<unknown> | undefined;
      let requests = 0;
      const first = await unlockedDevice(realms, threshold, unlocked, async () => {
        requests += 1;
        if (requests !== at) return "done" as const;
        overtaking = refreshShares(other).catch((error: unknown) => error);
        await Promise.race([paused.given, overtaking]);
        await holds(where);
        return "done" as const;
      });
      await refreshShares(first).catch((error: unknown) => error);
      await holds(where);
      firstEnded.give();
      await overtaking;
      await holds(where);
    }
  }
});

test("two devices that refresh at once, with whatever network, leave some set whole", async () => {
  let finished = 0;
  for (let seed = 1; seed <= 10; seed += 1) {
    const roll = dice(seed);
    const count = 3 + roll(2);
    const threshold = 2 + roll(count - 1);
    const [realms, unlocked] = [await keepers(count), await Unlocked.create()];
    await refreshShares(await unlockedDevice(realms, threshold, unlocked));
    const schedule = new Schedule();
    const works = await Promise.all(
      [0, 1].map(async (who) => {
        let down = false;
        const group = await unlockedDevice(realms, threshold, unlocked, async (): Promise<Fate> => {
          await schedule.turn(who);
          if (down) return "lost";
          const luck = roll(40);
          down = luck < 2;
          return luck === 0 ? "lost" : luck === 1 ? "answer-lost" : "done";
        });
        return async () => {
          for (let times = 0; times < 2; times += 1) {
            await refreshShares(group);
            finished += 1;
          }
        };
      }),
    );
    await schedule.run(works, roll, realms, async () => {
      assert.ok(await anyGive(realms, threshold, unlocked), `seed ${seed}`);
    });
  }
  assert.ok(finished > 3, `${finished}`);
});

test("devices that move to other realms at once leave some set whole", async () => {
  for (let seed = 1; seed <= 10; seed += 1) {
    const roll = dice(seed);
    const threshold = 2 + roll(2);
    const [realms, unlocked] = [await keepers(5), await Unlocked.create()];
    await refreshShares(await unlockedDevice(realms.slice(0, 4), threshold, unlocked));
    const schedule = new Schedule();
    const works = await Promise.all(
      [0, 1].map(async (who) => {
        const some = realms.filter(() => roll(4) > 0);
        const group = await unlockedDevice(
          some.length < threshold ? realms : some,
          threshold,
          unlocked,
          async (): Promise<Fate> => {
            await schedule.turn(who);
            return roll(30) === 0 ? "answer-lost" : "done";
          },
        );
        return () => refreshShares(group);
      }),
    );
    await schedule.run(works, roll, realms, async () => {
      assert.ok(await give(realms, unlocked), `seed ${seed}`);
    });
  }
});
