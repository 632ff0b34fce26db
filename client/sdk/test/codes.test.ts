/** New recovery codes whose answer is lost: they are shown later, or those of before are good, and nobody else has them. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fromBase64Url, toBase64Url } from "../src/bytes.js";
import { type Custody, lock } from "../src/custody.js";
import { codeCredential, type RecoveryCode } from "../src/demand/recovery-codes.js";
import { codesPending, codesSeen, setRecoveryCodes, unseenCodes } from "../src/factors.js";
import { aesKey, open } from "../src/keys.js";
import { hkdf } from "../src/bytes.js";
import { rotationSeen } from "../src/rotation.js";
import { openContent, openSlot, type SlotKey } from "../src/slots.js";
import { tend } from "../src/upkeep.js";
import { memoryStorage } from "../src/storage/memory.js";
import type { Storage } from "../src/storage/storage.js";
import type { Asked } from "./support/daemon.js";
import { problem } from "./support/daemon.js";
import { failing, type Fate, placeOf, Safe } from "./support/safe.js";

const auths = (codes: readonly RecoveryCode[] | undefined) =>
  codes?.map(({ auth }) => toBase64Url(auth));

const keyOf = async ({ auth, slot }: RecoveryCode): Promise<SlotKey> => {
  return { type: "recovery-code", credential: await codeCredential(auth), material: slot };
};

/** The answer to the nth set of codes is lost, or the set itself. */
const losing = (fate: Fate, which = 1) => {
  let sets = 0;
  return ({ path }: Asked): Fate => {
    if (!path.endsWith("/recovery-codes")) return "done";
    sets += 1;
    return sets === which ? fate : "done";
  };
};

/** A page that is loaded again and signs in. */
async function back(safe: Safe, storage: Storage, ...by: readonly SlotKey[]): Promise<Custody> {
  const again = await safe.device(storage);
  await safe.opened(again, ...by);
  return again;
}

test("interrupted at any request and at any write, the codes are those of before or are shown at the next sign-in", async () => {
  let [stopped, late] = [0, 0];
  for (const endToEnd of [true, false])
    for (const where of ["network", "disk"] as const)
      for (const fate of ["lost", "answer-lost"] as const)
        for (let at = 1; ; at += 1) {
          const safe = await Safe.make(endToEnd);
          const storage = memoryStorage();
          let [asked, armed] = [0, false];
          const fates = (which: "network" | "disk") => (): Fate => {
            if (!armed || which !== where) return "done";
            asked += 1;
            if (asked < at) return "done";
            return asked === at ? fate : "lost";
          };
          const phone = await safe.device(failing(storage, fates("disk")), fates("network"));
          await safe.opened(phone, safe.pin, safe.passkey);
          const before = await setRecoveryCodes(phone);
          await codesSeen(phone);
          armed = true;
          const done = await setRecoveryCodes(phone).then(
            () => true,
            () => false,
          );
          armed = false;
          const told = `${endToEnd} ${where} ${fate} at ${at}`;
          const happened = safe.sets.length === 2;
          // Loaded again, and signed in with either factor.
          for (const by of [safe.pin, safe.passkey]) {
            const again = await back(safe, storage, by);
            const codes = await unseenCodes(again);
            assert.deepEqual(auths(codes), happened ? safe.sets[1]!.codes : undefined, told);
            // They open it: a code on a new device, by its slot.
            const fresh = await safe.device();
            const key = await safe.opened(fresh, await keyOf((codes ?? before)[3]!));
            assert.equal(key.thumbprint, safe.first.thumbprint, told);
          }
          const again = await back(safe, storage, safe.pin);
          await codesSeen(again);
          assert.equal(await unseenCodes(again), undefined, told);
          if (happened && !done) late += 1;
          if (done && asked < at) break;
          stopped += 1;
        }
  assert.ok(stopped > 15 && late > 5, `${stopped} ${late}`);
});

