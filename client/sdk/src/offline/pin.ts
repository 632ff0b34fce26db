/**
 * PINs that unlock offline: turning it on, and changing the PIN there. `demand/pin-change.ts` has the change.
 */
import type { Custody } from "../custody.js";
import type { SignedIn } from "../session.js";
import { onDemand } from "../tools.js";
import { keepPin } from "./slots.js";

/**
 * Lets a PIN unlock offline. `slots.ts` says what that is worth on a stolen device. One that the daemon would refuse is
 * refused here (`pin-weak`).
 */
export async function keepOfflineByPin(custody: Custody, pin: string): Promise<void> {
  await (await onDemand()).judgeOffline(custody, pin);
  await keepPin(custody, pin);
}

/** Changes the PIN on this device. `offlineState().pinPending` is true from now on. */
export async function changePinOffline(
  custody: Custody,
  oldPin: string,
  newPin: string,
): Promise<void> {
  await (await onDemand()).changeOffline(custody, oldPin, newPin);
}

/** Online again: signs in with the PIN that the daemon knows, and tells it the new one. */
export async function settlePin(
  custody: Custody,
  oldPin: string,
  newPin: string,
): Promise<SignedIn> {
  return (await onDemand()).settlePin(custody, oldPin, newPin);
}
