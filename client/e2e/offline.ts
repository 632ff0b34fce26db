/**
 * With the daemon killed, a passkey and a PIN unlock, what was read can be read, and what was changed, a PIN too, goes out on
 * return, also where another device has changed the same.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type * as Sdk from "../sdk/src/index.js";
import { enrolled, type Kept, Stage } from "./support/stage.js";
import { daemon } from "./support/world.js";

declare const sdk: typeof Sdk;
declare const kept: Kept;

let stage: Stage;
before(async () => {
  stage = await Stage.set();
});
after(() => stage.clear());

test("a passkey unlocks offline, what was read can be read, and a change goes out afterwards", async () => {
  const phone = await stage.device();
  const { key } = await enrolled(phone);
  await phone.page.evaluate(async () => {
    const { custody } = kept;
    const { prf } = await sdk.addPasskey(custody);
    await sdk.keepOfflineByPasskey(custody, prf ?? (await sdk.signInWithPasskey(custody)).prf);
    await sdk.saveSecret(custody, "notes", new TextEncoder().encode("first"));
  });
  await daemon("kill");
  await stage.reload(phone);
  const offline = await phone.page.evaluate(async () => {
    const { custody } = kept;
    const read = async () => {
      const known = await sdk.loadSecret(custody, "notes");
      return [new TextDecoder().decode(known?.content), known?.from];
    };
    const before = await read();
    const unlocked = await sdk.unlockOfflineByPasskey(custody);
    const synced = await sdk.saveSecret(custody, "notes", new TextEncoder().encode("second"));
    return { before, key: unlocked.thumbprint, because: synced.because, after: await read() };
  });
  assert.deepEqual(offline.before, ["first", "copy"]);
  assert.deepEqual([offline.key, offline.because], [key, "sign-in"]);
  assert.deepEqual(offline.after, ["second", "pending"]);
  // Nothing of it is lost when the page is closed, and the daemon starts later.
  await stage.reload(phone);
  await daemon("start");
  const online = await phone.page.evaluate(async () => {
    await sdk.signInWithPasskey(kept.custody);
    const synced = await sdk.sync(kept.custody);
    const stored = await sdk.getSecret(kept.custody, "notes");
    return { synced, text: new TextDecoder().decode(stored?.content) };
  });
  assert.deepEqual(online, {
    synced: { sent: ["notes"], waiting: [], because: undefined, unopened: [] },
    text: "second",
  });
  await phone.context.close();
});

test("a PIN unlocks offline, is changed there, and settled with the daemon once", async () => {
  const phone = await stage.device();
  const { key } = await enrolled(phone);
  await phone.page.evaluate(() => sdk.keepOfflineByPin(kept.custody, "830517"));
  await daemon("kill");
  await stage.reload(phone);
  const offline = await phone.page.evaluate(async () => {
    const { custody } = kept;
    const began = performance.now();
    const wrong = await kept.tried(() => sdk.unlockOfflineByPin(custody, "111222"));
    const took = performance.now() - began;
    const counted = (await sdk.offlineState(custody)).wrongPins;
    const unlocked = await sdk.unlockOfflineByPin(custody, "830517");
    await sdk.changePinOffline(custody, "830517", "294061");
    return { wrong: wrong?.code, counted, key: unlocked.thumbprint, took };
  });
  assert.deepEqual([offline.wrong, offline.counted, offline.key], ["offline-pin-wrong", 1, key]);
  // A guess costs: it would be a mistake of ours if it did not.
  assert.ok(offline.took > 20, `${offline.took} ms`);
  await daemon("start");
  const online = await phone.page.evaluate(async () => {
    const { custody } = kept;
    const pending = (await sdk.offlineState(custody)).pinPending;
    const early = await kept.tried(() => sdk.signInWithPin(custody, "294061"));
    await sdk.settlePin(custody, "830517", "294061");
    await sdk.signOut(custody);
    const { unlocked } = await sdk.signInWithPin(custody, "294061");
    await sdk.sync(custody);
    let reported: string | null | undefined;
    for await (const event of sdk.verifiedEvents(custody)) {
      if (event.kind === "offline-pins-refused") reported = event.detail;
    }
    return {
      reported,
      pending,
      early: early?.code,
      key: unlocked?.thumbprint,
      ...(await sdk.offlineState(custody)),
    };
  });
  assert.deepEqual(
    [online.pending, online.early, online.key, online.pinPending, online.reported],
    [true, "pin-wrong", key, false, "1"],
  );
  await phone.context.close();
});

test("two devices that change the same secret apart", async () => {
  const [phone, laptop] = [await stage.device(), await stage.device()];
  await enrolled(phone);
  await phone.page.evaluate(async () => {
    await sdk.addPasskey(kept.custody);
    await sdk.saveSecret(kept.custody, "notes", new TextEncoder().encode("first"));
  });
  await laptop.syncPasskeysFrom(phone);
  await laptop.page.evaluate(async () => {
    await sdk.signInWithPasskey(kept.custody, { bindDevice: "laptop" });
    await sdk.loadSecret(kept.custody, "notes");
  });
  await phone.context.setOffline(true);
  const waiting = await phone.page.evaluate(() =>
    sdk.saveSecret(kept.custody, "notes", new TextEncoder().encode("on the phone")),
  );
  assert.equal(waiting.because, "offline");
  await laptop.page.evaluate(() =>
    sdk.saveSecret(kept.custody, "notes", new TextEncoder().encode("on the laptop")),
  );
  await phone.context.setOffline(false);
  const seen = await phone.page.evaluate(async () => {
    const { custody } = kept;
    const both: Sdk.Rule = ({ mine, theirs }) => {
      const text = (bytes?: Uint8Array) => new TextDecoder().decode(bytes);
      return new TextEncoder().encode(`${text(theirs?.content)}, ${text(mine.content)}`);
    };
    const synced = await sdk.sync(custody, both);
    const known = await sdk.loadSecret(custody, "notes");
    const lost = await sdk.lostVersions(custody);
    return { sent: synced.sent, text: new TextDecoder().decode(known?.content), lost: lost.length };
  });
  assert.deepEqual(seen, { sent: ["notes"], text: "on the laptop, on the phone", lost: 1 });
  await Promise.all([phone.context.close(), laptop.context.close()]);
});
