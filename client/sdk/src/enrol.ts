/**
 * Enrolment: a new account, its two keys proven and bound, its backup stored. `demand/enrol.ts` does it.
 */
import { type Custody, KEPT, ourRecord, ours } from "./custody.js";
import type { Unlocked } from "./keys.js";
import { onDemand } from "./tools.js";
import { PENDING } from "./vault.js";

/** What an enrolment takes. */
export interface EnrolOptions {
  /** A name for this device, in the owner's list. */
  readonly deviceName?: string;
  /** A ticket of the app's backend, where the policy wants one. */
  readonly ticket?: string;
}

/**
 * Whether an enrolment was begun here whose account has no way in yet: until there is a PIN, a passkey, recovery codes or an
 * authenticator app this is true, and `enrol` goes on, or finds that a confirmed contact is one. Sealed end to end, the
 * backup goes out with the first PIN or recovery codes, and ends it with them.
 */
export async function enrolmentPending(custody: Custody): Promise<boolean> {
  return (await ourRecord(custody, PENDING)) !== undefined;
}

/**
 * Creates the account of this device and backs its key up. The session counts as fresh for ten
 * minutes: add a passkey, a PIN or recovery codes within it, or nobody comes back in.
 */
export async function enrol(custody: Custody, options: EnrolOptions = {}): Promise<Unlocked> {
  return (await onDemand()).enrol(custody, options);
}

/** Gives up an enrolment that was begun, with the key that nobody has used yet. */
export async function abandonEnrolment(custody: Custody): Promise<void> {
  await ours(custody, [], (update) => {
    update.delete(PENDING);
    update.delete(KEPT.account);
  });
  custody.account = undefined;
}
