/**
 * Secrets sealed end to end, on this side: opening one with what a sign-in has brought, and sealing one.
 *
 * The device secret has a slot for each factor (`rewrap.ts`). Every other secret has one: the daemon's where the app's
 * policy has server slots, else one under the device secret. Where the app says `endToEnd` the daemon gets no content
 * key, whatever it says of the policy, and what it could open is not believed.
 */
import { type Bytes, fromBase64Url, random, toBase64Url } from "./bytes.js";
import type { Custody } from "./custody.js";
import { CanNotOpen, NotReady } from "./errors.js";
import { open, Unlocked } from "./keys.js";
import {
  isFor,
  openContent,
  openSlot,
  type Place,
  sealContent,
  sealSlot,
  type Slot,
  type SlotKey,
} from "./slots.js";
import type { Schemas } from "./transport.js";

/** The two secrets by convention: what wraps the private key, and the wrapped key itself. */
export const DEVICE_SECRET = "device-secret";
/** The wrapped private key, so that another device gets the same one. */
export const APP_KEY = "app-key";
/** Where an enrolment waits that was not backed up yet. */
export const PENDING = "enrolment";

/** An enrolment whose backup is not at the daemon. */
export interface Pending {
  readonly idempotencyKey: string;
  readonly key: CryptoKey;
  readonly sealed: Bytes;
  readonly wrapped: Bytes;
}

/** The device secret as it is stored, and the key of its content. */
export interface Held {
  /** Undefined where it is not stored yet. */
  readonly version: number | undefined;
  readonly key: Bytes;
  readonly sealed: Bytes;
  readonly slots: readonly Slot[];
  /** Whether the daemon has the content key, too. */
  readonly server: boolean;
  /** It is sealed anew, so that slots alone would not do. */
  readonly whole: boolean;
}

/** The place of a secret of this account. */
export function placeOf(custody: Custody, name: string): Place {
  const { app, realm, account } = custody;
  if (!account) throw new NotReady("no-account", "this device knows no account yet");
  return { realm: realm.name, app, account: account.account, name };
}

/** Remembers what opens slots, until `lock`. */
export function remember(custody: Custody, key: SlotKey): void {
  const { type, credential } = key;
  // An account has one PIN, and each passkey and code has its own name.
  forget(custody, type === "opaque" ? { type } : { type, credential });
  custody.slotKeys = [...custody.slotKeys, { ...key, material: key.material.slice() }];
}

/** Forgets what opened the slots of a factor that is no more. */
export function forget(custody: Custody, gone: Partial<SlotKey>): void {
  const { type, credential } = gone;
  custody.slotKeys = custody.slotKeys.filter(
    (one) => one.type !== type || (credential !== undefined && one.credential !== credential),
  );
}

const chained = (material: Bytes): SlotKey => ({
  type: "secret",
  credential: DEVICE_SECRET,
  material,
});

const isChained = ({ type }: SlotKey): boolean => type === "secret";

function serverSlot(secret: Schemas["Secret"]): Bytes | undefined {
  return secret.server_slot == null ? undefined : fromBase64Url(secret.server_slot);
}

/** The content key, by a slot of what was remembered, or by the daemon's. */
async function keyOf(
  custody: Custody,
  place: Place,
  secret: Schemas["Secret"],
  keys: readonly SlotKey[],
): Promise<Bytes> {
  let damaged = false;
  // Whoever seals end to end stores a sealed content; slots without one are nobody's but the daemon's.
  const slots = secret.sealed == null ? [] : secret.slots;
  for (const slot of slots) {
    for (const by of keys.filter((one) => isFor(one, slot))) {
      const key = await openSlot(place, by, slot);
      if (key) return key;
      damaged = true;
    }
  }
  // Sealed end to end, a secret that the daemon has the key of is none that this app has made.
  const key = custody.endToEnd ? undefined : serverSlot(secret);
  if (key) return key;
  if (secret.slots.some(({ type }) => type === "secret") && !keys.some(isChained)) {
    throw new NotReady("locked", `unlock first: ${place.name} opens by the device secret`);
  }
  if (damaged) throw new CanNotOpen("secret-damaged", `a slot of ${place.name} does not open`);
  throw new CanNotOpen(
    "no-slot",
    `${place.name} has no slot for the way that was signed in, and none that the daemon opens: ` +
      "take a passkey with PRF, the PIN or a recovery code that has one",
  );
}

/** The content of a secret that was released. `deviceSecret` where it is not unlocked yet. */
export async function openSecret(
  custody: Custody,
  name: string,
  secret: Schemas["Secret"],
  deviceSecret?: Bytes,
): Promise<Bytes> {
  const place = placeOf(custody, name);
  const under = deviceSecret ?? (custody.unlocked?.locked ? undefined : custody.unlocked?.secret);
  const key = await keyOf(custody, place, secret, [
    ...custody.slotKeys,
    ...(under ? [chained(under)] : []),
  ]);
  const sealed = secret.sealed == null ? undefined : fromBase64Url(secret.sealed);
  const content = sealed ? await openContent(place, key, sealed) : key;
  if (!content) throw new CanNotOpen("secret-damaged", `the content of ${name} does not open`);
  if (name === DEVICE_SECRET) await hold(custody, place, secret, sealed, key, content);
  return content;
}

async function hold(
  custody: Custody,
  place: Place,
  secret: Schemas["Secret"],
  sealed: Bytes | undefined,
  key: Bytes,
  content: Bytes,
): Promise<void> {
  const { version, slots } = secret;
  const server = secret.server_slot != null && !custody.endToEnd;
  // Stored before there were content keys: the slots are the content itself.
  const fresh = sealed ? key.slice() : random(32);
  custody.held = {
    version,
    key: fresh,
    sealed: sealed ?? (await sealContent(place, fresh, content)),
    slots: sealed ? slots : [],
    server,
    whole: !sealed,
  };
}

/** Whether the daemon is handed content keys. */
export async function givesServerSlot(custody: Custody): Promise<boolean> {
  if (custody.endToEnd) return false;
  custody.serverSlot ??= (await custody.transport.request("get", "/v1/account")).server_slot;
  return custody.serverSlot;
}

/** A secret's content as it is sent, under a new content key. */
export async function sealedSecret(
  custody: Custody,
  name: string,
  content: Bytes,
  unlocked: Unlocked | undefined = custody.unlocked,
): Promise<Schemas["SecretContent"]> {
  const [place, key] = [placeOf(custody, name), random(32)];
  const sealed = toBase64Url(await sealContent(place, key, content));
  // A slot would add nothing, and not every account has its device secret at this daemon.
  if (await givesServerSlot(custody)) return { sealed, slots: [], server_slot: toBase64Url(key) };
  if (!unlocked || unlocked.locked || name === DEVICE_SECRET) {
    throw new NotReady("locked", `unlock first: ${name} is sealed under the device secret`);
  }
  return { sealed, slots: [await sealSlot(place, chained(unlocked.secret), key)] };
}

/** What an enrolment that waits was begun with. */
export async function opened(pending: Pending): Promise<Unlocked> {
  const secret = await open(pending.key, PENDING, pending.sealed);
  if (!secret) throw new CanNotOpen("secret-damaged", "the enrolment that was begun is damaged");
  return Unlocked.open(secret, pending.wrapped);
}

/** The enrolment is backed up: nothing waits any more. */
export async function nothingPending(custody: Custody): Promise<void> {
  await custody.storage.update([], (update) => {
    update.delete(PENDING);
  });
}
