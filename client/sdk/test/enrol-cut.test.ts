/**
 * Where the daemon has the backup's key, an enrolment that is cut off before its first way in goes on: within ten minutes in the
 * account that was made, later in another one for the same key.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Custody, lock } from "../src/custody.js";
import { enrol, enrolmentPending } from "../src/enrol.js";
import { addPasskey, codesPending, confirmTotp, setPin, setRecoveryCodes } from "../src/factors.js";
import { rotateSecret, rotationPending, rotationSeen } from "../src/rotation.js";
import { unlock } from "../src/secrets.js";
import { Beginning, plugIn } from "./support/beginning.js";

plugIn();

/** Each way in that may be an account's first, and the call that makes it. */
const WAYS: Readonly<Record<string, readonly [string, (custody: Custody) => Promise<unknown>]>> = {
  "a PIN": ["/opaque/finish", (custody) => setPin(custody, "830517")],
  "a PIN that the daemon checks": [
    "/v1/account/pin",
    (custody) => setPin(custody, "830517", { onServer: true }),
  ],
  "recovery codes": ["/recovery-codes", setRecoveryCodes],
  "a passkey without PRF": ["/v1/account/passkeys", (custody) => addPasskey(custody)],
  "an authenticator app": ["/totp/confirm", (custody) => confirmTotp(custody, "123456")],
};

/** It has a way in, and the backup brings the one key back. */
async function demandWhole(custody: Custody, service: Beginning, what: string): Promise<void> {
  assert.equal(await enrolmentPending(custody), false, what);
  const { factors } = service.accounts.get(custody.account?.account ?? "")!;
  assert.equal(factors.size, 1, what);
  lock(custody);
  assert.deepEqual([...service.keys], [(await unlock(custody)).thumbprint], what);
}

for (const [way, [last, make]] of Object.entries(WAYS)) {
  test(`until there is ${way}, an enrolment that is cut off anywhere goes on with the same key`, async () => {
    for (const fate of ["lost", "answer-lost"] as const) {
      for (const isLate of [false, true]) {
        for (let cut = 0; ; cut += 1) {
          const service = await Beginning.make();
          const asked: string[] = [];
          service.fate = ({ path }) => {
            asked.push(path);
            return asked.length > cut ? fate : "done";
          };
          const first = await service.open();
          const whole = async () => {
            await enrol(first);
            await make(first);
          };
          const error = await whole().then(
            () => undefined,
            (error: unknown) => error as { code?: string },
          );
          const what = `${fate} at ${asked.at(-1) ?? ""}, ${isLate ? "later" : "at once"}`;
          service.fate = () => "done";
          if (!error) {
            assert.ok(asked.length > 3, "it was cut off at each step");
            await demandWhole(first, service, what);
            break;
          }
          assert.equal(error.code, "unreachable", what);
          if (isLate) service.later();
          // The page is loaded again.
          const custody = await service.open();
          assert.equal(await enrolmentPending(custody), true, what);
          const hasComeAbout = fate === "answer-lost" && asked.at(-1)?.endsWith(last);
          if (isLate && hasComeAbout && way !== "recovery codes") {
            // The account is not left, and its owner comes in by what it has.
            await assert.rejects(enrol(custody), { code: "already-enrolled" }, what);
            service.signIn(custody, "known");
          } else {
            // Codes that nobody has seen let nobody in.
            await enrol(custody);
            assert.equal(await enrolmentPending(custody), true, what);
            await make(custody);
          }
          await demandWhole(custody, service, what);
        }
      }
    }
  });
}

test("a PIN by a session that may not read the backup is a way in, too", async () => {
  const service = await Beginning.make();
  const custody = await service.open();
  await enrol(custody);
  service.isKept = true;
  assert.equal((await setPin(custody, "830517")).slot, "missing");
  service.isKept = false;
  await demandWhole(custody, service, "kept");
});

test("another device secret, whose codes are the first way in, is what counts from then on", async () => {
  const service = await Beginning.make();
  const custody = await service.open();
  await enrol(custody);
  await rotateSecret(custody);
  await demandWhole(custody, service, "rotated");
  const { size } = service.accounts;
  await assert.rejects(enrol(await service.open()), { code: "already-enrolled" });
  assert.equal(service.accounts.size, size);
});

test("a confirmed contact, which codes are delivered to, is a way in", async () => {
  for (const confirmed of [1, null]) {
    const service = await Beginning.make();
    await enrol(await service.open());
    service.claims = [confirmed];
    service.later();
    const custody = await service.open();
    if (confirmed === null) {
      // The control: by a claim nobody comes in, and the key goes on with another account.
      await enrol(custody);
      assert.deepEqual([service.accounts.size, service.keys.size], [2, 1]);
      continue;
    }
    await assert.rejects(enrol(custody), { code: "already-enrolled" });
    assert.equal(service.accounts.size, 1);
    assert.equal(await enrolmentPending(custody), false);
  }
});

test("codes of a rotation that nobody has seen are no way in; the control: those that were seen are", async () => {
  for (const isSeen of [false, true]) {
    const service = await Beginning.make();
    const custody = await service.open();
    await enrol(custody);
    service.fate = ({ path }) => (path.endsWith("/recovery-codes") ? "answer-lost" : "done");
    await assert.rejects(rotateSecret(custody), { code: "unreachable" });
    service.fate = () => "done";
    if (isSeen) await rotationSeen(custody);
    service.later();
    const again = await service.open();
    if (isSeen) {
      await assert.rejects(enrol(again), { code: "already-enrolled" });
      assert.equal(service.accounts.size, 1);
      continue;
    }
    await enrol(again);
    assert.deepEqual([service.accounts.size, service.keys.size], [2, 1]);
    assert.deepEqual([await rotationPending(again), await codesPending(again)], [false, false]);
    await setPin(again, "830517");
    await demandWhole(again, service, "rotated, and not seen");
  }
});
