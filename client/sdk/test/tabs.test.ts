/** Several tabs of several devices that change one secret, on a network that fails in every way: nothing is lost. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fromUtf8, utf8 } from "../src/bytes.js";
import type { Custody } from "../src/custody.js";
import { Unreachable } from "../src/errors.js";
import { lostVersions, type Queued, type Rule } from "../src/offline/changes.js";
import { loadSecret, saveSecret } from "../src/offline/queue.js";
import { sync } from "../src/offline/sync.js";
import { device, type Network, Secrets, text } from "./support/devices.js";

/** Numbers that a seed gives again. */
function dice(seed: number): (sides: number) => number {
  let state = seed;
  return (sides) => {
    // mulberry32
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % sides;
  };
}

/** Two tabs of one device, which have both read the same version. */
async function tabs(secrets: Secrets, network: () => Network = () => "good") {
  const first = await device(secrets, network);
  await saveSecret(first, "notes", utf8("v1"));
  const second = await device(secrets, network, first.storage);
  assert.deepEqual([await text(first), await text(second)], ["v1", "v1"]);
  return [first, second] as const;
}

const both: Rule = ({ mine, theirs }) =>
  utf8(`${theirs ? fromUtf8(theirs.content) : "-"}+${fromUtf8(mine.content)}`);

test("a tab that has not read what another wrote is in conflict with it", async () => {
  const secrets = new Secrets();
  const [first, second] = await tabs(secrets);
  await saveSecret(first, "notes", utf8("v1 first"));
  await saveSecret(second, "notes", utf8("v1 second"), both);
  assert.equal(await text(first), "v1 first+v1 second");
  // What came of it is not what either has read: only now is it.
  assert.equal(await text(second), "v1 first+v1 second");
  await saveSecret(second, "notes", utf8("v3"), both);
  assert.equal(await text(first), "v3");
  assert.deepEqual(
    (await lostVersions(first)).map(({ content }) => fromUtf8(content)),
    ["v1 first"],
  );
});

test("what a tab has queued is not replaced by one that has not read it", async () => {
  let network: Network = "good";
  const secrets = new Secrets();
  const [first, second] = await tabs(secrets, () => network);
  network = "down";
  await saveSecret(first, "notes", utf8("v1 first"));
  await saveSecret(first, "notes", utf8("v1 first, twice"));
  assert.deepEqual(await lostVersions(first), []);
  await saveSecret(second, "notes", utf8("v1 second"), both);
  assert.equal(await text(second), "v1 first, twice+v1 second");
  network = "good";
  await sync(first);
  assert.deepEqual([...secrets.accepted], ["v1", "v1 first, twice+v1 second"]);
});

test("without a rule the later tab wins, and the earlier change is kept", async () => {
  let network: Network = "good";
  const [first, second] = await tabs(new Secrets(), () => network);
  network = "down";
  await saveSecret(first, "notes", utf8("first"));
  await saveSecret(second, "notes", utf8("second"));
  assert.equal(await text(first), "second");
  assert.deepEqual(
    (await lostVersions(first)).map(({ content }) => fromUtf8(content)),
    ["first"],
  );
});

test("of two reads in one tab, the one that is changed says what the change is based on", async () => {
  const [first, second] = await tabs(new Secrets());
  const early = (await loadSecret(second, "notes"))!;
  await saveSecret(first, "notes", utf8("v2"));
  await loadSecret(second, "notes");
  await saveSecret(second, "notes", utf8("of v1"), both, early.base);
  assert.equal(await text(first), "v2+of v1");
});

/** What a tab shows then: what it showed, where nobody answers and there is no copy. */
async function reading(tab: Custody, before: string): Promise<string> {
  try {
    return (await text(tab)) ?? "";
  } catch (error) {
    if (!(error instanceof Unreachable)) throw error;
    return before;
  }
}

test("whatever happens in whatever order, devices agree in the end and no change is lost", async () => {
  let conflicts = 0;
  for (let seed = 1; seed <= 60; seed += 1) {
    const roll = dice(seed);
    const secrets = new Secrets();
    const networks: Network[] = ["good", "good"];
    const [phone, laptop] = [
      await device(secrets, () => networks[0]!),
      await device(secrets, () => networks[1]!),
    ];
    // Two tabs of each.
    const all: Custody[] = [];
    for (const [at, { storage }] of [phone, laptop, phone, laptop].entries()) {
      all.push(await device(secrets, () => networks[at % 2]!, storage));
    }
    const rules: Rule[] = [
      () => "theirs",
      ({ mine }) => mine.content,
      ({ mine, theirs }) =>
        utf8(`${theirs ? fromUtf8(theirs.content) : ""} ${fromUtf8(mine.content)}`),
    ];
    /** What each tab shows: it writes a word more, and takes none away. */
    const shown = all.map(() => "");
    const words: string[] = [];
    for (let step = 0; step < 25; step += 1) {
      const who = roll(4);
      const tab = all[who]!;
      networks[who % 2] = (["good", "good", "down", "answer-lost"] as const)[roll(4)]!;
      const rule = rules[roll(3)]!;
      const what = roll(4);
      if (what === 0) await sync(tab, rule);
      else if (what === 1) shown[who] = await reading(tab, shown[who]!);
      else {
        const word = `${who}:${step}`;
        words.push(word);
        shown[who] = `${shown[who]!} ${word}`;
        await saveSecret(tab, "notes", utf8(shown[who]), rule);
      }
      const found = new Set(secrets.text.split(" "));
      for (const { storage } of [phone, laptop]) {
        for (const [, value] of [
          ...(await storage.list("queue/")),
          ...(await storage.list("lost/")),
        ]) {
          const { content, aside = [] } = value as Queued;
          for (const one of [content, ...aside.map((other) => other.content)])
            for (const word of fromUtf8(one).split(" ")) found.add(word);
        }
      }
      const gone = words.filter((word) => !found.has(word));
      assert.deepEqual(gone, [], `seed ${seed}, step ${step}: nowhere any more`);
    }
    networks.fill("good");
    for (const tab of all) assert.deepEqual((await sync(tab)).waiting, [], `seed ${seed}`);
    for (const tab of all) assert.equal((await text(tab)) ?? "", secrets.text, `seed ${seed}`);
    conflicts += (await lostVersions(phone)).length + (await lostVersions(laptop)).length;
  }
  assert.ok(conflicts > 100, "the control: there were conflicts to lose something in");
});
