/**
 * A sentence in English for the person in front of the screen, for every error of this package.
 *
 * An app with other languages branches on `code` in its own way and leaves this module out.
 */
import { CustodyError, MustWait, Refused, WrongGuess } from "./errors.js";

const SENTENCES: Readonly<Record<string, string>> = {
  unreachable:
    "No connection. Nothing is known of whether it was done: try again when you are online.",
  untrusted:
    "The service could not prove that it is the right one. Stop here and tell its operator.",
  "storage-unavailable":
    "This browser does not let the app keep anything. Leave private browsing, or free space.",
  "storage-damaged":
    "What this browser kept is damaged. Repair this device, and sign in as on a new one.",
  "passkey-cancelled": "The passkey was not confirmed. Try again, or take another way.",
  "passkey-unsupported": "This browser or device can not use such a passkey. Take another way.",
  "passkey-exists": "This device has a passkey for this account already.",
  "passkey-failed": "The passkey did not work. Take another way.",
  "passkey-invalid": "This passkey is not known any more. Take another way.",
  "passkey-expired":
    "This passkey was not used for too long. Take another way, then confirm it again.",
  "prf-missing": "This passkey can not unlock offline. Use a PIN for that.",
  "no-account": "This device is new here. Sign in or create an account.",
  "other-account":
    "Another tab has signed in to another account. Sign in here again, or reload the page.",
  "already-enrolled": "This device has an account already.",
  "account-exists": "This has an account already. Sign in, or start over.",
  "not-signed-in": "Sign in first.",
  locked: "The key is locked. Unlock it first.",
  "nothing-backed-up": "This account has no backup of its key.",
  "no-offline-slot": "Offline unlocking is not set up on this device.",
  "code-mistyped": "The code is mistyped. Compare it with what you wrote down.",
  "secret-damaged": "The backup does not open. Take another way, or ask for help.",
  "no-slot":
    "This way of signing in can not bring your key back. Use a passkey, the PIN or a recovery code.",
  "server-slot-withheld":
    "The service may not give your key back this way any more. Use a passkey, the PIN or a recovery code.",
  unsealed:
    "The service shows unsealed what had been sealed. Update the app on your other devices, or tell its operator.",
  "slot-factor-missing":
    "Set a PIN or new recovery codes now: your ways of signing in will soon not bring your key back.",
  "prf-only-slot": "Set a PIN or recovery codes first, so that a lost passkey loses nothing.",
  "last-slot": "Nothing else would open your key any more. Set up another way first.",
  "slot-unknown": "Set a PIN or recovery codes first.",
  "offline-pin-wrong": "That is not the PIN.",
  "authentication-failed":
    "That did not work. Check the account, or use a device that is bound to it.",
  "session-missing": "Sign in first.",
  "session-invalid": "Sign in again.",
  "session-expired": "You were signed out after a while. Sign in again.",
  "session-ended": "You were signed out. Sign in again.",
  "read-only-session": "Unlock first, to change something.",
  "step-up-required": "Confirm this with a stronger way to sign in.",
  "confirm-first": "The service was restored from a backup. Sign in by your strongest way.",
  "pin-weak": "Choose a PIN that is longer or harder to guess.",
  "pin-not-set": "This account has no PIN. Take another way.",
  "pin-other-way": "This PIN was set in an older way. Take another way, and set it anew.",
  "precondition-failed": "Another device has changed this meanwhile. Load it again.",
  "release-forbidden": "This way of signing in may not have the key back. Take a stronger one.",
  "enrolment-closed": "New accounts need an invitation.",
  "dpop-invalid": "The request was not accepted. Check this device's clock.",
  "record-tampered":
    "The service found this account's data altered and stopped. Tell its operator.",
  "log-tampered": "The service found its log altered and stopped. Tell its operator.",
  "log-unproven": "The service's log was not proven. Sign in again later.",
  "channel-unreachable": "No code can be sent there. Use another address.",
  "alias-taken": "That name can not be used.",
  "not-allowed-by-policy": "This app does not allow that.",
  "too-few-shares":
    "Too few of the services that keep your key together have answered. Try again later.",
  "realms-failed": "Not all of the services that keep your key together did this. Try again.",
  "refresh-unfinished": "This was interrupted. Your key is safe; try again.",
};

function minutes(until: Date): string {
  const left = Math.max(1, Math.ceil((until.getTime() - Date.now()) / 60_000));
  return left === 1 ? "a minute" : left < 120 ? `${left} minutes` : `${Math.ceil(left / 60)} hours`;
}

/** What a person can do about it. */
export function advice(error: unknown): string {
  if (!(error instanceof CustodyError)) return "Something went wrong. Try again.";
  // Of several services: what can be done about it is said by the one that refused.
  if (error.cause instanceof CustodyError) return advice(error.cause);
  if (error instanceof WrongGuess) {
    const { attemptsLeft: left, retryAt } = error;
    if (error.exhausted) return "That was wrong, and was the last try. Take another way.";
    if (left > 0)
      return `That is not right. ${left === 1 ? "One try is" : `${left} tries are`} left.`;
    return `That is not right. Wait ${retryAt ? minutes(retryAt) : "a while"}, then try again.`;
  }
  if (error.code.endsWith("-exhausted")) return "All tries are used up. Take another way.";
  if (error instanceof MustWait) {
    return `Too soon. Wait ${error.retryAt ? minutes(error.retryAt) : "a while"}, then try again.`;
  }
  // The daemon's own words: one may be the name of what every object has.
  const known = Object.hasOwn(SENTENCES, error.code) && SENTENCES[error.code];
  if (known) return known;
  if (error instanceof Refused && error.status >= 500)
    return "The service is busy. Try again in a moment.";
  return `Something went wrong (${error.code}). Try again.`;
}
