/**
 * Ways to unlock without a network that end: the factor was removed or changed, here or on another device, or the app wants
 * them no more. And what is told of wrong PINs. Called by `../offline/*.ts`, by `removal.ts` and by `setPin`.
 */
import type { Custody } from "../custody.js";
import type { PasskeySlot, Slots } from "../offline/kept.js";
import { t } from "./t.js";

/** What the daemon takes at once. */
const MOST = 1_000_000;

const change = (custody: Custody, next: (slots: Slots) => Slots): Promise<void> =>
  t.ours(custody, [t.OFFLINE], (update) => {
    update.set(t.OFFLINE, next(t.slotsOf(update.get(t.OFFLINE))));
  });

/** Called by `dropOffline` of `../offline/slots.ts`. */
export async function dropOffline(custody: Custody, way?: "passkey" | "pin"): Promise<void> {
  const isOf = (one: string) => (one === t.PIN) === (way === "pin");
  await change(custody, ({ passkeys, stale, unreported, minLength, ...pin }) => ({
    // Whether the daemon knows the PIN goes with it.
    ...(way === "passkey" ? pin : { wrongPins: 0 }),
    passkeys: way === "pin" ? passkeys : [],
    stale: way && stale?.filter((one) => !isOf(one)),
    unreported,
    minLength,
  }));
}

/**
 * A PIN that was changed is not to unlock offline any longer, whatever fails from here on; the new one does, at once or
 * once it was used online.
 */
export async function renewOfflinePin(custody: Custody, pin: string): Promise<void> {
  const isKept = await t.ours(custody, [t.OFFLINE], (update) => {
    const { pin: slot, ...slots }: Slots = t.slotsOf(update.get(t.OFFLINE));
    const { stale = [] } = slots;
    if (slot) update.set(t.OFFLINE, { ...slots, stale: [...stale, t.PIN], pinPending: false });
    return slot !== undefined || stale.includes(t.PIN);
  });
  if (!isKept) return;
  if (custody.unlocked && !custody.unlocked.locked) await t.keepPin(custody, pin);
  else await dropOffline(custody, "pin");
}

/** A passkey that was removed unlocks no more, and neither does one of which it is not known whether it was that. */
export async function dropOfflinePasskey(custody: Custody, deviceId: string): Promise<void> {
  const stays = (one?: string) => one !== undefined && one !== deviceId;
  await keepPasskeys(custody, (slot) => stays(slot.deviceId));
}

/** Only passkeys that are known to be the account's, as its owner removed some on another device. */
export async function dropOthersOffline(custody: Custody, has: ReadonlySet<string>): Promise<void> {
  await keepPasskeys(custody, ({ deviceId: one }) => one !== undefined && has.has(one));
}

async function keepPasskeys(
  custody: Custody,
  stays: (slot: PasskeySlot) => boolean,
): Promise<void> {
  const { passkeys }: Slots = t.slotsOf(await t.ourRecord(custody, t.OFFLINE));
  if (passkeys.every(stays)) return;
  await change(custody, (slots) => ({
    ...slots,
    passkeys: slots.passkeys.filter(stays),
    // One that an earlier release kept is made again, with its name, once it was used: a passkey that is no more never is.
    stale: [
      ...(slots.stale ?? []),
      ...slots.passkeys.filter((one) => !one.deviceId).map((one) => one.credentialId),
    ],
  }));
}

/** What was removed on another device is not to unlock this one, and a PIN of before as little. */
export async function followRemovals(custody: Custody): Promise<void> {
  const view = await custody.transport.request("get", "/v1/account");
  await dropOthersOffline(custody, new Set(view.passkeys.map((one) => one.device_id)));
  const now = view.pin?.device_id;
  const { pin: slot }: Slots = t.slotsOf(await t.ourRecord(custody, t.OFFLINE));
  // Which PIN it is that an earlier release kept nobody knows: it may be the one of before.
  if (!slot || (now !== undefined && (slot.credential ?? now) === now)) return;
  if (now === undefined) {
    await dropOffline(custody, "pin");
    return;
  }
  await change(custody, (slots) => {
    const { pin, ...others } = slots;
    if (!pin || (pin.credential ?? now) === now) return slots;
    const stale = [...(slots.stale ?? []), t.PIN];
    return { ...others, stale, wrongPins: 0, pinPending: false, pinSent: false };
  });
}

/** Called by `reportOffline` of `../offline/report.ts`. */
export async function report(custody: Custody, counted: number): Promise<number> {
  const wrong_pins = Math.min(counted, MOST);
  await custody.transport.request("post", "/v1/account/offline-report", { body: { wrong_pins } });
  // Those that were typed while the report was on its way are still to come.
  await change(custody, (slots) => ({
    ...slots,
    unreported: Math.max((slots.unreported ?? 0) - wrong_pins, 0),
  }));
  return wrong_pins;
}
