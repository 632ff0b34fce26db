/** The queue of changes: two devices, a network that fails in every way, and nothing lost. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fromBase64Url, fromUtf8, utf8 } from "../src/bytes.js";
import type { Custody } from "../src/custody.js";
import {
  loadSecret,
  lostVersions,
  pendingChanges,
  saveSecret,
  sync,
  dropLost,
} from "../src/offline/queue.js";
import { openContent } from "../src/slots.js";
import { FakeDaemon, problem, type Reply } from "./support/daemon.js";
import { Realm } from "./support/realm.js";

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

interface Sealed {
  readonly sealed: string;
  readonly slots: [];
  readonly server_slot: string;
}

const place = { realm: "test.example", app: "notes", account: "a-1", name: "notes" };

/** The daemon's secrets: versions, and preconditions on them. */
class Secrets {
  stored: { version: number; body: Sealed } | undefined;
  /** Every content that was ever accepted. */
  readonly accepted = new Set<string>();
  #next = 1;

  async answer(method: string, headers: Headers, body: string | undefined): Promise<Reply> {
    if (method === "GET") {
      const { stored } = this;
      if (!stored) return problem(404, "not-found");
      return { body: { version: stored.version, updated: 0, ...stored.body } };
    }
    const expected = headers.get("If-None-Match") === "*" ? undefined : headers.get("If-Match");
    const current = this.stored ? `"${this.stored.version}"` : undefined;
    if (expected !== current) {
      return problem(412, "precondition-failed", { current_version: this.stored?.version ?? null });
    }
    const sent = JSON.parse(body ?? "{}") as Sealed;
    const version = this.#next;
    this.stored = { version, body: sent };
    this.#next += 1;
    const [key, sealed] = [fromBase64Url(sent.server_slot)!, fromBase64Url(sent.sealed)!];
    this.accepted.add(fromUtf8((await openContent(place, key, sealed))!));
    return { body: { version } };
  }
}

type Network = "good" | "down" | "answer-lost";

/** A device with a network of its own. */
async function device(secrets: Secrets, network: () => Network): Promise<Custody> {
  const daemon = new FakeDaemon(async ({ method, headers, body }) => {
    const now = network();
    if (now === "down") throw new TypeError("Failed to fetch");
    const reply = await secrets.answer(method, headers, body);
    if (now === "answer-lost") throw new TypeError("Failed to fetch");
    return reply;
  });
  const custody = await daemon.custody(await Realm.make());
  custody.transport.session = { token: "t", scope: "full" } as never;
  custody.account = { account: "a-1" };
  custody.serverSlot = true;
  return custody;
}

async function text(custody: Custody): Promise<string | undefined> {
  const known = await loadSecret(custody, "notes");
  return known && fromUtf8(known.content);
}

test("a change made offline waits, is read meanwhile, and goes out", async () => {
  const secrets = new Secrets();
  let network: Network = "down";
  const phone = await device(secrets, () => network);
  assert.equal(await text(phone), undefined);
  const waiting = await saveSecret(phone, "notes", utf8("one"));
  assert.deepEqual(waiting, { sent: [], waiting: ["notes"], because: "offline", unopened: [] });
  await saveSecret(phone, "notes", utf8("two"));
  assert.deepEqual(await loadSecret(phone, "notes"), { content: utf8("two"), from: "pending" });
  network = "good";
  assert.deepEqual(await sync(phone), {
    sent: ["notes"],
    waiting: [],
    because: undefined,
    unopened: [],
  });
  assert.deepEqual([...secrets.accepted], ["two"]);
  network = "down";
  assert.deepEqual(await loadSecret(phone, "notes"), { content: utf8("two"), from: "copy" });
});

test("without a full session nothing is sent, and nothing is lost", async () => {
  const phone = await device(new Secrets(), () => "good");
  phone.transport.session = undefined;
  const synced = await saveSecret(phone, "notes", utf8("one"));
  assert.deepEqual(synced, { sent: [], waiting: ["notes"], because: "sign-in", unopened: [] });
});

test("what a session may not change waits for one that may, and holds nothing else back", async () => {
  const secrets = new Secrets();
  const lacks = { need_at_least: "pin", need_fresh: false, need_one_of: ["pin"] };
  const daemon = new FakeDaemon(({ method, path, headers, body }) => {
    if (path.endsWith("/a-diary") && weak) {
      // Another device has written it, which this session may not read either.
      if (method === "GET") return problem(403, "release-forbidden");
      return isStale
        ? problem(412, "precondition-failed")
        : problem(403, "step-up-required", lacks);
    }
    return path.endsWith("/notes")
      ? secrets.answer(method, headers, body)
      : { body: { version: 1 } };
  });
  let [weak, isStale] = [true, false];
  const phone = await daemon.custody(await Realm.make());
  phone.transport.session = { token: "t", scope: "full" } as never;
  Object.assign(phone, { account: { account: "a-1" }, serverSlot: true });
  const first = await saveSecret(phone, "a-diary", utf8("private"));
  assert.deepEqual(first, { sent: [], waiting: ["a-diary"], because: "step-up", unopened: [] });
  isStale = true;
  const both = await saveSecret(phone, "notes", utf8("milk"));
  assert.deepEqual(both, {
    sent: ["notes"],
    waiting: ["a-diary"],
    because: "step-up",
    unopened: [],
  });
  assert.deepEqual(await loadSecret(phone, "a-diary"), {
    content: utf8("private"),
    from: "pending",
  });
  weak = false;
  assert.deepEqual(await sync(phone), {
    sent: ["a-diary"],
    waiting: [],
    because: undefined,
    unopened: [],
  });
});

