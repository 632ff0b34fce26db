/**
 * Factors of the account: PIN, passkeys, TOTP, recovery codes. Adding, changing, removing.
 *
 * Each needs a session whose factor was shown just now and is at least as strong as what is changed
 * (`StepUpRequired` says what is missing), but for a forgotten PIN, which weaker ones may replace.
 * Each new credential's binding is verified before the call returns. A new factor gets its slot of the device secret in
 * the same commit; one that is removed loses it there, and what unlocks offline by it on this device goes, too.
 */
import { type Custody, ourRecord } from "./custody.js";
import type { Made } from "./demand/along.js";
import type { AddedPasskey } from "./demand/passkey.js";
import type { RecoveryCode } from "./demand/recovery-codes.js";
import type { Removed } from "./demand/removal.js";
import type { Undone } from "./session.js";
import { onDemand } from "./tools.js";
import type { Schemas } from "./transport.js";

export type { Made as MadeFactor } from "./demand/along.js";
export type { AddedPasskey } from "./demand/passkey.js";
export type { Removed } from "./demand/removal.js";

/** How a PIN is checked. */
export interface PinOptions {
  /**
   * Sends the PIN to the daemon, which hashes it (Argon2id), in place of OPAQUE. For apps whose policy has
   * no OPAQUE, and for PINs that were set this way. Never done because the daemon says so: whoever
   * runs it could else have the PIN by asking.
   */
  readonly onServer?: boolean;
}

/** A PIN that is set. */
export interface PinMade extends Made {
  /** `offline`: the new PIN unlocks here once it was used online; the old one does not any more. Mostly nothing. */
  readonly undone: readonly Undone[];
}

/**
 * Sets the PIN, changes it, or replaces a forgotten one. The session goes on. Where it may not write the device secret,
 * as a code that replaces a PIN, `slot` is `missing`.
 */
export async function setPin(
  custody: Custody,
  pin: string,
  options: PinOptions = {},
): Promise<PinMade> {
  return (await onDemand()).setPin(custody, pin, options);
}

/** Removes the PIN. */
export async function removePin(custody: Custody): Promise<Removed> {
  return (await onDemand()).removePin(custody);
}

/**
 * Creates a passkey and adds it.
 *
 * Where nothing but the owner's factors opens the backup, a PIN or recovery codes come first (`prf-only-slot`): a
 * passkey alone would be lost with its authenticator.
 *
 * @param names the account as authenticators show it, and the passkey in the owner's list
 */
export async function addPasskey(
  custody: Custody,
  names: { readonly user?: string; readonly passkey?: string } = {},
): Promise<AddedPasskey> {
  return (await onDemand()).addPasskey(custody, names);
}

/** Confirms a passkey that expires, by using it. */
export async function confirmPasskey(custody: Custody, deviceId: string): Promise<void> {
  await (await onDemand()).confirmPasskey(custody, deviceId);
}

/** Removes a passkey. */
export async function removePasskey(custody: Custody, deviceId: string): Promise<Removed> {
  return (await onDemand()).removePasskey(custody, deviceId);
}

/** Begins with an authenticator app: its secret as a URI and as pictures to scan. */
export async function enrolTotp(
  custody: Custody,
  label?: string,
): Promise<Schemas["TotpEnrolment"]> {
  return (await onDemand()).enrolTotp(custody, label);
}

/** Confirms the authenticator app with its first code. The session goes on. */
export async function confirmTotp(custody: Custody, code: string): Promise<void> {
  await (await onDemand()).confirmTotp(custody, code);
}

/** Removes the authenticator app. */
export async function removeTotp(custody: Custody): Promise<void> {
  await custody.transport.request("delete", "/v1/account/totp");
}

/** Where recovery codes wait to be seen. */
export const CODES = "codes";

/**
 * Makes ten recovery codes in place of all earlier ones. Show their `text` once, then call `codesSeen`: until then they wait
 * on this device, also where the answer is lost, sealed under what only a sign-in brings.
 *
 * Where nothing but the owner's factors opens the backup, a session that may not write it is refused (`StepUpRequired`,
 * `release-forbidden`): codes that open nothing would take the place of some that do.
 */
export async function setRecoveryCodes(custody: Custody): Promise<RecoveryCode[]> {
  return (await onDemand()).setCodes(custody);
}

/** The new codes were shown to their owner, who has them: those that this custody has handed out, and earlier ones. */
export async function codesSeen(custody: Custody): Promise<void> {
  await (await onDemand()).seen(custody, CODES);
}

/** Whether recovery codes were made here that were perhaps not seen. Sign in, and call `unseenCodes`. */
export async function codesPending(custody: Custody): Promise<boolean> {
  return (await ourRecord(custody, CODES)) !== undefined;
}

/**
 * Codes of `setRecoveryCodes` that were perhaps never seen, where the account has them; undefined where it has others, or
 * there are none. Needs a sign-in that opens the key.
 *
 * @param usedCode the code that was used up for them, where codes are all that opens the account: then no sign-in is needed,
 * and these may be the account's, or those of before
 */
export async function unseenCodes(
  custody: Custody,
  usedCode?: string,
): Promise<RecoveryCode[] | undefined> {
  if (!(await codesPending(custody))) return undefined;
  return (await onDemand()).unseenCodes(custody, usedCode);
}

/** Makes all recovery codes void. */
export async function removeRecoveryCodes(custody: Custody): Promise<Removed> {
  return (await onDemand()).removeCodes(custody);
}

/** Cancels a change that waits because a weak factor asked for it. */
export async function cancelRecovery(custody: Custody): Promise<void> {
  await custody.transport.request("delete", "/v1/account/recovery");
}
