/**
 * Changes of factors, on this side: the device secret's slots go along, in the same call.
 *
 * Called by `factors.ts` and after each sign-in. All that hangs on the device secret stays as it is, so a change rewraps
 * one content key, and never a content.
 */
import { type Bytes, random, toBase64Url } from "./bytes.js";
import type { Custody } from "./custody.js";
import { CanNotOpen, CustodyError, NotReady, Refused } from "./errors.js";
import type { Unlocked } from "./keys.js";
import { isFor, opensWithoutPrf, sealContent, sealSlot, type Slot, type SlotKey } from "./slots.js";
import type { Schemas } from "./transport.js";
import {
  APP_KEY,
  DEVICE_SECRET,
  givesServerSlot,
  type Held,
  nothingPending,
  opened,
  openSecret,
  PENDING,
  type Pending,
  placeOf,
  sealedSecret,
} from "./vault.js";

/** The device secret as it is stored now, opened. */
async function stored(
  custody: Custody,
  version: number,
  first: Unlocked | undefined,
): Promise<Held | undefined> {
  if (custody.held?.version === version) return custody.held;
  try {
    const path = { name: DEVICE_SECRET };
    const route = "/v1/account/secrets/{name}";
    const secret = await custody.transport.request("get", route, { path });
    (await openSecret(custody, DEVICE_SECRET, secret)).fill(0);
    return custody.held;
  } catch (error) {
    // Whoever may not have it can not give it slots.
    if (error instanceof Refused && error.code === "release-forbidden") return undefined;
    if (!(error instanceof CanNotOpen)) throw error;
    // Stored with a factor whose making was not answered: what it was sealed from is here.
    if (first) return await unsent(custody, first.secret, version);
    const message = "unlock first: a new factor gets a slot of the device secret";
    throw new NotReady("locked", message, { cause: error });
  }
}

/** A change of factors, which takes the device secret's slots along. */
export interface Rewrapping {
  /** The daemon can not open it, so that a factor without a slot would bring nothing back. */
  readonly needsSlots: boolean;
  /** With a passkey's slot alone it would be gone with that passkey. */
  readonly hasOnlyPrf: boolean;
  /** What the call sends: slots for `added`, in place of those of the type `replaces`. */
  with(
    added: readonly SlotKey[],
    replaces?: Slot["type"],
  ): Promise<Record<string, Schemas["Rewrapped"]>>;
  /** After the call. */
  done(): Promise<void>;
}

const NOTHING: Rewrapping = {
  needsSlots: false,
  hasOnlyPrf: false,
  with: () => Promise.resolve({}),
  done: () => Promise.resolve(),
};

/** Gets ready for a change of factors. */
export async function rewrapping(custody: Custody): Promise<Rewrapping> {
  // Half a sign-in may replace a PIN and read nothing: what is missing is mended by the sign-in that follows.
  if (custody.transport.session?.scope !== "full") return NOTHING;
  const { secrets } = await custody.transport.request("get", "/v1/account/secrets");
  const there = secrets.find(({ name }) => name === DEVICE_SECRET);
  const pending = (await custody.storage.get(PENDING)) as Pending | undefined;
  const place = placeOf(custody, DEVICE_SECRET);
  const first = pending && (await opened(pending));
  const held = there
    ? await stored(custody, there.version, first)
    : first && (await unsent(custody, first.secret));
  if (!held) return NOTHING;
  let keyThere = secrets.some(({ name }) => name === APP_KEY);
  return {
    needsSlots: !held.server,
    hasOnlyPrf: !opensWithoutPrf(held.slots, held.server),
    with: async (added, replaces) => {
      if (added.length === 0) return {};
      const kept = held.slots.filter((slot) => slot.type !== replaces);
      const made = await Promise.all(added.map((key) => sealSlot(place, key, held.key)));
      const slots = [...kept, ...made];
      const device = {
        ...(held.version === undefined ? {} : { if_version: held.version }),
        ...(held.whole ? { content: contentOf(held, slots) } : { slots }),
      };
      if (keyThere || !first) return { [DEVICE_SECRET]: device };
      const content = await sealedSecret(custody, APP_KEY, first.wrapped, first);
      keyThere = true;
      return { [DEVICE_SECRET]: device, [APP_KEY]: { content } };
    },
    done: async () => {
      if (pending && keyThere) await nothingPending(custody);
    },
  };
}

async function unsent(custody: Custody, secret: Bytes, version?: number): Promise<Held> {
  const key = random(32);
  const sealed = await sealContent(placeOf(custody, DEVICE_SECRET), key, secret);
  const server = await givesServerSlot(custody);
  return { version, key, sealed, slots: [], server, whole: true };
}

function contentOf(held: Held, slots: readonly Slot[]): Schemas["SecretContent"] {
  return {
    sealed: toBase64Url(held.sealed),
    slots: [...slots],
    ...(held.server ? { server_slot: toBase64Url(held.key) } : {}),
  };
}

/**
 * After a sign-in that opened the device secret: gives slots to factors that were used and have none (a PIN that was
 * replaced when it was forgotten, a passkey that gave no PRF output when it was made), and takes that of a recovery
 * code, which is used up.
 */
export async function mend(custody: Custody): Promise<void> {
  const { held, slotKeys } = custody;
  if (held?.version === undefined) return;
  const place = placeOf(custody, DEVICE_SECRET);
  const missing = slotKeys.filter(
    (key) => key.type !== "recovery-code" && !held.slots.some((slot) => isFor(key, slot)),
  );
  const used = (slot: Slot) =>
    slot.type === "recovery-code" && slotKeys.some((key) => isFor(key, slot));
  const made = await Promise.all(missing.map((key) => sealSlot(place, key, held.key)));
  const without = [...held.slots.filter((slot) => !used(slot)), ...made];
  const slots = opensWithoutPrf(without, held.server) ? without : [...held.slots, ...made];
  if (missing.length === 0 && slots.length === held.slots.length) return;
  try {
    const { version } = await custody.transport.request("put", "/v1/account/secrets/{name}", {
      path: { name: DEVICE_SECRET },
      headers: { "If-Match": `"${held.version}"` },
      body: contentOf(held, slots),
    });
    custody.held = { ...held, version, slots, whole: false };
  } catch (error) {
    // The sign-in stands all the same, and the next one tries again.
    if (!(error instanceof CustodyError)) throw error;
  }
}
