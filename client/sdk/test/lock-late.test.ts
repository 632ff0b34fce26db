/** `lock`, and a sign-in after it, while a change of before is on its way: that ends, and what the sign-in has opened stays open. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Custody, lock } from "../src/custody.js";
import { setRecoveryCodes } from "../src/factors.js";
import type { Unlocked } from "../src/keys.js";
import { rotateSecret } from "../src/rotation.js";
import { Safe } from "./support/safe.js";

/** Does it once, before what is asked of this route goes out, or before its answer comes. */
function once(custody: Custody, route: string, when: "before" | "after", act: () => unknown): void {
  const { transport } = custody;
  const request = transport.request.bind(transport);
  transport.request = async (...call: Parameters<typeof request>) => {
    if (call[1] !== route) return request(...call);
    transport.request = request;
    if (when === "before") await act();
    const answer = await request(...call);
    if (when === "after") await act();
    return answer;
  };
}

const SECRET = "/v1/account/secrets/{name}";

test("what is read for a change that `lock` stopped takes nothing from a later sign-in", async () => {
  for (const rotated of [false, true])
    for (const signsIn of [true, false]) {
      const safe = await Safe.make(true);
      const custody = await safe.device();
      await safe.opened(custody, safe.pin, safe.passkey);
      const other = await safe.device();
      await safe.opened(other, safe.pin, safe.passkey);
      // What is at hand is of an earlier version, so that it is read anew.
      if (rotated) await rotateSecret(other);
      else await setRecoveryCodes(other);
      let signed: Unlocked | undefined;
      once(custody, SECRET, "after", async () => {
        lock(custody);
        if (signsIn) signed = await safe.opened(custody, safe.pin, safe.passkey);
      });
      await assert.rejects(setRecoveryCodes(custody), { code: "locked" });
      assert.equal(custody.unlocked, signed);
      assert.equal(custody.held !== undefined, signsIn);
      if (!signsIn) continue;
      assert.equal(signed?.locked, false);
      assert.ok(custody.held?.key.some((byte) => byte !== 0));
      assert.equal((await setRecoveryCodes(custody)).length, 10);
    }
});

test("no app is told of a replaced key that is locked at once", async () => {
  for (const signsIn of [true, false]) {
    const safe = await Safe.make(true);
    const custody = await safe.device();
    const told: (Unlocked | undefined)[] = [];
    Object.assign(custody, { onReplaced: (now: Unlocked | undefined) => told.push(now) });
    await safe.opened(custody, safe.pin, safe.passkey);
    once(custody, "/v1/account/recovery-codes", "before", async () => {
      lock(custody);
      if (signsIn) await safe.opened(custody, safe.pin, safe.passkey);
    });
    await rotateSecret(custody);
    assert.deepEqual(told, signsIn ? [custody.unlocked] : []);
    assert.equal(custody.unlocked?.locked, signsIn ? false : undefined);
    // What is open is under what is stored now.
    const fresh = await safe.device();
    const { secret } = await safe.opened(fresh, safe.pin);
    if (signsIn) assert.deepEqual(custody.unlocked?.secret, secret);
  }
});
