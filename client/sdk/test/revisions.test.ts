/** Revisions are times where nothing else is known: what a clock that was ahead does to them, and what it does not. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { utf8 } from "../src/bytes.js";
import { getSecret, putSecret } from "../src/secrets.js";
import { memoryStorage } from "../src/storage/memory.js";
import { scene } from "./support/vault.js";

test("what was written by a clock that was ahead troubles nobody who has read it, and the others until that time has come", async () => {
  const { custody: phone, secrets } = await scene(true);
  let now = 10_000;
  Object.defineProperty(phone.transport, "now", { get: () => now });
  const laptop = { ...phone, storage: memoryStorage() };
  const tablet = { ...phone, storage: memoryStorage() };
  const first = await putSecret(phone, "draft", utf8("from the future"), undefined);
  now = 1000;
  assert.deepEqual((await getSecret(laptop, "draft"))?.content, utf8("from the future"));
  await putSecret(laptop, "draft", utf8("after it"), first);
  assert.deepEqual((await getSecret(phone, "draft"))?.content, utf8("after it"));
  // Deleted, and made anew by a device that has never read it: what a daemon would show that has kept an old one.
  secrets.delete("draft");
  const made = await putSecret(tablet, "draft", utf8("anew"), undefined);
  await assert.rejects(getSecret(phone, "draft"), { doubt: "older-secret" });
  // It is written again once the time has come.
  now = 10_100;
  await putSecret(tablet, "draft", utf8("again"), made);
  assert.deepEqual((await getSecret(phone, "draft"))?.content, utf8("again"));
});
