/**
 * Of two browsers one gives the account another device secret: that of before opens nothing that is written afterwards, the other
 * browser takes the new one up by a factor of its owner's, and what it has written meanwhile opens all the same. So it is where the
 * answer is lost, and where the secrets are large and read by no one login.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type * as Sdk from "../sdk/src/index.js";
import type { Device } from "./support/browser.js";
import { enrolled, type Kept, openSealed, Stage } from "./support/stage.js";

declare const sdk: typeof Sdk;
declare const kept: Kept;

const PIN = "830517";

let stage: Stage;
before(async () => {
  stage = await Stage.set();
});
after(() => stage.clear());

/** Something of the app's own, sealed under its data key. */
async function written(at: Device, text: string): Promise<number[]> {
  return at.page.evaluate(async (text) => {
    const key = await kept.custody.unlocked!.dataKey("notes");
    const plain = new Uint8Array(new TextEncoder().encode(text));
    return [...(await sdk.sealData(key, "notes", plain))];
  }, text);
}

/** What it says to the key that is open there. */
async function read(at: Device, sealed: readonly number[]): Promise<string | undefined> {
  return at.page.evaluate(async (sealed) => {
    const keys = await kept.custody.unlocked!.dataKeys("notes");
    const plain = await sdk.openData(keys, "notes", new Uint8Array(sealed));
    return plain && new TextDecoder().decode(plain);
  }, sealed);
}

test("a device that knew the secret takes up the new one by what it has signed in with, and opens what it wrote before", async () => {
  const [phone, laptop] = [await stage.device(), await stage.device()];
  await Promise.all([openSealed(phone), openSealed(laptop)]);
  const { account, key, code } = await phone.page.evaluate(async () => {
    const { custody } = kept;
    const { thumbprint } = await sdk.enrol(custody, { deviceName: "phone" });
    await sdk.setPin(custody, "830517");
    const [first] = await sdk.setRecoveryCodes(custody);
    await sdk.addPasskey(custody, { user: "Ann" });
    return { account: custody.account!.account, key: thumbprint, code: first!.text };
  });
  await laptop.page.evaluate(
    async ({ account, code, pin }) => {
      const options = { account, bindDevice: "laptop" };
      await sdk.signInWithRecoveryCode(kept.custody, code, options);
      await sdk.signInWithPin(kept.custody, pin);
      await sdk.saveSecret(kept.custody, "list", new Uint8Array([1]));
    },
    { account, code, pin: PIN },
  );
  const under = await written(laptop, "written before");
  assert.equal(await read(phone, under), "written before");

  const rotated = await phone.page.evaluate(async (pin) => {
    const { custody } = kept;
    await sdk.signInWithPin(custody, pin);
    await sdk.signInWithPasskey(custody);
    const { codes, closed, left } = await sdk.rotateSecret(custody);
    await sdk.putSecret(custody, "draft", new Uint8Array([2]), undefined);
    return { codes: codes.length, closed, left, key: custody.unlocked?.thumbprint };
  }, PIN);
  assert.deepEqual(rotated, { codes: 10, closed: [], left: [], key });
  const later = await written(phone, "written after");

  // The laptop's key is open still, and opens what it opened.
  assert.deepEqual(
    [await read(laptop, later), await read(laptop, under)],
    [undefined, "written before"],
  );
  // Locked, it can not take up what it reads of; the PIN that was typed there since the last lock does.
  const taken = await laptop.page.evaluate(async () => {
    const { custody } = kept;
    const old = custody.unlocked!;
    const keys = [...custody.slotKeys];
    custody.slotKeys = [];
    const failed = await kept.tried(() => sdk.getSecret(custody, "draft"));
    const first = { code: failed?.code, locked: old.locked, ...kept.replaced };
    custody.slotKeys = keys;
    const draft = await sdk.getSecret(custody, "draft");
    const second = { draft: draft?.content[0], locked: old.locked, ...kept.replaced };
    return [first, second];
  });
  assert.deepEqual(taken, [
    { code: "locked", locked: false, times: 1, open: false },
    { draft: 2, locked: true, times: 2, open: true },
  ]);
  assert.equal(await read(laptop, later), "written after");
  await stage.reload(laptop);
  await openSealed(laptop);
  const back = await laptop.page.evaluate(async (pin) => {
    const { custody } = kept;
    const { unlocked } = await sdk.signInWithPin(custody, pin);
    const draft = await sdk.getSecret(custody, "draft");
    const list = await sdk.getSecret(custody, "list");
    return { key: unlocked?.thumbprint, draft: draft?.content[0], list: list?.content[0] };
  }, PIN);
  assert.deepEqual(back, { key, draft: 2, list: 1 });
  assert.equal(await read(laptop, later), "written after");
  assert.equal(await read(laptop, under), "written before");
  await Promise.all([phone.context.close(), laptop.context.close()]);
});

