/**
 * Key slots: a secret's content sealed under a random content key, and that key sealed for each factor.
 *
 * SLOTS.md has the format, `daemon/vectors/key_slots.json` holds both sides to it. Used by `vault.ts`. A slot's key is
 * derived for one secret of one account and one credential, so that nobody can put a slot in another's place.
 */
import { be64, type Bytes, concat, fields, fromBase64Url, hkdf, toBase64Url } from "./bytes.js";
import { aesKey, open, seal } from "./keys.js";
import type { Schemas } from "./transport.js";

/** A slot as it is stored. */
export type Slot = Schemas["SecretSlot"];

/** Which secret is meant. */
export interface Place {
  readonly realm: string;
  readonly app: string;
  readonly account: string;
  readonly name: string;
}

/** What opens the slots of one factor: PRF output, export key, slot part, or another secret. Never to be sent. */
export interface SlotKey {
  readonly type: Slot["type"];
  /** The factor's name, as the daemon knows it. */
  readonly credential: string;
  readonly material: Bytes;
  /** Whether the account has the factor is not known: the answer to its making was lost, or is still to come. */
  readonly unsure?: boolean;
}

/** Before there were revisions. */
const CONTENT_V1 = "custodyd/secret-content/v1";
const CONTENT = "custodyd/secret-content/v2";
const REVISED = 2;
const SLOT = "custodyd/secret-slot/v1";

async function derived(material: Bytes, domain: string, place: Place, ...more: (string | Bytes)[]) {
  const { realm, app, account, name } = place;
  return aesKey(await hkdf(material, fields(domain, realm, app, account, name, ...more)));
}

/** The content, sealed under its content key; a later one has a higher revision. */
export async function sealContent(
  place: Place,
  key: Bytes,
  content: Bytes,
  revision: number,
): Promise<Bytes> {
  const number = be64(revision);
  const sealed = await seal(await derived(key, CONTENT, place, number), CONTENT, content);
  return concat(new Uint8Array([REVISED]), number, sealed);
}

/** Which revision a sealed content says it is: true where it opens. 0 before there were any. */
export function revisionOf(sealed: Bytes): number {
  if (sealed[0] !== REVISED) return 0;
  return sealed.slice(1, 9).reduce((whole, byte) => whole * 256 + byte, 0);
}

/** What `sealContent` sealed under this key in this place. */
export async function openContent(
  place: Place,
  key: Bytes,
  sealed: Bytes,
): Promise<Bytes | undefined> {
  if (sealed[0] !== REVISED) return open(await derived(key, CONTENT_V1, place), CONTENT_V1, sealed);
  return open(await derived(key, CONTENT, place, sealed.slice(1, 9)), CONTENT, sealed.slice(9));
}

/** The content key, sealed for one factor. */
export async function sealSlot(place: Place, by: SlotKey, key: Bytes): Promise<Slot> {
  const { type, credential } = by;
  const sealed = await seal(await derived(by.material, SLOT, place, type, credential), SLOT, key);
  return { type, credential, ciphertext: toBase64Url(sealed) };
}

/** The content key in a slot that `isFor` this factor. */
export async function openSlot(place: Place, by: SlotKey, slot: Slot): Promise<Bytes | undefined> {
  const sealed = fromBase64Url(slot.ciphertext);
  const key = await derived(by.material, SLOT, place, by.type, by.credential);
  return sealed && open(key, SLOT, sealed);
}

/** Whether a slot is this factor's. */
export function isFor(by: SlotKey, slot: Slot): boolean {
  return slot.type === by.type && slot.credential === by.credential;
}
