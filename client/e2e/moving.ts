/**
 * An app whose server slots come to an end while it has accounts: each is moved at its next sign-in, whatever breaks
 * off, and afterwards the daemon has nothing that opens a secret. Run by Node: nothing here needs a browser.
 */
import assert from "node:assert/strict";
import { afterEach, before, test } from "node:test";
import * as sdk from "../sdk/src/index.js";
import { realmKeys } from "./support/stage.js";
import { authenticatorCode } from "./support/totp.js";
import { accountsLeft, serverSlots, world } from "./support/world.js";

const PIN = "830517";
const NOTE = new Uint8Array([1, 2, 3]);
const ALL = ["device-secret", "app-key", "notes"];

let realm: sdk.RealmTrust;
before(async () => {
  realm = { name: world.realm, keys: await realmKeys() };
});
afterEach(() => serverSlots("allowed"));

/** A device; `fate` decides about each of its requests. */
async function device(
  more: Partial<sdk.CustodyOptions> = {},
  fate: (path: string) => "done" | "lost" | "answer-lost" = () => "done",
): Promise<sdk.Custody> {
  const through = (async (url: string, init?: RequestInit) => {
    const its = fate(new URL(url).pathname);
    if (its === "lost") throw new TypeError("Failed to fetch");
    const answer = await fetch(url, init);
    if (its === "answer-lost") throw new TypeError("Failed to fetch");
    return answer;
  }) as typeof fetch;
  const { url, app } = world;
  const storage = sdk.memoryStorage();
  return sdk.openCustody({ url, app, realm, storage, fetch: through, ...more });
}

interface Owner {
  readonly phone: sdk.Custody;
  readonly key: string;
  readonly codes: string[];
}

/** An account with a note, as it was made before anybody thought of the end; signed out. */
async function owner(phone?: sdk.Custody): Promise<Owner> {
  const custody = phone ?? (await device());
  const { thumbprint: key } = await sdk.enrol(custody);
  await sdk.setPin(custody, PIN);
  await sdk.putSecret(custody, "notes", NOTE, undefined);
  const codes = await sdk.setRecoveryCodes(custody);
  await sdk.signOut(custody);
  return { phone: custody, key, codes: codes.map(({ text }) => text) };
}

/** What the daemon hands out, and whether it could open it. */
async function opensToDaemon(custody: sdk.Custody): Promise<string[]> {
  const path = "/v1/account/secrets/{name}";
  const found: string[] = [];
  for (const name of ALL) {
    const secret = await custody.transport.request("get", path, { path: { name } });
    if (secret.server_slot != null || secret.server_slot_withheld) found.push(name);
  }
  return found;
}

test("before, turned on, moved, and the daemon has nothing to release any more", async () => {
  const { phone, key, codes } = await owner();
  await sdk.signInWithPin(phone, PIN);
  const { otpauth } = await sdk.enrolTotp(phone, "notes");
  await sdk.confirmTotp(phone, authenticatorCode(otpauth, 0));
  assert.deepEqual(await opensToDaemon(phone), ALL);
  const before = await accountsLeft();

  await serverSlots("ending");
  const turned = await sdk.signInWithPin(phone, PIN);
  assert.equal(turned.unlocked?.thumbprint, key);
  const { moved, left, closed, error } = turned.upkeep!;
  assert.deepEqual([[...moved].sort(), left, closed], [[...ALL].sort(), [], ["totp"]]);
  assert.equal(error, undefined);
  assert.equal(await accountsLeft(), before - 1);
  assert.deepEqual(await opensToDaemon(phone), []);
  assert.equal((await sdk.signInWithPin(phone, PIN)).upkeep, undefined);
  // What was a way in is none to the key any more, and says so.
  await sdk.signOut(phone);
  const byTotp = sdk.signInWithTotp(phone, authenticatorCode(otpauth, 1));
  await assert.rejects(byTotp, { code: "no-slot" });

  await serverSlots("forbidden");
  await sdk.signInWithPin(phone, PIN);
  assert.deepEqual((await sdk.getSecret(phone, "notes"))?.content, NOTE);
  const laptop = await device({ endToEnd: true });
  const account = phone.account!.account;
  const { unlocked } = await sdk.signInWithRecoveryCode(laptop, codes[3]!, { account });
  assert.equal(unlocked?.thumbprint, key);
  assert.deepEqual((await sdk.getSecret(laptop, "notes"))?.content, NOTE);
});

test("who has no factor that can keep the key is told what to do, and comes over with a PIN", async () => {
  const phone = await device();
  const { thumbprint: key } = await sdk.enrol(phone);
  const { otpauth } = await sdk.enrolTotp(phone, "notes");
  await sdk.confirmTotp(phone, authenticatorCode(otpauth, 0));
  await sdk.signOut(phone);
  await serverSlots("ending");
  const signedIn = await sdk.signInWithTotp(phone, authenticatorCode(otpauth, 1));
  assert.equal(signedIn.unlocked?.thumbprint, key);
  const { left, error } = signedIn.upkeep!;
  assert.deepEqual(
    [[...left].sort(), error?.code],
    [["app-key", "device-secret"], "slot-factor-missing"],
  );
  assert.match(sdk.advice(error), /PIN or new recovery codes/);
  await assert.rejects(sdk.moveSecrets(phone), { code: "slot-factor-missing" });
  // It still opens as before, until there is such a factor, which takes the device secret along at once.
  await sdk.setPin(phone, PIN);
  const rest = await sdk.moveSecrets(phone);
  assert.deepEqual([rest.moved, rest.left, rest.closed], [["app-key"], [], ["totp"]]);
  const back = await sdk.signInWithPin(phone, PIN);
  assert.deepEqual([back.unlocked?.thumbprint, back.upkeep], [key, undefined]);
});