test("a device that was lost is removed, and neither its secret nor the codes on paper bring anything back", async () => {
  const [phone, lost, fresh] = [await stage.device(), await stage.device(), await stage.device()];
  const { account, key } = await enrolled(phone);
  const codes = await phone.page.evaluate(async () => {
    const made = await sdk.setRecoveryCodes(kept.custody);
    return made.map(({ text }) => text);
  });
  const id = await lost.page.evaluate(
    async ({ account, code, pin }) => {
      const { custody } = kept;
      await sdk.signInWithRecoveryCode(custody, code, { account, bindDevice: "lost" });
      await sdk.signInWithPin(custody, pin);
      await sdk.keepOfflineByPin(custody, pin);
      return custody.device.thumbprint;
    },
    { account, code: codes[0] ?? "", pin: PIN },
  );
  const next = await phone.page.evaluate(
    async ({ id, pin, code }) => {
      const { custody } = kept;
      await sdk.signInWithPin(custody, pin);
      await sdk.keepOfflineByPin(custody, pin);
      await sdk.removeDevice(custody, id);
      // The account's strongest factor changes all others.
      const weak = await kept.tried(() => sdk.rotateSecret(custody));
      if (weak?.code !== "step-up-required") throw new Error(weak?.code);
      await sdk.signInWithRecoveryCode(custody, code);
      const { codes } = await sdk.rotateSecret(custody);
      const pending = [await sdk.rotationPending(custody)];
      await sdk.rotationSeen(custody);
      pending.push(await sdk.rotationPending(custody));
      return { codes: codes.map(({ text }) => text), pending };
    },
    { id, pin: PIN, code: codes[1] ?? "" },
  );
  assert.deepEqual(next.pending, [true, false]);
  const later = await written(phone, "written after");
  // The thief has the PIN, too, and what it unlocks on the lost device is of before.
  const thief = await lost.page.evaluate(async (pin) => {
    const { custody } = kept;
    const signedIn = await kept.tried(() => sdk.signInWithPin(custody, pin));
    await sdk.unlockOfflineByPin(custody, pin);
    return signedIn?.name;
  }, PIN);
  assert.equal(thief, "AuthenticationFailed");
  assert.equal(await read(lost, later), undefined);
  const byCode = (code: string) =>
    fresh.page.evaluate(
      async ({ account, code }) => {
        let key: string | undefined;
        const options = { account, bindDevice: "fresh" };
        const failed = await kept.tried(async () => {
          const signedIn = await sdk.signInWithRecoveryCode(kept.custody, code, options);
          key = signedIn.unlocked?.thumbprint;
        });
        return failed?.name ?? key;
      },
      { account, code },
    );
  assert.equal(await byCode(codes[3] ?? ""), "AuthenticationFailed");
  assert.equal(await byCode(next.codes[3] ?? ""), key);
  assert.equal(await read(fresh, later), "written after");
  // On the phone the PIN unlocks offline again once it was used.
  await stage.reload(phone);
  const offline = await phone.page.evaluate(async (pin) => {
    const { custody } = kept;
    const before = (await sdk.offlineState(custody)).byPin;
    await sdk.signInWithPin(custody, pin);
    sdk.lock(custody);
    const { thumbprint } = await sdk.unlockOfflineByPin(custody, pin);
    return { before, key: thumbprint };
  }, PIN);
  assert.deepEqual(offline, { before: false, key });
  assert.equal(await read(phone, later), "written after");
  await Promise.all([phone, lost, fresh].map(({ context }) => context.close()));
});

