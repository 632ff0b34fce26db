/** `lock` while factors, slots or the device secret are changed: it comes about whole or not at all, and nothing lies under zeros. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ready, server } from "@serenity-kit/opaque";
import { random, toBase64Url } from "../src/bytes.js";
import { type Custody, lock } from "../src/custody.js";
import { login } from "../src/demand/opaque.js";
import { addPasskey, passkeyCredential } from "../src/demand/passkey.js";
import { codeCredential, type RecoveryCode } from "../src/demand/recovery-codes.js";
import { mend } from "../src/demand/upkeep.js";
import { CODES, codesSeen, setPin, setRecoveryCodes, unseenCodes } from "../src/factors.js";
import { keepOfflineByPin } from "../src/offline/pin.js";
import { keepOfflineByPasskey, unlockOfflineByPin } from "../src/offline/slots.js";
import { resumeRotation, rotateSecret } from "../src/rotation.js";
import { backUp, putSecret } from "../src/secrets.js";
import { openSlot, sealSlot, type SlotKey } from "../src/slots.js";
import type { Asked, Reply } from "./support/daemon.js";
import {
  bound,
  lockedAnywhere,
  opens,
  opensToZeros,
  type Rewrapped,
  take,
} from "./support/locking.js";
import { placeOf, Safe } from "./support/safe.js";
import { atStep } from "./support/steps.js";

const session = { token: "passkey", scope: "full", factor: "passkey" };

test("a slot by reference, and `lock` in between: the thief of the database opens it, or nobody", async () => {
  // The control of all that follows: what is sealed without a copy.
  const safe = await Safe.make(true);
  const custody = await safe.device();
  await safe.opened(custody, safe.pin, safe.passkey);
  const place = placeOf("device-secret");
  const { key } = custody.held!;
  const late = sealSlot(place, safe.pin, key);
  lock(custody);
  const nobodys = await openSlot(place, safe.pin, await late);
  assert.deepEqual(nobodys, new Uint8Array(32));
  const [, by] = [key, { ...safe.pin, material: new Uint8Array(64) }];
  const stored = safe.secrets.get("device-secret")!;
  safe.write("device-secret", { ...stored, slots: [await sealSlot(place, by, random(32))] });
  assert.deepEqual(await opensToZeros(safe, custody), ["opaque of device-secret"]);
});

test("a PIN that is set", async () => {
  await ready;
  const key_stretching = { memory_kib: 19456, passes: 2, lanes: 1 };
  const serverSetup = server.createSetup();
  const userIdentifier = "ann";
  const records = new WeakMap<Safe, string>();
  await lockedAnywhere({
    name: "setPin",
    gone: ["opaque"],
    before: async (safe) => {
      const pin = await bound(safe, "pin", "pin-2");
      safe.refuse = ({ path, body = "{}" }: Asked): Reply | undefined => {
        const sent = JSON.parse(body) as { request: string; record: string; secrets: Rewrapped };
        if (path.endsWith("/opaque/start")) {
          const { registrationResponse: response } = server.createRegistrationResponse({
            ...{ serverSetup, userIdentifier, registrationRequest: sent.request },
          });
          const told = { registration: "r", response, key_stretching, salt: "AAAA" };
          return { body: { ...told, min_length: 6, expires: 1 } };
        }
        if (!path.endsWith("/opaque/finish")) return undefined;
        take(safe, sent.secrets);
        records.set(safe, sent.record);
        return { body: { pin, session } };
      };
    },
    call: (custody) => setPin(custody, "294061"),
    whole: async (safe) => {
      const { key } = await login("294061", (startLoginRequest) => {
        const { loginResponse: ke2 } = server.startLogin({
          ...{ serverSetup, userIdentifier, startLoginRequest },
          registrationRecord: records.get(safe)!,
        });
        const told = { attempts_left: 5, exhausted: false };
        return Promise.resolve({ login: "l", ke2, key_stretching, expires: 1, ...told });
      });
      const slot = safe.secrets.get("device-secret")!.slots!.find(({ type }) => type === "opaque")!;
      const by = { ...key, credential: slot.credential } as SlotKey;
      assert.ok(await opens(safe, by, safe.first.secret));
    },
  });
});

test("a passkey that is added", async () => {
  const output = random(32);
  // An authenticator's data with a credential of no bytes and an empty key.
  const data = new Uint8Array(64);
  data[55] = 0xa0;
  class Credential {
    readonly id = "AAAA";
    readonly rawId = new ArrayBuffer(3);
    readonly type = "public-key";
    readonly response = {
      clientDataJSON: new ArrayBuffer(1),
      attestationObject: new ArrayBuffer(1),
      getTransports: () => ["internal"],
      getAuthenticatorData: () => data.buffer,
    };
    readonly getClientExtensionResults = () => ({
      prf: { enabled: true, results: { first: output.buffer } },
    });
  }
  let isShown: () => void = () => undefined;
  const create = async () => {
    isShown();
    await crypto.subtle.digest("SHA-256", data);
    return new Credential();
  };
  const value = { credentials: { create } };
  Object.defineProperty(globalThis, "navigator", { configurable: true, value });
  Object.assign(globalThis, { PublicKeyCredential: Credential });
  const challenge = toBase64Url(random(32));
  const extensions = { prf: { eval: { first: challenge } } };
  const user = { id: challenge, name: "Ann", displayName: "Ann" };
  const publicKey = { challenge, rp: { id: "localhost", name: "Notes" }, user, extensions };
  const credential = await passkeyCredential(data);
  let ceremonies = 0;
  isShown = () => {
    ceremonies += 1;
  };
  await lockedAnywhere({
    name: "addPasskey",
    before: async (safe) => {
      const added = await bound(safe, "passkey", "key-2");
      safe.refuse = ({ method, path, body = "{}" }: Asked): Reply | undefined => {
        if (path.endsWith("/options")) return { body: { ceremony: "c", publicKey } };
        if (method !== "POST" || path !== "/v1/account/passkeys") return undefined;
        take(safe, (JSON.parse(body) as { secrets: Rewrapped }).secrets);
        return { body: added };
      };
    },
    call: (custody) => addPasskey(custody, {}),
    whole: async (safe) => {
      const by = { type: "prf", credential, material: output } as const;
      assert.ok(await opens(safe, by, safe.first.secret));
    },
  });
  assert.ok(ceremonies > 5);
});

const keyOf = async ({ auth, slot: material }: RecoveryCode): Promise<SlotKey> => {
  return { type: "recovery-code", credential: await codeCredential(auth), material };
};

test("recovery codes, and the set that waits to be seen", async () => {
  for (const renews of [true, false])
    await lockedAnywhere({
      every: 7,
      name: `setRecoveryCodes, ${renews ? "another content key" : "the same"}`,
      before: async (safe, custody) => {
        // Of a passkey that was not used, no slot can be made anew.
        if (!renews) custody.slotKeys = custody.slotKeys.filter(({ type }) => type !== "prf");
        await Promise.resolve(safe);
      },
      call: setRecoveryCodes,
      whole: async (safe, custody) => {
        const again = await safe.device(custody.storage);
        await safe.opened(again, safe.pin);
        const codes = (await unseenCodes(again))!;
        assert.equal(codes.length, 10);
        for (const one of codes) assert.ok(await opens(safe, await keyOf(one), safe.first.secret));
      },
    });
});

test("locked while codes are looked for that were not seen, they wait on", async () => {
  for (let at = 1; ; at += 3) {
    const safe = await Safe.make(true);
    const custody = await safe.device();
    await safe.opened(custody, safe.pin, safe.passkey);
    const codes = await setRecoveryCodes(custody);
    // So long ago that none is on its way any more.
    await custody.storage.update([CODES], (update) => {
      const sets = update.get(CODES) as object[];
      update.set(
        CODES,
        sets.map((one) => ({ ...one, at: 0 })),
      );
    });
    const { reached } = await atStep(
      custody,
      at,
      () => {
        lock(custody);
      },
      () => unseenCodes(custody),
    );
    const again = await safe.device(custody.storage);
    await safe.opened(again, safe.pin);
    assert.equal((await unseenCodes(again))?.length, codes.length, `locked at ${at}`);
    await codesSeen(again);
    if (!reached) break;
  }
});

test("another device secret", async () => {
  await lockedAnywhere({
    name: "rotateSecret",
    every: 4,
    before: async (safe, custody) => {
      await putSecret(custody, "draft", random(9), undefined);
      const way = { credentialId: "c", salt: "s", rpId: "r", output: safe.passkey.material };
      await keepOfflineByPasskey(custody, { ...way, deviceId: "key-1" });
    },
    call: rotateSecret,
    whole: async (safe, custody, value) => {
      assert.deepEqual(value!.left, []);
      const again = await safe.device(custody.storage);
      await safe.opened(again, safe.pin);
      const { codes } = await resumeRotation(again);
      assert.deepEqual(
        codes.map(({ text }) => text),
        value!.codes.map(({ text }) => text),
      );
      for (const one of codes) assert.ok(await opens(safe, await keyOf(one), safe.first.secret));
      for (const by of [safe.pin, safe.passkey])
        assert.ok(await opens(safe, by, safe.first.secret));
    },
  });
});

test("slots that are mended after a sign-in", async () => {
  const late: SlotKey = { type: "prf", credential: "key-2", material: random(32) };
  await lockedAnywhere({
    name: "mend",
    before: (safe, custody) => {
      custody.slotKeys = [...custody.slotKeys, { ...late, material: late.material.slice() }];
      return Promise.resolve(safe);
    },
    call: async (custody) => {
      const { error } = await mend(custody);
      if (error) throw error;
    },
    whole: async (safe) => {
      assert.ok(await opens(safe, late, safe.first.secret));
    },
  });
});

test("a first backup", async () => {
  await lockedAnywhere({
    name: "backUp",
    isNeverStopped: true,
    endToEnd: false,
    before: (safe) => {
      safe.secrets.clear();
      return Promise.resolve();
    },
    call: (custody) => backUp(custody, custody.unlocked!),
    whole: async (safe) => {
      const fresh = await safe.device();
      assert.equal((await safe.opened(fresh)).thumbprint, safe.first.thumbprint);
    },
  });
});

test("a PIN that is to unlock offline", async () => {
  const kept = async (_: Safe, { storage }: Custody) => {
    const { pin } = ((await storage.get("offline")) ?? {}) as { pin?: { salt: Uint8Array } };
    return pin && [...pin.salt];
  };
  const whole = async (safe: Safe, custody: Custody) => {
    const again = await safe.device(custody.storage);
    const { thumbprint } = await unlockOfflineByPin(again, "830517");
    assert.equal(thumbprint, safe.first.thumbprint);
  };
  await lockedAnywhere({
    name: "keepOfflineByPin",
    call: (custody) => keepOfflineByPin(custody, "830517"),
    state: kept,
    whole,
  });
});
