/** An enrolment that waits on here though its account has a way in, or though another account is signed in to: it takes nothing's place. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { random } from "../src/bytes.js";
import { type Custody, lock } from "../src/custody.js";
import { setRecoveryCodes } from "../src/factors.js";
import { aesKey, seal } from "../src/keys.js";
import { rotateSecret } from "../src/rotation.js";
import { PENDING, type Pending } from "../src/vault.js";
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
