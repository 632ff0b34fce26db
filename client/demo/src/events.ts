/**
 * What happened, in words for the person whose account it is: the names of events are the daemon's, and stand in its log for ever.
 *
 * Of a kind that this app does not know yet it says so, with that name: nothing of the trail is left out or made up.
 */
import type { Schemas } from "@custodyd/sdk";

type Kind = Schemas["EventKind"];

/** Every kind that the daemon describes. One that is missing does not compile. */
export const EVENTS: Readonly<Record<Kind, string>> = {
  "account-created": "The notebook was created",
  "device-bound": "A device was added",
  "device-removed": "A device was removed",
  "pin-set": "The PIN was set",
  "pin-removed": "The PIN was removed",
  "pin-charged": "A PIN was tried",
  "pin-refused": "A wrong PIN was refused",
  "passkey-added": "A passkey was added",
  "passkey-removed": "A passkey was removed",
  "passkey-confirmed": "A passkey was confirmed",
  "passkey-refused": "A passkey was refused",
  "session-started": "Signed in",
  "session-ended": "Signed out",
  "sessions-ended": "Signed out on all devices",
  "secret-stored": "Stored",
  "secret-released": "Handed out",
  "secret-deleted": "Deleted",
  "slots-dropped": "Closed to a way to unlock that was removed",
  "contact-claimed": "An address was named, and not confirmed yet",
  "contact-confirmed": "An address for codes was confirmed",
  "contact-removed": "An address for codes was removed",
  "alias-claimed": "A name to be found by was asked for",
  "alias-confirmed": "A name to be found by was confirmed",
  "alias-removed": "A name to be found by was removed",
  "code-sent": "A code was sent to your address",
  "code-charged": "A code that was sent was tried",
  "code-refused": "A wrong code was refused",
  "totp-enrolled": "An authenticator app was begun with",
  "totp-added": "An authenticator app was added",
  "totp-removed": "The authenticator app was removed",
  "totp-charged": "A code of the authenticator app was tried",
  "totp-refused": "A wrong code of the authenticator app was refused",
  "recovery-codes-set": "New recovery codes were made",
  "recovery-codes-removed": "All recovery codes were made void",
  "recovery-code-charged": "A recovery code was tried",
  "recovery-code-refused": "A wrong recovery code was refused",
  "recovery-code-spent": "A recovery code was used up",
  "recover-requested": "A change was asked for, and waits",
  "recover-cancelled": "A change that waited was cancelled",
  "recover-used": "A change that had waited was made",
  "account-exported": "All data was downloaded",
  "app-key-added": "A key was added",
  "app-key-removed": "A key was removed",
  "offline-pins-refused": "Wrong PINs were typed on a device without a network",
};

const FACTORS: Readonly<Record<string, string>> = {
  creation: "as its creator",
  device: "by the device alone, to read",
  pin: "with the PIN",
  passkey: "with a passkey",
  totp: "with the authenticator app",
  "delivered-code": "with a code that was sent",
  "recovery-code": "with a recovery code",
};

/** What an event is about, where its words leave that open. */
const ABOUT: Readonly<Record<string, string>> = {
  "device-secret": "the secret that unlocks your key",
  "app-key": "your key, encrypted",
  notes: "your notes",
  "replace-pin": "another PIN",
  "bind-device": "another device",
};

/** The daemon's words are names of what every object has, perhaps. */
const known = (words: Readonly<Record<string, string>>, word: string | null | undefined) =>
  word != null && Object.hasOwn(words, word) ? words[word] : undefined;

/** A factor, as it is said of who used it. */
export const byFactor = (factor: string): string => known(FACTORS, factor) ?? `by ${factor}`;

/** A change that waits, or what another word of the daemon's is about. */
export const about = (word: string): string => known(ABOUT, word) ?? word;

/** An event in a line. */
export function eventWords({
  kind,
  factor,
  detail,
}: Pick<Schemas["ProvenEvent"], "factor" | "detail"> & { readonly kind: string }): string {
  const words = known(EVENTS, kind) ?? `Something that this app has no words for (${kind})`;
  const by = kind === "session-started" && factor != null ? ` ${byFactor(factor)}` : "";
  const what = detail != null && detail !== "" ? `: ${about(detail)}` : "";
  return words + by + what;
}
