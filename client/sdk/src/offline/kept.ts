/**
 * What is kept of the ways to unlock without a network. `slots.ts` makes and opens them; `../unlock.ts` ends those whose
 * device secret was replaced.
 */
import type { Bytes } from "../bytes.js";
import { kept } from "../storage/sound.js";
import type { Argon2Cost } from "./argon2.js";

/** Where slots are kept. */
export const OFFLINE = "offline";

/** The device secret under a passkey's PRF output. */
export interface PasskeySlot {
  readonly credentialId: string;
  readonly salt: string;
  readonly rpId: string;
  readonly sealed: Bytes;
  /** Unknown where it was kept before there were such: then nobody could tell that it was removed, and `sync` lets it go. */
  readonly deviceId?: string | undefined;
}

/** The device secret under a PIN. */
export interface PinSlot {
  readonly salt: Bytes;
  readonly cost: Argon2Cost;
  readonly sealed: Bytes;
  /** Which PIN of the account it is, as the daemon names it; of one that is pending, which it replaces. Unknown where an earlier release kept it, or before it was used online: the next sign-in by PIN makes it anew. */
  readonly credential?: string | undefined;
}

/** What is kept. */
export interface Slots {
  readonly passkeys: readonly PasskeySlot[];
  readonly pin?: PinSlot | undefined;
  /** Guesses that were begun and not found right. */
  readonly wrongPins: number;
  /** Those of them that the daemon has not been told of (`report.ts`). */
  readonly unreported?: number | undefined;
  /** The PIN was changed here and not at the daemon yet. */
  readonly pinPending?: boolean | undefined;
  /** It was sent there, and the answer did not come. */
  readonly pinSent?: boolean | undefined;
  /** The least length of a PIN, as the daemon said last. */
  readonly minLength?: number | undefined;
  /** Ways that unlocked here until the device secret was replaced: `pin`, and passkeys by `credentialId`. */
  readonly stale?: readonly string[] | undefined;
}

/** Slots as they were kept. */
export function slotsOf(value: unknown): Slots {
  return (kept(OFFLINE, value) as Slots | undefined) ?? { passkeys: [], wrongPins: 0 };
}

/** The same when they open the device secret of before. Each way is made anew once it is used online. */
export function stale(value: unknown): Slots {
  const { pin, passkeys, ...slots } = slotsOf(value);
  const ways = [...(pin ? [PIN] : []), ...passkeys.map(({ credentialId }) => credentialId)];
  return { ...slots, passkeys: [], stale: [...(slots.stale ?? []), ...ways] };
}

/** How the PIN is called among ways. */
export const PIN = "pin";
