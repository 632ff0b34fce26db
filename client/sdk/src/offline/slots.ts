/**
 * Unlocking without a network: the device secret sealed on this device, under a passkey's PRF
 * output or under a PIN. Off until the app turns it on.
 *
 * What a stolen device is then worth: with a passkey slot, nothing without the passkey. With a PIN
 * slot, the PIN's guesses at the thief's own speed; six digits last minutes to hours on rented
 * machines. The daemon's budget does not protect this copy, so an app should turn PIN slots on only
 * where that is acceptable, and prefer long PINs.
 */
import { type Bytes, hkdf, random } from "../bytes.js";
import { type AppKeyRecord, type Custody, KEPT, ourRecord, ours } from "../custody.js";
import { CanNotOpen, loading, NotReady, PasskeyFailed } from "../errors.js";
import { aesKey, open, seal, Unlocked } from "../keys.js";
import { accountOf } from "../session.js";
import { onDemand } from "../tools.js";
import { opensNow } from "../unlock.js";
import { type PrfKey, usePrf } from "../webauthn.js";
import type { Argon2Cost } from "./argon2.js";
import { OFFLINE, type PasskeySlot, PIN, type PinSlot, type Slots, slotsOf } from "./kept.js";

/** Several times what the daemon spends: the only thing between a thief and the PIN. */
const COST: Argon2Cost = { memoryKib: 65_536, passes: 3, lanes: 1 };

/** What unlocks on this device without a network. */
export interface OfflineState {
  readonly byPasskey: boolean;
  readonly byPin: boolean;
  /** Wrong PINs typed offline since somebody last unlocked with the right one. Show it to the owner. */
  readonly wrongPins: number;
  /** The PIN was changed offline: `settlePin` when there is a network again. */
  readonly pinPending: boolean;
}

const label = (custody: Custody, kind: string): string =>
  `custodyd/sdk/offline/${kind}/v1/${custody.app}/${accountOf(custody)}`;

async function prfKey(output: Bytes): Promise<CryptoKey> {
  return aesKey(await hkdf(output, "custodyd/sdk/offline/prf/v1"));
}

async function pinKey(pin: string, salt: Bytes, cost: Argon2Cost): Promise<CryptoKey> {
  const { hashPin } = await loading(import("./argon2.js"));
  return aesKey(await hkdf(await hashPin(pin, salt, cost), "custodyd/sdk/offline/pin/v1"));
}

function unlockedOf(custody: Custody): Unlocked {
  if (!custody.unlocked) throw new NotReady("locked", "unlock first, to allow unlocking offline");
  return custody.unlocked;
}

/** What unlocks here without a network. */
export async function offlineState(custody: Custody): Promise<OfflineState> {
  const slots = slotsOf(await ourRecord(custody, OFFLINE));
  return {
    byPasskey: slots.passkeys.length > 0,
    byPin: slots.pin !== undefined,
    wrongPins: slots.wrongPins,
    pinPending: slots.pinPending ?? false,
  };
}

/**
 * Lets a passkey unlock offline.
 *
 * @param prf of `signInWithPasskey` or `addPasskey`; where the authenticator has none, `prf-missing`
 */
export async function keepOfflineByPasskey(
  custody: Custody,
  prf: PrfKey | undefined,
): Promise<void> {
  const unlocked = unlockedOf(custody);
  if (!prf) throw new PasskeyFailed("prf-missing", "this passkey has no PRF");
  const { credentialId, salt, rpId, output, deviceId } = prf;
  const sealed = await seal(await prfKey(output), label(custody, "prf"), unlocked.secret);
  await ours(custody, [OFFLINE], (update) => {
    const slots = slotsOf(update.get(OFFLINE));
    const others = slots.passkeys.filter((slot) => slot.credentialId !== credentialId);
    const slot: PasskeySlot = { credentialId, salt, rpId, sealed, deviceId };
    update.set(OFFLINE, { ...renewed(slots, credentialId), passkeys: [...others, slot] });
  });
}

/** A slot for a PIN. */
export async function pinSlot(
  custody: Custody,
  pin: string,
  from: Pick<Unlocked, "secret">,
): Promise<PinSlot> {
  const salt = random(16);
  const key = await pinKey(pin, salt, COST);
  // Read now: an open key that was locked meanwhile has none, where its bytes would be zeros.
  return { salt, cost: COST, sealed: await seal(key, label(custody, "pin"), from.secret) };
}