test("tried again after a lost answer, each set is kept until it is known which one is good", async () => {
  // The first came about, and the second never arrived; then the first never arrived, and neither did an answer to the second.
  for (const fates of [["answer-lost", "lost"] as const, ["lost", "answer-lost"] as const]) {
    const safe = await Safe.make(true);
    const storage = memoryStorage();
    const phone = await safe.device(storage, (asked) => {
      const [first, second] = fates;
      if (!asked.path.endsWith("/recovery-codes")) return "done";
      tries += 1;
      return tries === 1 ? first : second;
    });
    let tries = 0;
    await safe.opened(phone, safe.pin);
    for (let at = 0; at < fates.length; at += 1)
      await assert.rejects(setRecoveryCodes(phone), { code: "unreachable" });
    assert.equal(safe.sets.length, 1);
    const again = await back(safe, storage, safe.passkey);
    assert.deepEqual(auths(await unseenCodes(again)), safe.sets[0]!.codes);
    // A refusal leaves what may be good.
    safe.refuse = ({ path }) =>
      path.endsWith("/recovery-codes") ? problem(403, "step-up-required") : undefined;
    await assert.rejects(setRecoveryCodes(again), { code: "step-up-required" });
    assert.deepEqual(auths(await unseenCodes(again)), safe.sets[0]!.codes);
    safe.refuse = () => undefined;
    // And an answer ends all of them.
    const made = await setRecoveryCodes(again);
    assert.equal(((await storage.get("codes")) as object[]).length, 1);
    assert.deepEqual(auths(await unseenCodes(again)), auths(made));
  }
});

test("whoever has the device has none of them, and codes that were used or replaced are not shown", async () => {
  const safe = await Safe.make(true);
  const storage = memoryStorage();
  const phone = await safe.device(storage, losing("answer-lost"));
  await safe.opened(phone, safe.pin, safe.passkey);
  await assert.rejects(setRecoveryCodes(phone), { code: "unreachable" });
  const [set] = (await storage.get("codes")) as { sealed: Uint8Array<ArrayBuffer> }[];
  const label = "custodyd/sdk/codes/v1";
  const under = async (key: Uint8Array<ArrayBuffer>) =>
    open(await aesKey(await hkdf(key, label)), label, set!.sealed);
  // The control: the content key that a sign-in brings opens them. What unlocks offline, the device secret, does not.
  const { sealed, slots } = safe.secrets.get("device-secret")!;
  const slot = slots!.find(({ type }) => type === "opaque")!;
  const key = (await openSlot(placeOf("device-secret"), safe.pin, slot))!;
  assert.ok(await openContent(placeOf("device-secret"), key, fromBase64Url(sealed!)!));
  assert.ok(await under(key));
  assert.equal(await under(phone.unlocked!.secret), undefined);
  // One of them is used on another device, which takes its slot.
  const laptop = await safe.device(memoryStorage());
  await safe.opened(laptop, safe.passkey);
  const all = (await unseenCodes(await back(safe, storage, safe.pin)))!;
  assert.equal(all.length, 10);
  const gone = await codeCredential(all[0]!.auth);
  const stored = safe.secrets.get("device-secret")!;
  safe.secrets.set("device-secret", {
    ...stored,
    slots: stored.slots!.filter(({ credential }) => credential !== gone),
  });
  const left = await unseenCodes(await back(safe, storage, safe.pin));
  assert.deepEqual(auths(left), auths(all.slice(1)));
  // Another device makes others.
  await setRecoveryCodes(laptop);
  const again = await back(safe, storage, safe.pin);
  assert.equal(await unseenCodes(again), undefined);
  // What may be on its way still is kept for a while, and no longer.
  const kept = (await storage.get("codes")) as object[];
  assert.equal(kept.length, 1);
  await storage.update([], (update) => {
    update.set("codes", [{ ...kept[0], at: Date.now() - 3_600_000 }]);
  });
  assert.equal(await unseenCodes(again), undefined);
  assert.equal(await storage.get("codes"), undefined);
});

