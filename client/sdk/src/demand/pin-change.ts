/**
 * A PIN that is changed without a network. The local slot takes the new one at once; the daemon's
 * copy waits until the owner types old and new PIN once, online. No PIN is ever queued. Called by `../offline/pin.ts`.
 */
import type { Custody } from "../custody.js";
import type { Slots } from "../offline/kept.js";
import type { SignedIn } from "../session.js";
import { judgePin } from "./opaque.js";
import { t } from "./t.js";

/** What a policy asks for where it says nothing else. This device knows no better before the daemon has said so. */
const MIN_LENGTH = 6;

const keep = (custody: Custody, change: Partial<Slots>): Promise<void> =>
  t.ours(custody, [t.OFFLINE], (update) => {
    update.set(t.OFFLINE, { ...t.slotsOf(update.get(t.OFFLINE)), ...change });
  });

/** Refuses what the daemon would refuse on return. */
export async function judgeOffline(custody: Custody, pin: string): Promise<void> {
  const { minLength = MIN_LENGTH } = t.slotsOf(await t.ourRecord(custody, t.OFFLINE));
  judgePin(pin, minLength);
}

/** What the policy asks of a PIN, for when nobody can be asked. */
export async function keepMinLength(custody: Custody, minLength: number): Promise<void> {
  await keep(custody, { minLength });
}

/** Changes the PIN on this device. */
export async function changeOffline(
  custody: Custody,
  oldPin: string,
  newPin: string,
): Promise<void> {
  await judgeOffline(custody, newPin);
  const secret = await t.openPinSlot(custody, oldPin);
  const slot = await t.pinSlot(custody, newPin, { secret });
  secret.fill(0);
  const { pin: before } = t.slotsOf(await t.ourRecord(custody, t.OFFLINE));
  const pin = { ...slot, credential: before?.credential };
  await keep(custody, { pin, pinPending: true, pinSent: false });
}

/**
 * Signs in with the PIN that the daemon knows, and tells it the new one. Where that was sent before and the answer lost, it
 * may be the account's already: then it is tried first, and the old one where it is not.
 */
export async function settle(custody: Custody, oldPin: string, newPin: string): Promise<SignedIn> {
  const { pinSent } = t.slotsOf(await t.ourRecord(custody, t.OFFLINE));
  if (pinSent) {
    try {
      const signedIn = await t.signInWithPin(custody, newPin);
      await keep(custody, { pinPending: false, pinSent: false });
      return signedIn;
    } catch (error) {
      if (!(error instanceof t.WrongGuess)) throw error;
      await keep(custody, { pinSent: false });
    }
  }
  const signedIn = await t.signInWithPin(custody, oldPin);
  await keep(custody, { pinSent: true });
  let undone;
  try {
    ({ undone } = await t.setPin(custody, newPin));
  } catch (error) {
    // Nothing came of it. Of any other failure it is not known.
    const isNothing =
      error instanceof t.Refused ? error.status < 500 : error instanceof t.CanNotOpen;
    if (isNothing) await keep(custody, { pinSent: false });
    throw error;
  }
  await keep(custody, { pinPending: false, pinSent: false });
  return { ...signedIn, undone: [...signedIn.undone, ...undone] };
}
