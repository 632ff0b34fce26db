/** Threshold mode: one realm that wants more than to be left out. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { toBase64Url } from "../src/bytes.js";
import { type Custody, keepAccount, lock } from "../src/custody.js";
import { Unlocked } from "../src/keys.js";
import { takeSession } from "../src/session.js";
import { recover } from "../src/threshold/recover.js";
import { unlockedOf } from "../src/threshold/group.js";
import { refreshShares } from "../src/threshold/refresh.js";
import { leaves } from "./support/realm.js";
import {
  anyGive,
  device,
  type Fate,
  give,
  type Keeper,
  keepers,
  signIn,
  unlockedDevice,
} from "./support/group.js";

/** A sign-in that brings a key, which nobody asked for. */
function bringing(unlocked: Unlocked) {
  const secret = (content: Uint8Array<ArrayBuffer>) => {
    return { version: 1, updated: 0, slots: [], server_slot: toBase64Url(content) };
  };
  const secrets = {
    "device-secret": secret(unlocked.secret),
    "app-key": secret(unlocked.wrapped),
  };
  const session = { token: "t", scope: "read", factor: "pin" };
  const about = { account: "a-1", device_bound: false, server_slots: "allowed" };
  return { ...about, session, secrets } as never;
}

test("no key that one realm of a group brings is taken for the owner's", async () => {
  const [realms, theirs] = [await keepers(3), await Unlocked.create()];
  const group = await device(realms, 2);
  const [custody] = group.custodies as [Custody, ...Custody[]];
  // Its operator can sign the binding of any key.
  realms[0]!.bound = theirs;
  assert.equal((await takeSession(custody, bringing(theirs))).unlocked, undefined);
  assert.equal(custody.unlocked, undefined);
  assert.equal(await custody.storage.get("app-key"), undefined);
  // The control: a realm that is alone in charge is believed.
  const alone = { ...custody, member: false };
  assert.equal(
    (await takeSession(alone, bringing(theirs))).unlocked?.thumbprint,
    theirs.thumbprint,
  );
});

test("a refresh with another key than the one that is shared changes nothing", async () => {
  const [realms, unlocked] = [await keepers(3), await Unlocked.create()];
  await refreshShares(await unlockedDevice(realms, 2, unlocked));
  const other = await unlockedDevice(realms, 2, await Unlocked.create());
  await assert.rejects(refreshShares(other), { code: "realms-failed" });
  assert.ok(await anyGive(realms, 2, unlocked));
});

test("a realm that hides what it holds takes no share from the others in a refresh", async () => {
  const [realms, unlocked] = [await keepers(3), await Unlocked.create()];
  const [first, liar, last] = realms as [Keeper, Keeper, Keeper];
  await refreshShares(await unlockedDevice(realms, 2, unlocked));
  const but = (one: Keeper) =>
    unlockedDevice(realms, 2, unlocked, (keeper, { method }): Fate => {
      return keeper === one && method === "PUT" ? "lost" : "done";
    });
  await assert.rejects(refreshShares(await but(last)), { code: "refresh-unfinished" });
  assert.deepEqual([(await first.shares()).length, (await last.shares()).length], [2, 1]);
  // Of its two sets it shows the newer alone, and that as often as it likes; then it writes nothing.
  const shown = await liar.shares();
  const newest = Math.max(...shown.map(({ manifest }) => manifest.version));
  liar.lies((document) => {
    const shares = (document["shares"] as { manifest: string }[]).filter(({ manifest }) => {
      return (JSON.parse(manifest) as { version: number }).version === newest;
    });
    return { ...document, shares: [...shares, ...shares, ...shares] };
  });
  await assert.rejects(refreshShares(await but(liar)), { code: "refresh-unfinished" });
  assert.ok(await give([first, last], unlocked));
});

test("a share that is shown twice is one, and an honest realm is not called a liar for it", async () => {
  const [realms, unlocked] = [await keepers(4), await Unlocked.create()];
  await refreshShares(await unlockedDevice(realms, 3, unlocked));
  realms[1]!.lies((document) => {
    const shares = document["shares"] as unknown[];
    return { ...document, shares: [...shares, ...shares] };
  });
  const found = await recover(await device(realms, 3), signIn, { oneByOne: true });
  assert.equal(found.unlocked.thumbprint, unlocked.thumbprint);
  assert.equal(found.answers[0]?.outcome, "done");
});

test("an answer of no shape at all is that realm's failure alone", async () => {
  const [realms, unlocked] = [await keepers(3), await Unlocked.create()];
  await refreshShares(await unlockedDevice(realms, 2, unlocked));
  const found = await recover(await device(realms, 2), (custody, ask) => {
    if (custody.realm.name === "a.example") throw new TypeError("secrets is not iterable");
    return signIn(custody, ask);
  });
  assert.equal(found.unlocked.thumbprint, unlocked.thumbprint);
  const [liar] = found.answers;
  assert.deepEqual([liar?.outcome, liar?.error?.code], ["failed", "answer-unknown"]);
});

test("a realm that lies when the others have given enough does not lock the key that they gave", async () => {
  const [realms, unlocked] = [await keepers(3), await Unlocked.create()];
  await refreshShares(await unlockedDevice(realms, 2, unlocked));
  const lies = [
    // A receipt that is none.
    (custody: Custody) =>
      takeSession(custody, {
        ...(bringing(unlocked) as object),
        log: { index: 1, leaf: "AA", proof: "no" },
      } as never),
    // A session of another account than it was asked for.
    (custody: Custody) => keepAccount(custody, { account: "a-2" }),
    // What is found out once the session is taken up.
    async (custody: Custody) => {
      Object.assign(custody, { checkLog: true });
      const checkpoint = await realms[0]!.realm.note(leaves(1));
      const { fetcher } = custody.transport as unknown as { fetcher: typeof fetch };
      const lying = ((url: string, init?: RequestInit) =>
        url.includes("/events")
          ? Promise.resolve(Response.json({ events: [], complete_from: 1, checkpoint }))
          : fetcher(url, init)) as typeof fetch;
      Object.assign(custody.transport, { fetcher: lying });
      await takeSession(custody, bringing(unlocked));
    },
  ];
  for (const [at, lie] of lies.entries()) {
    const group = await device(realms, 2);
    const late = group.custodies[2]!;
    let isAsked: (custody: Custody) => void = () => undefined;
    const asked = new Promise<Custody>((resolve) => {
      isAsked = resolve;
    });
    const found = await recover(
      group,
      (custody, ask) => {
        if (custody !== late) return signIn(custody, ask);
        isAsked(custody);
        return new Promise(() => undefined);
      },
      { patience: 1 },
    );
    assert.equal((await asked).unlocked, found.unlocked);
    await lie(late).catch(() => undefined);
    assert.ok(!found.unlocked.locked, `lie ${at}`);
    assert.equal(unlockedOf(group), found.unlocked);
    // It has nothing open itself, unless what it did was no lie.
    if (at > 0) assert.equal(late.unlocked, undefined, `lie ${at}`);
    // The control: `lock` at one realm locks it for all.
    lock(group.custodies[0]!);
    assert.ok(found.unlocked.locked);
  }
});
