/** The queue of changes: what waits, what a session may not send, conflicts of two devices. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fromUtf8, utf8 } from "../src/bytes.js";
import { keepAccount } from "../src/custody.js";
import { dropLost, lostVersions } from "../src/offline/changes.js";
import { loadSecret, saveSecret } from "../src/offline/queue.js";
import { sync } from "../src/offline/sync.js";
import { FakeDaemon, problem, type Reply } from "./support/daemon.js";
import { device, type Network, read, Secrets, text } from "./support/devices.js";
import { Realm } from "./support/realm.js";

test("a change made offline waits, is read meanwhile, and goes out", async () => {
  const secrets = new Secrets();
  let network: Network = "down";
  const phone = await device(secrets, () => network);
  await assert.rejects(text(phone), { code: "unreachable" });
  const waiting = await saveSecret(phone, "notes", utf8("one"));
  assert.deepEqual(waiting, { sent: [], waiting: ["notes"], because: "offline", unopened: [] });
  await saveSecret(phone, "notes", utf8("two"));
  assert.deepEqual(await read(phone), { content: utf8("two"), from: "pending" });
  network = "good";
  assert.deepEqual(await sync(phone), {
    sent: ["notes"],
    waiting: [],
    because: undefined,
    unopened: [],
  });
  assert.deepEqual([...secrets.accepted], ["two"]);
  network = "down";
  assert.deepEqual(await read(phone), { content: utf8("two"), from: "copy" });
});

test("that there is no such secret is the daemon's to say: where nobody answers, nothing is made anew", async () => {
  const secrets = new Secrets();
  const laptop = await device(secrets, () => "good");
  await saveSecret(laptop, "notes", utf8("a year of notes"));
  for (const away of ["offline", "busy"]) {
    const daemon = new FakeDaemon(({ method, headers, body }) => {
      if (isAway && away === "busy") return problem(503, "busy");
      if (isAway) throw new TypeError("Failed to fetch");
      return secrets.answer(method, headers, body);
    });
    let isAway = true;
    const phone = await daemon.custody(await Realm.make());
    phone.transport.session = { token: "t", scope: "full" } as never;
    Object.assign(phone, { account: { account: "a-1" }, serverSlot: true });
    const start = async () => {
      if (!(await loadSecret(phone, "notes"))) await saveSecret(phone, "notes", utf8("welcome"));
    };
    await assert.rejects(start(), { code: away === "busy" ? "busy" : "unreachable" });
    isAway = false;
    await sync(phone);
    assert.equal(secrets.text, "a year of notes");
    // The control: what is made without having read replaces it, as the rule says.
    if (away === "offline") continue;
    await saveSecret(phone, "notes", utf8("welcome"));
    assert.equal(secrets.text, "welcome");
  }
  // Where the daemon says it, there is none.
  const other = await device(new Secrets(), () => "good");
  assert.equal(await loadSecret(other, "notes"), undefined);
});

test("before there is an account nothing is kept that nobody would send", async () => {
  const phone = await device(new Secrets(), () => "good");
  const { account } = phone;
  phone.account = undefined;
  await assert.rejects(saveSecret(phone, "notes", utf8("one")), { code: "no-account" });
  assert.deepEqual(await phone.storage.list("queue/"), []);
  // The control: what is kept without a name is found by no account.
  await phone.storage.update([], (update) => {
    update.set("queue//notes", { id: "q", content: utf8("one"), base: undefined, changed: 0 });
  });
  phone.account = account;
  assert.deepEqual((await sync(phone)).sent, []);
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
  assert.deepEqual(await read(phone, "a-diary"), {
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

test("a change of one account is neither read nor sent in another", async () => {
  let network: Network = "down";
  const secrets = new Secrets();
  const phone = await device(secrets, () => network);
  await saveSecret(phone, "notes", utf8("Ann's"));
  await keepAccount(phone, { account: "a-2" });
  network = "good";
  assert.deepEqual(await sync(phone), { sent: [], waiting: [], because: undefined, unopened: [] });
  assert.equal(await text(phone), undefined);
  assert.equal(secrets.stored, undefined);
  await keepAccount(phone, { account: "a-1" });
  assert.deepEqual((await sync(phone)).sent, ["notes"]);
  assert.deepEqual([...secrets.accepted], ["Ann's"]);
});

test("by default what was stored after a change was made stays, by the daemon's clock", async () => {
  for (const [stored, wins] of [
    [-30, "mine"],
    [30, "theirs"],
  ] as const) {
    const secrets = new Secrets();
    const [phone, laptop] = await Promise.all([
      device(secrets, () => "good"),
      device(secrets, () => "good"),
    ]);
    // The daemon is an hour ahead of this device, and says so with its answers.
    const hour = 3600;
    Object.defineProperty(phone.transport, "now", {
      get: () => Math.floor(Date.now() / 1000) + hour,
    });
    await saveSecret(laptop, "notes", utf8("theirs"));
    secrets.updated = Math.floor(Date.now() / 1000) + hour + stored;
    await saveSecret(phone, "notes", utf8("mine"));
    assert.equal(await text(laptop), wins, String(stored));
    assert.equal((await lostVersions(phone)).length, 1);
  }
});

test("a secret that another device has deleted is not made again by default", async () => {
  const secrets = new Secrets();
  const phone = await device(secrets, () => "good");
  await saveSecret(phone, "notes", utf8("one"));
  secrets.stored = undefined;
  await saveSecret(phone, "notes", utf8("two"));
  assert.equal(await text(phone), undefined);
  assert.deepEqual(
    (await lostVersions(phone)).map(({ content }) => fromUtf8(content)),
    ["two"],
  );
  // A rule may say otherwise.
  await saveSecret(phone, "notes", utf8("three"), ({ mine }) => mine.content);
  assert.equal(await text(phone), "three");
});

test("a daemon that can do nothing now is none: what is written waits, and what was read is shown", async () => {
  const secrets = new Secrets();
  let down: Reply | undefined;
  const daemon = new FakeDaemon(({ method, path, headers, body }) => {
    if (down) return down;
    return path.endsWith("/notes")
      ? secrets.answer(method, headers, body)
      : { body: { version: 1 } };
  });
  const phone = await daemon.custody(await Realm.make());
  phone.transport.session = { token: "t", scope: "full" } as never;
  Object.assign(phone, { account: { account: "a-1" }, serverSlot: true });
  await saveSecret(phone, "notes", utf8("one"));
  for (const reply of [
    problem(503, "token-unavailable"),
    problem(503, "busy"),
    { status: 503, body: "" },
    { status: 503, body: { message: "no upstream" } },
  ]) {
    down = reply;
    assert.deepEqual(await read(phone), { content: utf8("one"), from: "copy" });
    const synced = await saveSecret(phone, "other", utf8("two"));
    assert.deepEqual([synced.waiting, synced.because], [["other"], "offline"]);
  }
  // The control: what it found altered is said.
  down = problem(500, "record-tampered");
  await assert.rejects(loadSecret(phone, "notes"), { code: "record-tampered" });
  await assert.rejects(sync(phone), { code: "record-tampered" });
  down = undefined;
  assert.deepEqual((await sync(phone)).sent, ["other"]);
});