test("where the answer is lost, the next sign-in has the new secret, and the codes are there still", async () => {
  const phone = await stage.device();
  await openSealed(phone);
  const key = await phone.page.evaluate(async (pin) => {
    const { thumbprint } = await sdk.enrol(kept.custody);
    await sdk.setPin(kept.custody, pin);
    return thumbprint;
  }, PIN);
  const under = await written(phone, "written before");
  let taken = 0;
  await phone.page.route("**/v1/account/recovery-codes", async (route) => {
    if (route.request().method() === "OPTIONS" || taken > 0) return route.continue();
    // A request without a nonce is answered with one, and changes nothing.
    const answer = await route.fetch({ maxRetries: 0 });
    if (!answer.ok()) return route.fulfill({ response: answer });
    taken += 1;
    return route.abort();
  });
  const broken = await phone.page.evaluate(async () => {
    const failed = await kept.tried(() => sdk.rotateSecret(kept.custody));
    return { code: failed?.code, pending: await sdk.rotationPending(kept.custody) };
  });
  assert.deepEqual([broken, taken], [{ code: "unreachable", pending: true }, 1]);
  await stage.reload(phone);
  await openSealed(phone);
  const again = await phone.page.evaluate(async (pin) => {
    const { custody } = kept;
    const pending = await sdk.rotationPending(custody);
    const { unlocked } = await sdk.signInWithPin(custody, pin);
    const { codes } = await sdk.resumeRotation(custody);
    const account = custody.account!.account;
    const { factor } = await sdk.signInWithRecoveryCode(custody, codes[0]!.text, { account });
    await sdk.rotationSeen(custody);
    const over = await sdk.rotationPending(custody);
    return { pending, key: unlocked?.thumbprint, codes: codes.length, factor, over };
  }, PIN);
  assert.deepEqual(again, { pending: true, key, codes: 10, factor: "recovery-code", over: false });
  assert.equal(await read(phone, under), "written before");
  await phone.context.close();
});

test("one request takes along what does not fit into one, and what no one login reads is no hindrance", async () => {
  const phone = await stage.device();
  await openSealed(phone);
  const seen = await phone.page.evaluate(async (pin) => {
    const { custody } = kept;
    await sdk.enrol(custody);
    await sdk.setPin(custody, pin);
    await sdk.addPasskey(custody, { user: "Ann" });
    // The policy gives the diary to the PIN alone, and the ledger to passkeys.
    const names = ["diary", "ledger", "a", "b", "c", "d"];
    const content = (at: number) => new Uint8Array(11_800).fill(at);
    for (const [at, name] of names.entries())
      await sdk.putSecret(custody, name, content(at), undefined);
    await sdk.signInWithPin(custody, pin);
    const weak = await kept.tried(() => sdk.rotateSecret(custody));
    await sdk.signInWithPasskey(custody);
    const { left } = await sdk.rotateSecret(custody);
    const read: (number | undefined)[] = [];
    for (const name of names.slice(1))
      read.push((await sdk.getSecret(custody, name))?.content[11_799]);
    await sdk.signInWithPin(custody, pin);
    const diary = await sdk.getSecret(custody, "diary");
    await sdk.putSecret(custody, "diary", diary!.content, diary!.version);
    const slots = async () => {
      const path = { name: "diary" };
      const route = "/v1/account/secrets/{name}";
      return (await custody.transport.request("get", route, { path })).slots.length;
    };
    return { weak: weak?.code, left, read, diary: diary?.content.length, slots: await slots() };
  }, PIN);
  assert.deepEqual(seen, {
    ...{ weak: "step-up-required", left: ["diary"], read: [1, 2, 3, 4, 5] },
    ...{ diary: 11_800, slots: 1 },
  });
  await phone.context.close();
});
