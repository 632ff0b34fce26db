/** An enrolment, and what comes after the account is there. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { enrol, enrolmentPending } from "../src/enrol.js";
import { Untrusted } from "../src/errors.js";
import { parseJws, publicJwk, thumbprint } from "../src/jose.js";
import { setRecoveryCodes } from "../src/factors.js";
import { type Custody, keepAccount } from "../src/custody.js";
import type { Schemas } from "../src/transport.js";
import { FakeDaemon, problem, type Reply } from "./support/daemon.js";
import { leaves, Realm } from "./support/realm.js";

/** A device, and a daemon whose log answers this. */
async function scene(
  events: (realm: Realm) => Promise<Reply>,
  server_slot = true,
): Promise<[Custody, string[]]> {
  const realm = await Realm.make();
  const stored: string[] = [];
  const daemon = new FakeDaemon(async ({ path, body = "{}" }): Promise<Reply> => {
    if (path.startsWith("/v1/account/events")) return events(realm);
    if (path === "/v1/account/secrets") return { body: { secrets: [] } };
    if (path === "/v1/account/recovery-codes") {
      stored.push(...Object.keys((JSON.parse(body) as Schemas["SetRecoveryCodes"]).secrets ?? {}));
      const bound = { app: "notes", sub: "a-1", kind: "recovery-codes", device_id: "codes" };
      const recovery_codes = { device_id: "codes", binding: await realm.binding(bound) };
      return { body: { recovery_codes, session: { token: "t", scope: "full" } } };
    }
    if (path.startsWith("/v1/account/secrets/")) {
      stored.push(path.split("/").at(-1) ?? "");
      return { body: { version: stored.length } };
    }
    if (!path.endsWith("/accounts")) return { body: {}, nonce: "n" };
    const { app_key_proof: proof } = JSON.parse(body) as { app_key_proof: string };
    const own = publicJwk(parseJws(proof)?.header["jwk"])!;
    const about = { app: "notes", sub: "a-1" };
    const [app_key, device_key] = await Promise.all([
      realm.binding({ ...about, kind: "app-key", device_id: await thumbprint(own) }),
      realm.binding({ ...about, kind: "device-key", device_id: custody.device.thumbprint }),
    ]);
    const session = { token: "t", scope: "full", factor: "creation" };
    const log = await realm.receipt(1, leaves(2));
    const bindings = { app_key, device_key };
    return { status: 201, body: { account: "a-1", bindings, log, session, server_slot } };
  });
  const custody: Custody = await daemon.custody(realm, true);
  return [custody, stored];
}

test("an account that is made is not lost to its device because the log can not be asked", async () => {
  const [custody, stored] = await scene(() => Promise.resolve(problem(503, "busy")));
  const key = await enrol(custody);
  assert.deepEqual(stored, ["device-secret", "app-key"]);
  assert.deepEqual(
    [custody.account?.account, custody.unlocked === key, await enrolmentPending(custody)],
    // Nobody could come in to it yet.
    ["a-1", true, true],
  );
});

test("a log that is another one ends an enrolment in doubt", async () => {
  const [custody] = await scene(async (realm) => {
    const checkpoint = await realm.note(leaves(3).reverse());
    return { body: { events: [], complete_from: 1, checkpoint, consistency: [] } };
  });
  await assert.rejects(enrol(custody), Untrusted);
});

test("a storage that is cleared between an enrolment and its first codes loses neither key nor backup", async () => {
  const [custody, stored] = await scene(() => Promise.resolve(problem(503, "busy")), false);
  await enrol(custody);
  assert.equal(await enrolmentPending(custody), true);
  await custody.storage.clear();
  await setRecoveryCodes(custody);
  assert.deepEqual(stored, ["device-secret", "app-key"]);
  // Backed up, it is not sent again, also where the account has lost its backup; and it is no other account's.
  await setRecoveryCodes(custody);
  const [other, theirs] = await scene(() => Promise.resolve(problem(503, "busy")), false);
  await enrol(other);
  await keepAccount(other, { account: "a-2" });
  await assert.rejects(setRecoveryCodes(other), { code: "untrusted" });
  assert.deepEqual([stored.length, theirs], [2, []]);
});
