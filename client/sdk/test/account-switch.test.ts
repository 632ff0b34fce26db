/** One tab in which another account is signed in to while something is on its way for the one of before. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fromUtf8, toBase64Url, utf8 } from "../src/bytes.js";
import { type Custody, keepAccount } from "../src/custody.js";
import { bindThisDevice } from "../src/account.js";
import { confirmTotp, setPin, setRecoveryCodes } from "../src/factors.js";
import { Unlocked } from "../src/keys.js";
import { loadSecret, saveSecret } from "../src/offline/queue.js";
import { putSecret } from "../src/secrets.js";
import { refreshSession, signOut } from "../src/sign-in.js";
import { memoryStorage } from "../src/storage/memory.js";
import { tab } from "./support/accounts.js";
import { FakeDaemon } from "./support/daemon.js";
import { Realm } from "./support/realm.js";
import { Safe } from "./support/safe.js";

test("what was begun for an account goes on for no other", async () => {
  const safe = await Safe.make(true);
  const storage = memoryStorage();
  let meanwhile: (path: string) => Promise<void> = () => Promise.resolve();
  const { custody, asked } = await tab(safe, storage);
  const daemon = custody.transport.request.bind(custody.transport);
  custody.transport.request = async (...call: Parameters<typeof daemon>) => {
    const answer = await daemon(...call);
    await meanwhile(call[1]);
    return answer;
  };
  await saveSecret(custody, "notes", utf8("mine"));
  const secret = safe.first.secret.slice();
  const key = safe.first.wrapped;
  const signInHere = async () => {
    meanwhile = () => Promise.resolve();
    await keepAccount(custody, { account: "a-2" });
    custody.unlocked = await Unlocked.open(secret.slice(), key);
  };
  // Read for the first account, and there when the second is open.
  meanwhile = signInHere;
  await loadSecret(custody, "notes").catch(() => undefined);
  assert.equal(await storage.get("copy/a-2/notes"), undefined);
  // Sent for the first account, and answered when the second is open.
  await keepAccount(custody, { account: "a-1" });
  await safe.opened(custody, safe.pin);
  meanwhile = async (path) => {
    if (path === "/v1/account/secrets/{name}") await signInHere();
  };
  await saveSecret(custody, "notes", utf8("mine again")).catch(() => undefined);
  assert.deepEqual(
    [await storage.get("copy/a-2/notes"), await storage.get("seen/a-2/notes")],
    [undefined, undefined],
  );
  // Sealed for the first account, it does not go out once the second is open.
  await keepAccount(custody, { account: "a-1" });
  await safe.opened(custody, safe.pin);
  Object.assign(safe, { endToEnd: false });
  Object.assign(custody, { endToEnd: false, serverSlot: undefined });
  meanwhile = signInHere;
  asked.length = 0;
  await assert.rejects(putSecret(custody, "notes", utf8("mine, late"), 1), {
    code: "other-account",
  });
  assert.deepEqual(asked, ["GET /v1/account"]);
});

test("what is read within a session of another account than it was asked for is kept as neither's", async () => {
  const safe = await Safe.make(false);
  const storage = memoryStorage();
  const { custody } = await tab(safe, storage);
  await keepAccount(custody, { account: "a-1", boundDevice: custody.device.thumbprint });
  safe.write("notes", { slots: [], server_slot: toBase64Url(utf8("theirs")) });
  custody.transport.session = undefined;
  const daemon = custody.transport.request.bind(custody.transport);
  const session = { token: "t", scope: "full", factor: "pin" } as never;
  custody.transport.request = (async (...call: Parameters<typeof daemon>) => {
    if (call[1] !== "/v1/apps/{app}/sessions/device") return daemon(...call);
    // While this device asks for a session that only reads, its owner signs in to another account.
    await keepAccount(custody, { account: "a-2" });
    custody.transport.session = session;
    const more = { secrets: {}, server_slots: "allowed", device_bound: true, credential: null };
    return { account: "a-1", session: { token: "r", scope: "read" }, log: null, ...more };
  }) as typeof daemon;
  await assert.rejects(loadSecret(custody, "notes"), { code: "other-account" });
  assert.deepEqual(await storage.list("copy/"), []);
  assert.equal(((await storage.get("account")) as { account: string }).account, "a-2");
  // The control: what is asked for now is the second account's, and kept as that.
  assert.equal(fromUtf8((await loadSecret(custody, "notes"))?.content ?? utf8("")), "theirs");
  assert.deepEqual(
    (await storage.list("copy/")).map(([key]) => key),
    ["copy/a-2/notes"],
  );
});

const named = (token: string, fresh_until = 600, factor = "otp") =>
  ({ token, scope: "pin-only", factor, fresh_until }) as never;

test("a session that is renewed takes the place of the one that asked, and of none that was opened meanwhile", async () => {
  const realm = await Realm.make();
  let meanwhile: () => void | Promise<void> = () => undefined;
  const daemon = new FakeDaemon(async ({ method, path }) => {
    if (method === "DELETE") return { status: 204 };
    const session = named("renewed");
    const kinds = [
      ["recovery-codes", "recovery_codes"],
      ["pin", "pin"],
      ["totp", "totp"],
      ["devices", "device"],
    ] as const;
    const [kind, member] = kinds.find(([one]) => path.includes(one)) ?? ["", ""];
    const device_id = kind === "devices" ? custody.device.thumbprint : "d";
    const about = { app: "notes", sub: "a-1", kind: kind === "devices" ? "device-key" : kind };
    const bound = { device_id, binding: await realm.binding({ ...about, device_id }) };
    await meanwhile();
    return { body: kind === "" ? session : { [member]: bound, session } };
  });
  let custody: Custody = await daemon.custody(realm);
  for (const call of [
    refreshSession,
    (custody: Custody) => setPin(custody, "830517", { onServer: true }),
    setRecoveryCodes,
    (custody: Custody) => confirmTotp(custody, "123456"),
    (custody: Custody) => bindThisDevice(custody),
  ]) {
    const tokenAfter = async (while_: (custody: Custody) => void | Promise<void>) => {
      custody = await daemon.custody(realm);
      await keepAccount(custody, { account: "a-1" });
      custody.transport.session = named("before");
      meanwhile = () => {
        meanwhile = () => undefined;
        return while_(custody);
      };
      // What is bound to the account of before is refused where another one is open.
      await call(custody).catch((error: unknown) => {
        assert.equal(custody.account?.account, "a-2", String(error));
      });
      const { session } = custody.transport as { session?: { token: string } };
      return session?.token;
    };
    for (const another of [named("another", 601), named("another", 600, "recovery-code")]) {
      const signedIn = await tokenAfter(({ transport }) => {
        transport.session = another;
      });
      assert.equal(signedIn, "another");
    }
    assert.equal(await tokenAfter((one) => signOut(one)), undefined);
    // The control: where nobody has, it goes on by the answer.
    assert.equal(await tokenAfter(() => undefined), "renewed");
    // Renewed while it is on its way, it is the same one: what it was renewed to may have ended with the change.
    if (call === refreshSession) continue;
    const refreshed = await tokenAfter(async (one) => {
      await refreshSession(one);
      one.transport.session = { ...one.transport.session!, token: "refreshed" };
    });
    assert.equal(refreshed, "renewed");
    // Of another account, it never is.
    const others = await tokenAfter(async (one) => {
      await keepAccount(one, { account: "a-2" });
      one.transport.session = named("another");
    });
    assert.equal(others, "another");
  }
});
