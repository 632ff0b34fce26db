/** Requests: nonces, proofs, and what an answer that is none becomes. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { advice } from "../src/advice.js";
import {
  Exhausted,
  MustWait,
  SessionOver,
  StepUpRequired,
  Unreachable,
  VersionConflict,
  WrongGuess,
} from "../src/errors.js";
import { viewAccount } from "../src/account.js";
import { signInWithPin } from "../src/sign-in.js";
import { putSecret } from "../src/secrets.js";
import { sha256, toBase64Url, utf8 } from "../src/bytes.js";
import { FakeDaemon, problem, type Reply } from "./support/daemon.js";
import { Realm } from "./support/realm.js";

async function refusedWith(reply: Reply): Promise<unknown> {
  const custody = await new FakeDaemon(() => reply).custody(await Realm.make());
  return signInWithPin(custody, "830517", { account: "a", onServer: true }).then(
    () => assert.fail("it was not refused"),
    (error: unknown) => error,
  );
}

test("a missing nonce is learnt and the request sent once more, with a new proof", async () => {
  const daemon = new FakeDaemon(({ claims }) =>
    claims["nonce"] === "n-2"
      ? { body: { app: "notes" } }
      : { ...problem(401, "use-dpop-nonce"), nonce: "n-2" },
  );
  const custody = await daemon.custody(await Realm.make());
  custody.transport.session = { token: "t-1" } as never;
  assert.deepEqual(await viewAccount(custody), { app: "notes" });
  assert.equal(daemon.asked.length, 2);
  const [first, second] = daemon.asked;
  assert.notEqual(first!.claims["jti"], second!.claims["jti"]);
  assert.equal(second!.headers.get("Authorization"), "DPoP t-1");
  assert.equal(second!.claims["ath"], toBase64Url(await sha256(utf8("t-1"))));
  assert.equal(second!.claims["htu"], "https://c.example/v1/account");
});

test("a nonce that is never right ends", async () => {
  const daemon = new FakeDaemon(() => ({ ...problem(401, "use-dpop-nonce"), nonce: "n" }));
  const custody = await daemon.custody(await Realm.make());
  await assert.rejects(viewAccount(custody), { code: "use-dpop-nonce" });
  assert.equal(daemon.asked.length, 2);
});

test("a device whose clock is wrong learns the daemon's time, and the request is sent once more", async () => {
  const date = new Date(Date.now() + 3_600_000);
  const right = (iat: unknown): boolean => Math.abs(Number(iat) - date.getTime() / 1000) < 5;
  const daemon = new FakeDaemon(({ claims }) =>
    right(claims["iat"])
      ? { body: { app: "notes" }, date }
      : { ...problem(401, "dpop-invalid"), date },
  );
  const custody = await daemon.custody(await Realm.make());
  assert.deepEqual(await viewAccount(custody), { app: "notes" });
  assert.deepEqual(await viewAccount(custody), { app: "notes" });
  assert.deepEqual(
    daemon.asked.map(({ claims }) => right(claims["iat"])),
    [false, true, true],
  );
});

test("a proof that is refused for another reason is not sent again", async () => {
  const daemon = new FakeDaemon(() => ({ ...problem(401, "dpop-invalid"), date: new Date() }));
  const custody = await daemon.custody(await Realm.make());
  await assert.rejects(viewAccount(custody), { code: "dpop-invalid" });
  assert.equal(daemon.asked.length, 1);
});

test("a proof covers exactly the bytes that are sent, and paths are encoded", async () => {
  const daemon = new FakeDaemon(() => ({ body: { version: 4 } }));
  const custody = await daemon.custody(await Realm.make());
  Object.assign(custody, { account: { account: "a-1" }, serverSlot: true });
  assert.equal(await putSecret(custody, "a/b?c", utf8("x"), 3), 4);
  const [asked] = daemon.asked;
  assert.equal(asked!.path, "/v1/account/secrets/a%2Fb%3Fc");
  assert.equal(asked!.headers.get("If-Match"), '"3"');
  assert.equal(asked!.claims["body_sha256"], toBase64Url(await sha256(utf8(asked!.body!))));
});

test("no answer is Unreachable, and nothing is sent twice", async () => {
  let calls = 0;
  const custody = await new FakeDaemon(() => {
    calls += 1;
    throw new TypeError("Failed to fetch");
  }).custody(await Realm.make());
  Object.assign(custody, { account: { account: "a-1" }, serverSlot: true });
  await assert.rejects(putSecret(custody, "a", utf8("x"), undefined), Unreachable);
  assert.equal(calls, 1);
});

test("a page of somebody else's is not the daemon's word", async () => {
  assert.ok(
    (await refusedWith({ status: 200, body: "<html>Log in to the hotel</html>" })) instanceof
      Unreachable,
  );
  assert.ok(
    (await refusedWith({ status: 502, body: "<html>Bad gateway</html>" })) instanceof Unreachable,
  );
  assert.ok((await refusedWith({ status: 503, body: "" })) instanceof Unreachable);
  assert.ok((await refusedWith({ status: 400, body: { error: "?" } })) instanceof Unreachable);
});

test("each refusal has its type, and says what it knows", async () => {
  const wrong = await refusedWith(
    problem(401, "pin-wrong", { attempts_left: 3, exhausted: false }),
  );
  assert.ok(wrong instanceof WrongGuess);
  assert.deepEqual([wrong.attemptsLeft, wrong.exhausted, wrong.retryAt], [3, false, undefined]);
  assert.equal(advice(wrong), "That is not right. 3 tries are left.");
  const last = await refusedWith(problem(401, "pin-wrong", { attempts_left: 0, exhausted: true }));
  assert.match(advice(last), /last try/);
  const before = Date.now();
  const wait = await refusedWith(problem(429, "pin-wait", { retry_after: 290 }));
  assert.ok(wait instanceof MustWait && wait.retryAt);
  const from = wait.retryAt.getTime() - 290_000;
  assert.ok(before <= from && from <= Date.now());
  assert.equal(advice(wait), "Too soon. Wait 5 minutes, then try again.");
  assert.ok((await refusedWith(problem(403, "pin-exhausted"))) instanceof Exhausted);
  assert.ok((await refusedWith(problem(401, "session-expired"))) instanceof SessionOver);
  const step = await refusedWith(
    problem(403, "step-up-required", { need_at_least: "pin", need_fresh: true }),
  );
  assert.ok(step instanceof StepUpRequired && step.needAtLeast === "pin" && step.needFresh);
  const stale = await refusedWith(problem(412, "precondition-failed", { current_version: 9 }));
  assert.ok(stale instanceof VersionConflict && stale.currentVersion === 9);
  for (const error of [
    wrong,
    last,
    wait,
    step,
    stale,
    await refusedWith(problem(503, "busy")),
    new Error("x"),
  ]) {
    assert.ok(advice(error).length > 10);
  }
});

test("what a daemon makes up is neither a time nor a sentence", async () => {
  for (const more of [{ retry_after: 1e300 }, { wait_until: -1e300 }]) {
    const wait = await refusedWith(problem(429, "pin-wait", more));
    assert.ok(wait instanceof MustWait && wait.retryAt === undefined);
    assert.equal(advice(wait), "Too soon. Wait a while, then try again.");
  }
  for (const code of ["constructor", "toString", "__proto__"]) {
    const odd = await refusedWith(problem(400, code));
    assert.equal(advice(odd), `Something went wrong (${code}). Try again.`);
  }
});
