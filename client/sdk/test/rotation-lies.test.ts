/** A rotation, and a thief of the secret of before who has the daemon as well; and answers that never came. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { concat, random, toBase64Url } from "../src/bytes.js";
import { KEPT, lock } from "../src/custody.js";
import { open, seal, WRAPPED, wrappingKey } from "../src/keys.js";
import { resumeRotation, rotateSecret } from "../src/rotation.js";
import { sealContent, sealSlot } from "../src/slots.js";
import { memoryStorage } from "../src/storage/memory.js";
import { type Asked, problem } from "./support/daemon.js";
import { CHAIN, placeOf, Safe } from "./support/safe.js";

test("a device secret of a thief's is not taken up by who has seen the rotation, though it wraps the same key", async () => {
  const safe = await Safe.make(true);
  const phone = await safe.device();
  const before = await safe.opened(phone, safe.pin);
  const thief = { secret: before.secret.slice(), key: phone.held!.key.slice() };
  const wrapped = await open(await wrappingKey(thief.secret), WRAPPED, before.wrapped);
  const slots = safe.secrets.get("device-secret")!.slots!;
  await rotateSecret(phone);
  // With the daemon: the owner's slots of before, over the content key of before, and any revision.
  const evil = concat(random(32), thief.secret);
  const [place, key] = [placeOf("device-secret"), random(32)];
  const device = toBase64Url(await sealContent(place, thief.key, evil, 2 ** 40));
  safe.write("device-secret", { sealed: device, slots });
  const own = await seal(await wrappingKey(evil), WRAPPED, wrapped!);
  const chain = await sealSlot(placeOf("app-key"), { ...CHAIN, material: evil.slice(0, 32) }, key);
  const app = toBase64Url(await sealContent(placeOf("app-key"), key, own, 2 ** 40));
  safe.write("app-key", { sealed: app, slots: [chain] });
  lock(phone);
  const kept = await phone.storage.get(KEPT.appKey);
  await assert.rejects(safe.opened(phone, safe.pin), {
    code: "untrusted",
    doubt: "statement-differs",
  });
  assert.deepEqual(await phone.storage.get(KEPT.appKey), kept);
  // The control: a device that knows none of it can not tell.
  const fresh = await safe.device();
  const taken = await safe.opened(fresh, safe.pin);
  assert.deepEqual(taken.secret, evil);
});

test("codes whose answer was lost are not lost with a later rotation that is refused", async () => {
  const safe = await Safe.make(true);
  let loses = true;
  const isCodes = ({ path }: Asked): boolean => path === "/v1/account/recovery-codes";
  const phone = await safe.device(memoryStorage(), (asked) =>
    loses && isCodes(asked) ? "answer-lost" : "done",
  );
  await safe.opened(phone, safe.pin, safe.passkey);
  await assert.rejects(rotateSecret(phone));
  loses = false;
  assert.equal(safe.sets.length, 1);
  await safe.opened(phone, safe.pin, safe.passkey);
  const { refuse } = safe;
  safe.refuse = (asked) => (isCodes(asked) ? problem(403, "step-up-required") : undefined);
  await assert.rejects(rotateSecret(phone), { code: "step-up-required" });
  safe.refuse = refuse;
  const { codes } = await resumeRotation(phone);
  assert.equal(safe.sets.length, 1);
  assert.deepEqual(
    codes.map(({ auth }) => toBase64Url(auth)),
    safe.sets[0]!.codes,
  );
});