test("where codes are all that opens the account, the one that was used up opens the new ones", async () => {
  for (const fate of ["answer-lost", "lost"] as const) {
    const safe = await Safe.make(true);
    const storage = memoryStorage();
    // An account whose other factors have no slot, as a passkey without PRF.
    const first = await safe.device();
    await safe.opened(first, safe.pin);
    const paper = await setRecoveryCodes(first);
    const device = safe.secrets.get("device-secret")!;
    const slots = device.slots!.filter(({ type }) => type === "recovery-code");
    safe.secrets.set("device-secret", { ...device, slots });
    const phone = await safe.device(storage, losing(fate), "recovery-code");
    await safe.opened(phone, await keyOf(paper[0]!));
    // As a sign-in does it: the slot of the code that was used up goes.
    await tend(phone);
    assert.equal(safe.secrets.get("device-secret")!.slots!.length, 9);
    await assert.rejects(setRecoveryCodes(phone), { code: "unreachable" });
    // Within the same page the device secret opens still, and the codes are found or made anew.
    const happened = fate === "answer-lost";
    const codes = await unseenCodes(phone);
    assert.deepEqual(auths(codes), happened ? safe.sets[1]!.codes : undefined);
    // The page is gone: none of the others on the paper opens them, the one that was typed does.
    const again = await safe.device(storage);
    assert.equal(await unseenCodes(again, paper[1]!.text), undefined);
    const shown = (await unseenCodes(again, paper[0]!.text))!;
    assert.equal(shown.length, 10);
    if (happened) {
      const key = await safe.opened(again, await keyOf(shown[0]!));
      assert.equal(key.thumbprint, safe.first.thumbprint);
    } else {
      // They are not the account's; the paper is.
      const key = await safe.opened(again, await keyOf(paper[1]!));
      assert.equal(key.thumbprint, safe.first.thumbprint);
    }
    lock(again);
  }
});

test("the code that was used up opens the second set that was made in its session, too", async () => {
  const safe = await Safe.make(true);
  const storage = memoryStorage();
  const first = await safe.device();
  await safe.opened(first, safe.pin);
  const paper = await setRecoveryCodes(first);
  const device = safe.secrets.get("device-secret")!;
  const slots = device.slots!.filter(({ type }) => type === "recovery-code");
  safe.secrets.set("device-secret", { ...device, slots });
  const phone = await safe.device(storage, losing("answer-lost", 2), "recovery-code");
  for (const code of paper.slice(0, 2)) {
    await safe.opened(phone, await keyOf(code));
    await tend(phone);
  }
  await setRecoveryCodes(phone);
  await codesSeen(phone);
  await assert.rejects(setRecoveryCodes(phone), { code: "unreachable" });
  const again = await safe.device(storage);
  // It is the one that was used last.
  assert.equal(await unseenCodes(again, paper[0]!.text), undefined);
  assert.deepEqual(auths(await unseenCodes(again, paper[1]!.text)), safe.sets[2]!.codes);
});

test("after new codes the session goes on without another sign-in, by whatever it was opened with", async () => {
  const safe = await Safe.make(true);
  const first = await safe.device();
  await safe.opened(first, safe.pin);
  const paper = await setRecoveryCodes(first);
  const phone = await safe.device(memoryStorage(), undefined, "recovery-code");
  await safe.opened(phone, await keyOf(paper[0]!));
  const made = await setRecoveryCodes(phone);
  // The slot of one that goes on opening here is not taken for used.
  await setRecoveryCodes(phone);
  const again = await setRecoveryCodes(phone);
  assert.notDeepEqual(auths(made), auths(again));
  const { slots } = safe.secrets.get("device-secret")!;
  assert.equal(slots!.filter(({ type }) => type === "recovery-code").length, 10);
});

test("a tab whose codes were written down leaves later ones of another tab, which nobody has seen", async () => {
  const safe = await Safe.make(true);
  const storage = memoryStorage();
  const [first, second] = [
    await safe.device(storage),
    await safe.device(storage, losing("answer-lost")),
  ];
  await safe.opened(first, safe.pin);
  await safe.opened(second, safe.pin);
  await setRecoveryCodes(first);
  // Made later, by whoever could not tell of it.
  await new Promise((resolve) => setTimeout(resolve, 5));
  await assert.rejects(setRecoveryCodes(second), { code: "unreachable" });
  await codesSeen(first);
  await rotationSeen(first);
  const again = await back(safe, storage, safe.pin);
  assert.deepEqual(auths(await unseenCodes(again)), safe.sets[1]!.codes);
  await codesSeen(again);
  assert.equal(await codesPending(again), false);
});
