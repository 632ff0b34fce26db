/** An enrolment that waits on here though its account has a way in, or though another account is signed in to: it takes nothing's place. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { random } from "../src/bytes.js";
import { type Custody, keepAccount, lock } from "../src/custody.js";
import { enrol, enrolmentPending } from "../src/enrol.js";
import { setRecoveryCodes } from "../src/factors.js";
import { aesKey, seal } from "../src/keys.js";
import { rotateSecret } from "../src/rotation.js";
import { PENDING, type Pending } from "../src/vault.js";
import { Beginning } from "./support/beginning.js";
import { Safe } from "./support/safe.js";

/** The answer to the first way in was lost, and the enrolment waits on. */
async function leave({ storage }: Custody, { first }: Safe): Promise<void> {
  const key = await aesKey(random(32));
  const sealed = await seal(key, PENDING, first.secret);
  const pending: Pending = { idempotencyKey: "k", key, sealed, wrapped: first.wrapped };
  await storage.update([], (update) => {
    update.set(PENDING, pending);
  });
}

const typesOf = (safe: Safe) =>
  new Set(safe.secrets.get("device-secret")!.slots!.map(({ type }) => type));

for (const rotated of [true, false])
  test(`what waits does not take the place of what ${rotated ? "another device has made since" : "is locked here"}`, async () => {
    for (const factor of ["passkey", "creation"]) {
      const safe = await Safe.make(true);
      const here = await safe.device();
      await safe.opened(here, safe.pin, safe.passkey);
      await leave(here, safe);
      const there = await safe.device();
      const now = await safe.opened(there, safe.pin, safe.passkey);
      if (rotated) await rotateSecret(there);
      lock(here);
      here.transport.session = { ...here.transport.session!, factor };
      const before = safe.secrets.get("device-secret");
      const made = setRecoveryCodes(here);
      if (factor === "creation") {
        // The control: sent in the place of what is there, it leaves no slot of the owner's PIN and passkey.
        await made;
        assert.deepEqual([...typesOf(safe)], ["recovery-code"]);
        continue;
      }
      await assert.rejects(made, { code: "locked" });
      assert.deepEqual(safe.secrets.get("device-secret"), before);
      const fresh = await safe.device();
      assert.equal((await safe.opened(fresh, safe.pin)).thumbprint, now.thumbprint);
      // Unlocked, it makes them beside what is there.
      await safe.opened(here, safe.pin, safe.passkey);
      await setRecoveryCodes(here);
      assert.deepEqual(typesOf(safe), new Set(["opaque", "prf", "recovery-code"]));
    }
  });

test("an enrolment that made no account is not that of the account that is signed in to", async () => {
  for (const [fate, signsIn] of [
    ["lost", true],
    ["answer-lost", true],
    // The control: where nobody has signed in, it goes on.
    ["lost", false],
  ] as const) {
    const service = await Beginning.make();
    service.fate = ({ path }) => (path.endsWith("/accounts") ? fate : "done");
    const custody = await service.open();
    await assert.rejects(enrol(custody), { code: "unreachable" });
    service.fate = () => "done";
    if (signsIn) {
      await keepAccount(custody, { account: "b-9", boundDevice: custody.device.thumbprint });
      assert.equal(await enrolmentPending(custody), false);
      await assert.rejects(enrol(custody), { code: "already-enrolled" });
      assert.equal((await service.open()).account?.account, "b-9");
    } else {
      await enrol(custody);
      assert.deepEqual([service.keys.size, custody.account?.account], [1, "a-1"]);
      assert.equal((await service.open()).account?.account, "a-1");
      assert.equal(await enrolmentPending(await service.open()), true);
    }
  }
});

test("an enrolment does not take the device of an account that another tab has signed in to meanwhile", async () => {
  const service = await Beginning.make();
  const [custody, other] = [await service.open(), await service.open()];
  const request = custody.transport.request.bind(custody.transport);
  custody.transport.request = async (...call: Parameters<typeof request>) => {
    const answer = await request(...call);
    if (call[1].endsWith("/accounts")) await keepAccount(other, { account: "b-9" });
    return answer;
  };
  await assert.rejects(enrol(custody), { code: "other-account" });
  assert.equal(custody.account, undefined);
  assert.equal((await service.open()).account?.account, "b-9");
});