test("interrupted at any request, the key comes back and the next sign-in goes on", async () => {
  // Fates are decided later, so that all accounts are made before the end begins.
  const made: {
    owner: Owner;
    begin: (at: number, fate: "lost" | "answer-lost") => () => number;
  }[] = [];
  const count = 18;
  for (let nth = 0; nth < count; nth += 1) {
    let [asked, limit, its]: [number, number, "lost" | "answer-lost"] = [0, Infinity, "lost"];
    let counting = false;
    const phone = await device({ checkLog: false }, (path) => {
      if (counting) asked += 1;
      // The sign-in itself is the daemon's to make whole; what follows it is what is cut off here.
      if (path.endsWith("/opaque/finish")) counting = limit < Infinity;
      if (asked < limit) return "done";
      return asked === limit ? its : "lost";
    });
    const begin = (at: number, fate: "lost" | "answer-lost") => {
      [asked, limit, its] = [0, at, fate];
      return () => {
        [limit, counting] = [Infinity, false];
        return asked;
      };
    };
    made.push({ owner: await owner(phone), begin });
  }
  await serverSlots("ending");
  const before = await accountsLeft();
  let stopped = 0;
  for (const [nth, { owner, begin }] of made.entries()) {
    const [at, fate] = [1 + (nth >> 1), nth % 2 === 0 ? "lost" : "answer-lost"] as const;
    const end = begin(at, fate);
    const cut = await sdk.signInWithPin(owner.phone, PIN);
    const asked = end();
    const where = `${fate} at ${at} of ${asked}`;
    assert.equal(cut.unlocked?.thumbprint, owner.key, where);
    if (asked >= at) {
      stopped += 1;
      assert.equal(cut.upkeep?.error?.code, "unreachable", where);
    }
    sdk.lock(owner.phone);
    const again = await sdk.signInWithPin(owner.phone, PIN);
    assert.equal(again.unlocked?.thumbprint, owner.key, where);
    assert.equal(again.upkeep?.error, undefined, where);
    assert.deepEqual((await sdk.getSecret(owner.phone, "notes"))?.content, NOTE, where);
    assert.deepEqual(await opensToDaemon(owner.phone), [], where);
  }
  assert.ok(stopped >= 14, String(stopped));
  assert.equal(await accountsLeft(), before - count);
});

test("two devices that move at once meet, and neither is shut out", async () => {
  const { phone, key, codes } = await owner();
  const laptop = await device();
  const account = phone.account!.account;
  await serverSlots("ending");
  const [one, other] = await Promise.all([
    sdk.signInWithPin(phone, PIN),
    sdk.signInWithRecoveryCode(laptop, codes[0]!, { account, bindDevice: "laptop" }),
  ]);
  assert.deepEqual([one.unlocked?.thumbprint, other.unlocked?.thumbprint], [key, key]);
  assert.deepEqual([one.upkeep?.error, other.upkeep?.error], [undefined, undefined]);
  const byEither = new Set([...(one.upkeep?.moved ?? []), ...(other.upkeep?.moved ?? [])]);
  assert.deepEqual([...byEither].sort(), [...ALL].sort());
  await Promise.all([sdk.signOut(phone), sdk.signOut(laptop)]);
  const back = await sdk.signInWithPin(phone, PIN);
  assert.deepEqual([back.unlocked?.thumbprint, back.upkeep], [key, undefined]);
  assert.deepEqual(await opensToDaemon(phone), []);
  const byCode = await sdk.signInWithRecoveryCode(laptop, codes[1]!, { account });
  assert.equal(byCode.unlocked?.thumbprint, key);
});

test("an app that turns to end to end by itself moves its accounts, whatever the policy says", async () => {
  const first = await device();
  const { storage } = first;
  const { key } = await owner(first);
  // Too early: what the daemon can open is nothing to it.
  const early = await device({ storage, endToEnd: true });
  await assert.rejects(sdk.signInWithPin(early, PIN), { code: "no-slot" });
  const phone = await device({ storage, endToEnd: "moving" });
  const { unlocked, upkeep } = await sdk.signInWithPin(phone, PIN);
  assert.deepEqual([unlocked?.thumbprint, [...upkeep!.moved].sort()], [key, [...ALL].sort()]);
  const done = await device({ storage, endToEnd: true });
  const back = await sdk.signInWithPin(done, PIN);
  assert.deepEqual([back.unlocked?.thumbprint, back.upkeep], [key, undefined]);
  assert.deepEqual((await sdk.getSecret(done, "notes"))?.content, NOTE);
});