test("what another device has written and does not open here waits by itself, and is named", async () => {
  const secrets = new Secrets();
  // Sealed for nobody that this device knows, as an operator's mistake or a lie may leave it.
  const strange = { version: 9, updated: 0, sealed: "AAAA", slots: [], server_slot: "AAAA" };
  let isThere = true;
  const daemon = new FakeDaemon(({ method, path, headers, body }) => {
    if (path.endsWith("/notes")) return secrets.answer(method, headers, body);
    if (!isThere) return { body: { version: 10 } };
    return method === "GET" ? { body: strange } : problem(412, "precondition-failed");
  });
  const phone = await daemon.custody(await Realm.make());
  phone.transport.session = { token: "t", scope: "full" } as never;
  Object.assign(phone, { account: { account: "a-1" }, serverSlot: true });
  await saveSecret(phone, "a-diary", utf8("private"));
  const both = await saveSecret(phone, "notes", utf8("milk"));
  assert.deepEqual([both.sent, both.waiting, both.because], [["notes"], ["a-diary"], undefined]);
  assert.deepEqual(
    both.unopened.map(({ name, error }) => [name, error.code]),
    [["a-diary", "secret-damaged"]],
  );
  assert.deepEqual((await loadSecret(phone, "a-diary"))?.content, utf8("private"));
  isThere = false;
  assert.deepEqual((await sync(phone)).sent, ["a-diary"]);
});

test("a write whose answer was lost is recognised as one's own", async () => {
  const secrets = new Secrets();
  let network: Network = "answer-lost";
  const phone = await device(secrets, () => network);
  await saveSecret(phone, "notes", utf8("one"));
  network = "good";
  assert.deepEqual((await sync(phone)).sent, ["notes"]);
  assert.deepEqual(await lostVersions(phone), []);
  assert.equal(secrets.stored?.version, 1);
});

test("an app's own rule decides a conflict, and what lost is kept", async () => {
  const secrets = new Secrets();
  const [phone, laptop] = [
    await device(secrets, () => "good"),
    await device(secrets, () => "good"),
  ];
  await saveSecret(laptop, "notes", utf8("theirs"));
  await saveSecret(phone, "notes", utf8("mine"), ({ mine, theirs }) =>
    utf8(`${fromUtf8(theirs!.content)}+${fromUtf8(mine.content)}`),
  );
  assert.equal(await text(laptop), "theirs+mine");
  const [lost] = await lostVersions(phone);
  assert.deepEqual(lost && fromUtf8(lost.content), "theirs");
  await dropLost(phone, lost!);
  assert.deepEqual(await lostVersions(phone), []);
  await saveSecret(laptop, "notes", utf8("again"));
  await saveSecret(phone, "notes", utf8("late"), () => "theirs");
  assert.equal(await text(phone), "again");
  assert.equal(fromUtf8((await lostVersions(phone))[0]!.content), "late");
});

test("whatever happens in whatever order, devices agree in the end and no change is lost", async () => {
  for (let seed = 1; seed <= 60; seed += 1) {
    const roll = dice(seed);
    const secrets = new Secrets();
    const networks: Network[] = ["good", "good"];
    const devices = [
      await device(secrets, () => networks[0]!),
      await device(secrets, () => networks[1]!),
    ];
    const rules = [
      () => "theirs" as const,
      ({ mine }: { mine: { content: ReturnType<typeof utf8> } }) => mine.content,
    ];
    /** What a device wrote last, which nothing on that device has replaced. */
    const written = ["", ""];
    for (let step = 0; step < 25; step += 1) {
      const who = roll(2);
      const custody = devices[who]!;
      networks[who] = (["good", "good", "down", "answer-lost"] as const)[roll(4)]!;
      if (roll(3) === 0) {
        await sync(custody, rules[roll(2)]);
      } else {
        written[who] = `${who}:${step}`;
        await saveSecret(custody, "notes", utf8(written[who]), rules[roll(2)]);
      }
      const pending = await pendingChanges(custody);
      const lost = (await lostVersions(custody)).map(({ content }) => fromUtf8(content));
      const kept =
        secrets.accepted.has(written[who]!) || lost.includes(written[who]!) || pending.length > 0;
      assert.ok(
        written[who] === "" || kept,
        `seed ${seed}, step ${step}: ${written[who]!} is nowhere`,
      );
    }
    networks.fill("good");
    for (const custody of devices)
      assert.deepEqual((await sync(custody)).waiting, [], `seed ${seed}`);
    assert.equal(await text(devices[0]!), await text(devices[1]!), `seed ${seed}`);
    // What somebody had stored and another overwrote in a conflict is on one of the devices.
    const losers = await Promise.all(devices.map(lostVersions));
    for (const { content } of losers.flat()) assert.notEqual(content.length, 0);
  }
});
