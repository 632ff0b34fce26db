/** A PIN that is changed offline, and told to the daemon later: which answers may be lost, and what a PIN must be. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Custody, keepAccount } from "../src/custody.js";
import { changeOffline, settle } from "../src/demand/pin-change.js";
import { use } from "../src/demand/t.js";
import { StorageFailed, Unreachable, WrongGuess } from "../src/errors.js";
import { setPin } from "../src/factors.js";
import { Unlocked } from "../src/keys.js";
import { OFFLINE } from "../src/offline/kept.js";
import { keepOfflineByPin } from "../src/offline/pin.js";
import { offlineState, unlockOfflineByPin } from "../src/offline/slots.js";
import { keepAppKey, type SignedIn } from "../src/session.js";
import type { Storage } from "../src/storage/storage.js";
import { tools } from "../src/tools.js";
import { FakeDaemon } from "./support/daemon.js";
import { Realm } from "./support/realm.js";

async function unlocked(): Promise<[Custody, Realm]> {
  const realm = await Realm.make();
  const claims = { app: "notes", sub: "a-1", kind: "pin", device_id: "pin-1", iat: 1 };
  const binding = await realm.binding(claims);
  const session = { token: "t", scope: "full", factor: "pin" };
  const daemon = new FakeDaemon(() => {
    return { body: { pin: { device_id: "pin-1", binding }, session } };
  });
  const custody = await daemon.custody(realm);
  await keepAccount(custody, { account: "a-1" });
  await keepAppKey(custody, await Unlocked.create());
  return [custody, realm];
}

/** The account's PIN at the daemon, and what is typed there. */
class Account {
  pin = "830517";
  readonly typed: string[] = [];
  /** Whether the answer to a change is lost. */
  lost = false;
  /** Whether the change itself does not arrive. */
  down = false;

  use(): void {
    use({
      ...tools(),
      signInWithPin: (_, pin) => {
        this.typed.push(pin);
        const wrong = { code: "pin-wrong", status: 401, detail: "wrong" };
        if (pin !== this.pin) return Promise.reject(new WrongGuess(wrong));
        return Promise.resolve({ undone: [] } as unknown as SignedIn);
      },
      setPin: (_, pin) => {
        if (!this.down) this.pin = pin;
        if (this.lost || this.down) return Promise.reject(new Unreachable("no answer"));
        return Promise.resolve({ slot: "made", undone: [] });
      },
    });
  }
}

test("where the answer to the new PIN is lost, the next try finds that it is the account's", async () => {
  const [custody] = await unlocked();
  const account = new Account();
  account.use();
  await keepOfflineByPin(custody, "830517");
  account.use();
  await changeOffline(custody, "830517", "294061");
  account.lost = true;
  await assert.rejects(settle(custody, "830517", "294061"), { code: "unreachable" });
  assert.equal((await offlineState(custody)).pinPending, true);
  await settle(custody, "830517", "294061");
  assert.equal((await offlineState(custody)).pinPending, false);
  // One that was right, and then the new one at once: no guess was spent.
  assert.deepEqual(account.typed, ["830517", "294061"]);
});

test("where the new PIN did not arrive, the old one settles it, and one guess was spent", async () => {
  const [custody] = await unlocked();
  const account = new Account();
  account.down = true;
  account.use();
  await assert.rejects(settle(custody, "830517", "294061"), { code: "unreachable" });
  account.down = false;
  await settle(custody, "830517", "294061");
  assert.deepEqual(account.typed, ["830517", "294061", "830517"]);
  assert.equal(account.pin, "294061");
});

test("a PIN that the daemon would refuse is refused offline", async () => {
  const [custody] = await unlocked();
  await assert.rejects(keepOfflineByPin(custody, "1234"), { code: "pin-weak" });
  await keepOfflineByPin(custody, "830517");
  for (const weak of ["1234", "83051", "123456"]) {
    await assert.rejects(changeOffline(custody, "830517", weak), { code: "pin-weak" });
  }
  // As the policy asks for, once the daemon has said so.
  await custody.storage.update([OFFLINE], (update) => {
    update.set(OFFLINE, { ...(update.get(OFFLINE) as object), minLength: 8 });
  });
  await assert.rejects(changeOffline(custody, "830517", "294061"), { code: "pin-weak" });
  await changeOffline(custody, "830517", "29406138");
  // Judged before it was charged: none of these was a guess.
  assert.equal((await offlineState(custody)).wrongPins, 0);
});

test("a PIN that is set is said to be, and the old one unlocks no more, whatever fails afterwards", async () => {
  for (const fails of [false, true]) {
    const [custody] = await unlocked();
    await keepOfflineByPin(custody, "830517");
    const working = custody.storage;
    let updates = 0;
    const failing: Storage = {
      ...working,
      update: (keys, change) => {
        if (keys.includes(OFFLINE)) updates += 1;
        const full = new StorageFailed("storage-unavailable", "full");
        return fails && updates > 1 ? Promise.reject(full) : working.update(keys, change);
      },
    };
    Object.assign(custody, { storage: failing });
    const { undone } = await setPin(custody, "294061", { onServer: true });
    Object.assign(custody, { storage: working });
    assert.deepEqual(
      undone.map(({ what, error }) => [what, error.code]),
      fails ? [["offline", "storage-unavailable"]] : [],
    );
    assert.equal((await offlineState(custody)).byPin, !fails);
    await assert.rejects(unlockOfflineByPin(custody, "830517"), {
      code: fails ? "no-offline-slot" : "offline-pin-wrong",
    });
  }
});
