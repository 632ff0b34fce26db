/**
 * A PIN that is changed without a network. The local slot takes the new one at once; the daemon's
 * copy waits until the owner types old and new PIN once, online. No PIN is ever queued.
 */
import type { Custody } from "../custody.js";
import { setPin } from "../factors.js";
import type { SignedIn } from "../session.js";
import { signInWithPin } from "../sign-in.js";
import { OFFLINE, slotsOf } from "./kept.js";
import { openPinSlot, pinSlot } from "./slots.js";

/** Changes the PIN on this device. `offlineState().pinPending` is true from now on. */
export async function changePinOffline(
  custody: Custody,
  oldPin: string,
  newPin: string,
): Promise<void> {
  const secret = await openPinSlot(custody, oldPin);
  const slot = await pinSlot(custody, newPin, secret);
  secret.fill(0);
  await custody.storage.update([OFFLINE], (update) => {
    const slots = slotsOf(update.get(OFFLINE));
    update.set(OFFLINE, { ...slots, pin: slot, pinPending: true });
  });
}

/** Online again: signs in with the PIN that the daemon knows, and tells it the new one. */
export async function settlePin(
  custody: Custody,
  oldPin: string,
  newPin: string,
): Promise<SignedIn> {
  const signedIn = await signInWithPin(custody, oldPin);
  await setPin(custody, newPin);
  await custody.storage.update([OFFLINE], (update) => {
    update.set(OFFLINE, { ...slotsOf(update.get(OFFLINE)), pinPending: false });
  });
  return signedIn;
}