/** Lets a PIN unlock offline, which was judged. */
export async function keepPin(custody: Custody, pin: string): Promise<void> {
  const { pin: credential } = custody;
  const slot = await pinSlot(custody, pin, unlockedOf(custody));
  await ours(custody, [OFFLINE], (update) => {
    const slots = slotsOf(update.get(OFFLINE));
    const others = renewed(slots, PIN);
    const pin = { ...slot, credential };
    update.set(OFFLINE, { ...others, pin, wrongPins: 0, pinPending: false });
  });
}

const renewed = (slots: Slots, way: string): Slots => ({
  ...slots,
  stale: slots.stale?.filter((one) => one !== way),
});

/**
 * A way that unlocked here before the device secret was replaced does so again, now that it was used; so does a PIN that another
 * device has changed.
 */
export async function renewOffline(custody: Custody, used: string | PrfKey): Promise<void> {
  const { stale, pin, pinPending } = slotsOf(await ourRecord(custody, OFFLINE));
  const isPin = typeof used === "string";
  // The PIN that the daemon knows may be the one of before.
  if (!custody.unlocked || (isPin && pinPending)) return;
  const { pin: known } = custody;
  const isOther = isPin && pin && known && pin.credential !== known;
  if (!isOther && !stale?.includes(isPin ? PIN : used.credentialId)) return;
  await (isPin ? keepPin(custody, used) : keepOfflineByPasskey(custody, used));
}

/** Ends unlocking offline: all of it, or one way. */
export async function dropOffline(custody: Custody, way?: "passkey" | "pin"): Promise<void> {
  await (await onDemand()).dropOffline(custody, way);
}

async function unlockedWith(custody: Custody, secret: Bytes): Promise<Unlocked> {
  const record = (await ourRecord(custody, KEPT.appKey)) as AppKeyRecord | undefined;
  if (!record) throw new NotReady("no-offline-slot", "the wrapped key is not on this device");
  const unlocked = await Unlocked.open(secret, record.wrapped);
  secret.fill(0);
  return opensNow(custody, unlocked);
}

/** Unlocks with a passkey and no network. */
export async function unlockOfflineByPasskey(
  custody: Custody,
  signal?: AbortSignal,
): Promise<Unlocked> {
  const { passkeys } = slotsOf(await ourRecord(custody, OFFLINE));
  const [first] = passkeys;
  if (!first) throw new NotReady("no-offline-slot", "no passkey unlocks offline on this device");
  const ids = passkeys.map(({ credentialId }) => credentialId);
  const used = await usePrf(first.rpId, first.salt, ids, signal);
  const slot = passkeys.find((one) => one.credentialId === used.id);
  if (!used.prf || !slot) throw new PasskeyFailed("prf-missing", "the passkey gave no PRF output");
  const secret = await open(await prfKey(used.prf.output), label(custody, "prf"), slot.sealed);
  if (!secret)
    throw new CanNotOpen("secret-damaged", "the passkey does not open this device's copy");
  return unlockedWith(custody, secret);
}

/** The device secret in the PIN's slot. The guess is counted before it is looked at. */
export async function openPinSlot(custody: Custody, pin: string): Promise<Bytes> {
  const slot = await ours(custody, [OFFLINE], (update) => {
    const slots = slotsOf(update.get(OFFLINE));
    const { wrongPins, unreported = 0 } = slots;
    if (slots.pin) {
      update.set(OFFLINE, { ...slots, wrongPins: wrongPins + 1, unreported: unreported + 1 });
    }
    return slots.pin;
  });
  if (!slot) throw new NotReady("no-offline-slot", "no PIN unlocks offline on this device");
  const key = pin === "" ? undefined : await pinKey(pin, slot.salt, slot.cost);
  const secret = key && (await open(key, label(custody, "pin"), slot.sealed));
  if (!secret)
    throw new CanNotOpen("offline-pin-wrong", "the PIN does not open this device's copy");
  await ours(custody, [OFFLINE], (update) => {
    const slots = slotsOf(update.get(OFFLINE));
    // This guess was right: it is the one that there is nothing to report of.
    const unreported = Math.max((slots.unreported ?? 0) - 1, 0);
    update.set(OFFLINE, { ...slots, wrongPins: 0, unreported });
  });
  return secret;
}

/** Unlocks with the PIN and no network. */
export async function unlockOfflineByPin(custody: Custody, pin: string): Promise<Unlocked> {
  return unlockedWith(custody, await openPinSlot(custody, pin));
}
