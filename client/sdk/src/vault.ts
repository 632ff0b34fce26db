/**
 * Secrets sealed end to end, on this side: opening one with what a sign-in has brought, and sealing one.
 *
 * The device secret has a slot for each factor (`rewrap.ts`). Every other secret has one: the daemon's where the app's
 * policy has server slots, else one under the device secret. Where the app says `endToEnd` the daemon gets no content
 * key, whatever it says of the policy, and what it could open is not believed, but to be moved where the app says so.
 */
import { type Bytes, equal, fromBase64Url, random, toBase64Url } from "./bytes.js";
import type { Custody } from "./custody.js";
import { CanNotOpen, NotReady } from "./errors.js";
import { each, open, SECRET_BYTES, Unlocked } from "./keys.js";
import { demandNewest, nextRevision, note, seenOf } from "./revisions.js";
import {
  isFor,
  openContent,
  openSlot,
  type Place,
  revisionOf,
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
/** Where an enrolment waits for its backup, and for the first way in. */
export const PENDING = "enrolment";

/** An enrolment that is not backed up, or that nobody could sign in to yet. */
export interface Pending {
  readonly idempotencyKey: string;
  readonly key: CryptoKey;
  readonly sealed: Bytes;
  readonly wrapped: Bytes;
  /** Realms that take the first key of a request no more, and the one that goes on there. */
  readonly again?: Readonly<Record<string, string>>;
}

/** The device secret as it is stored, and the key of its content. */
export interface Held {
  /** Undefined where it is not stored yet. */
  readonly version: number | undefined;
  readonly key: Bytes;
  readonly sealed: Bytes;
  readonly slots: readonly Slot[];
  /** Whether the daemon gets the content key, too. */
  readonly server: boolean;
  /** It has it, and shall not any more: what is written next has no such slot. */
  readonly leaves: boolean;
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
  forget(custody, type === "opaque" && !key.unsure ? { type } : { type, credential });
  custody.slotKeys = [...custody.slotKeys, { ...key, material: key.material.slice() }];
}

/** Forgets what opened the slots of a factor that is no more. */
export function forget(custody: Custody, gone: Partial<SlotKey>): void {
  const { type, credential } = gone;
  custody.slotKeys = custody.slotKeys.filter(
    (one) => one.type !== type || (credential !== undefined && one.credential !== credential),
  );
}

/** What opens by the device secret. */
export const chained = (material: Bytes): SlotKey => ({
  type: "secret",
  credential: DEVICE_SECRET,
  material,
});

const isChained = ({ type }: Pick<Slot, "type">): boolean => type === "secret";

function serverSlot(secret: Schemas["Secret"]): Bytes | undefined {
  return secret.server_slot == null ? undefined : fromBase64Url(secret.server_slot);
}

/** The content key, by a slot of what was remembered, or by the daemon's. */
async function keyOf(
  custody: Custody,
  place: Place,
  secret: Schemas["Secret"],
  keys: readonly SlotKey[],
  isCurrent: boolean,
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
  const key = (await isDaemonBelieved(custody, place)) ? serverSlot(secret) : undefined;
  if (key) return key;
  if (secret.server_slot_withheld && slots.length === 0) {
    throw new CanNotOpen(
      "server-slot-withheld",
      `${place.name} has a server slot alone, and the policy lets none out: its operator can say "ending" there`,
    );
  }
  // One that was not read since the unlock may have been replaced meanwhile, by another device.
  if (secret.slots.some(isChained) && !(isCurrent && keys.some(isChained))) {
    throw new NotReady("locked", `unlock first: ${place.name} opens by the device secret`);
  }
  if (custody.endToEnd === "moving" && serverSlot(secret)) {
    throw new CanNotOpen(
      "unsealed",
      `${place.name} was sealed end to end, and what is shown is not: the daemon lies, or another device has an older app`,
    );
  }
  if (damaged) throw new CanNotOpen("secret-damaged", `a slot of ${place.name} does not open`);
  throw new CanNotOpen(
    "no-slot",
    `${place.name} has no slot for the way that was signed in, and none that the daemon opens: ` +
      "take a passkey with PRF, the PIN or a recovery code that has one",
  );
}

/**
 * Whether a secret that the daemon has the key of can be the owner's. Whatever was seen sealed stays so: a daemon that was
 * taken over would else have what it made up sealed by this device, as the owner's.
 */
async function isDaemonBelieved(custody: Custody, place: Place): Promise<boolean> {
  // Sealed end to end, it is none that this app has made.
  if (custody.endToEnd !== "moving") return !custody.endToEnd;
  return !(await seenOf(custody, place)).sealed;
}

/** A secret that was opened. */
export interface Opened {
  readonly content: Bytes;
  /** The key of `sealed`, or the content itself where there is none. */
  readonly key: Bytes;
  readonly sealed: Bytes | undefined;
}

/** The content of a secret that was released. `deviceSecret` where it is not unlocked yet. */
export async function openSecret(
  custody: Custody,
  name: string,
  secret: Schemas["Secret"],
  deviceSecret?: Bytes,
): Promise<Bytes> {
  const place = placeOf(custody, name);
  const opened = await openWith(custody, name, secret, deviceSecret);
  const { unlocked } = custody;
  if (name !== DEVICE_SECRET) await noted(custody, place, !opensToDaemon(secret), opened.sealed);
  else if (unlocked && !unlocked.locked && equal(unlocked.secret, opened.content)) {
    await hold(custody, secret, opened);
  }
  if (opened.sealed) opened.key.fill(0);
  return opened.content;
}

/** The same, for whoever judges first whether it is the owner's. */
export async function openWith(
  custody: Custody,
  name: string,
  secret: Schemas["Secret"],
  deviceSecret?: Bytes,
): Promise<Opened> {
  const place = placeOf(custody, name);
  const under = deviceSecret ?? (custody.unlocked?.locked ? undefined : custody.unlocked?.secret);
  const keys = [...custody.slotKeys, ...(under ? each(under).map(chained) : [])];
  const isCurrent = deviceSecret !== undefined || custody.held !== undefined;
  const key = await keyOf(custody, place, secret, keys, isCurrent);
  const sealed = secret.sealed == null ? undefined : fromBase64Url(secret.sealed);
  const content = sealed ? await openContent(place, key, sealed) : key;
  if (!content) throw new CanNotOpen("secret-damaged", `the content of ${name} does not open`);
  await demandNewest(custody, place, sealed ? revisionOf(sealed) : 0);
  return { content, key, sealed };
}

/** Whether the daemon has what opens it. */
export function opensToDaemon(secret: Schemas["Secret"]): boolean {
  return secret.server_slot != null || secret.server_slot_withheld;
}

/** Remembers that this is the newest of a secret, and whether the daemon can not open it. */
export async function noted(
  custody: Custody,
  place: Place,
  isSealed: boolean,
  sealed: Bytes | undefined,
): Promise<void> {
  const revision = sealed ? revisionOf(sealed) : 0;
  await note(custody, place, { revision, sealed: isSealed });
}

/** Keeps the device secret at hand, to be sealed for other factors. Called once it is known to be the owner's. */
export async function hold(
  custody: Custody,
  secret: Schemas["Secret"],
  { key, sealed, content }: Opened,
): Promise<void> {
  const place = placeOf(custody, DEVICE_SECRET);
  const { version, slots } = secret;
  const has = opensToDaemon(secret);
  const server = has && (await givesServerSlot(custody));
  // Stored before there were content keys: the slots are the content itself.
  const fresh = sealed ? key.slice() : random(32);
  custody.held = {
    version,
    key: fresh,
    sealed:
      sealed ?? (await sealContent(place, fresh, content, await nextRevision(custody, place))),
    slots: sealed ? slots : [],
    server,
    leaves: has && !server,
    whole: !sealed,
  };
  await noted(custody, place, !has, sealed);
}

/** Whether what the daemon can open is moved to where it can not. A share of a group is for it to open. */
export function isMoving({ endToEnd, slotsEnd, member }: Custody): boolean {
  return !member && (endToEnd === "moving" || (!endToEnd && slotsEnd));
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
  const revision = await nextRevision(custody, place);
  const sealed = toBase64Url(await sealContent(place, key, content, revision));
  // A slot would add nothing, and not every account has its device secret at this daemon.
  if (await givesServerSlot(custody)) return { sealed, slots: [], server_slot: toBase64Url(key) };
  if (!unlocked || unlocked.locked || name === DEVICE_SECRET) {
    throw new NotReady("locked", `unlock first: ${name} is sealed under the device secret`);
  }
  const newest = chained(unlocked.secret.subarray(0, SECRET_BYTES));
  return { sealed, slots: [await sealSlot(place, newest, key)] };
}

/** What an enrolment that waits was begun with. */
export async function opened(pending: Pending): Promise<Unlocked> {
  const secret = await open(pending.key, PENDING, pending.sealed);
  if (!secret) throw new CanNotOpen("secret-damaged", "the enrolment that was begun is damaged");
  return Unlocked.open(secret, pending.wrapped);
}
