/**
 * Changes of factors, on this side: the device secret's slots go along, in the same call.
 *
 * Loaded by `../factors.ts`; `upkeep.ts` does what is left after a sign-in. All that hangs on the device secret stays as it
 * is, so a change rewraps one content key. Where a factor goes, the device secret gets another one.
 */
import type { Bytes } from "../bytes.js";
import type { Custody } from "../custody.js";
import type { Refused } from "../errors.js";
import type { Unlocked } from "../keys.js";
import type { Slot, SlotKey } from "../slots.js";
import type { Schemas } from "../transport.js";
import type { Held, Pending } from "../vault.js";
import { nothingWaits, pendingOf } from "./enrol.js";
import { reread } from "./reread.js";
import { t } from "./t.js";
import { copied, demandKept, locked, slotFor, watch } from "./wiped.js";

/** The device secret as it is stored now, opened. */
async function stored(
  custody: Custody,
  version: number,
  first: Unlocked | undefined,
): Promise<Held | undefined> {
  if (custody.held?.version === version) return custody.held;
  try {
    await reread(custody, first);
    return custody.held;
  } catch (error) {
    if (!(error instanceof t.CanNotOpen)) throw error;
    // Stored with the first factor, whose making was not answered: what it was sealed from is here. Later it may be another one,
    // of a device that has changed it since, with slots of factors that are not here.
    if (first && custody.transport.session?.factor === "creation")
      return await unsent(custody, first.secret, version);
    const message = "unlock first: a new factor gets a slot of the device secret";
    throw new t.NotReady("locked", message, { cause: error });
  }
}

/** A change of factors, which takes the device secret's slots along. */
export interface Rewrapping {
  /** The daemon can not open it, so that a factor without a slot would bring nothing back. */
  readonly needsSlots: boolean;
  /** With a passkey's slot alone it would be gone with that passkey. */
  readonly hasOnlyPrf: boolean;
  /** The backup waits on this device for the first factor that can carry it. */
  readonly waits: boolean;
  /** What the call sends: slots for `added`, in place of those of the type `replaces`. */
  with(
    added: readonly SlotKey[],
    replaces?: Slot["type"],
  ): Promise<Record<string, Schemas["Rewrapped"]>>;
  /** What the removal of a factor sends: another content key, where the slots of all others can be made. */
  without(gone: Gone): Promise<Renewal>;
  /** The content key of what `with` made last; undefined where it made no slots. */
  contentKey(): Bytes | undefined;
  /** Remembers what opens slots, unless it was locked meanwhile. */
  remember(key: SlotKey): void;
  /** After the call. */
  done(): Promise<void>;
  /** After all of it, whatever came of it: wipes what it had a copy of. */
  end(): void;
}

/** A factor that goes, or all of its type. */
export type Gone = Pick<SlotKey, "type"> & Partial<SlotKey>;

/** The device secret under another content key. */
export interface Renewal {
  /** Empty where the key stays. */
  readonly secrets: Record<string, Schemas["Rewrapped"]>;
  /** What a slot could not be made for, because it was not used since the last `lock`. */
  readonly needs: readonly Slot["type"][];
}

type Prepared = Omit<Rewrapping, "remember">;

const NOTHING: Prepared = {
  needsSlots: false,
  hasOnlyPrf: false,
  waits: false,
  with: () => Promise.resolve({}),
  without: () => Promise.resolve({ secrets: {}, needs: [] }),
  contentKey: () => undefined,
  done: () => Promise.resolve(),
  end: () => undefined,
};

/**
 * A change of factors. A `lock` before it is ready stops it, and nothing is sent; after that it has a copy of what it seals, and
 * comes about as a whole, or stops before anything is sent.
 */
export async function changing<T>(
  custody: Custody,
  change: (rewrap: Rewrapping) => Promise<T>,
): Promise<T> {
  const rewrap = await rewrapping(custody);
  try {
    return await change(rewrap);
  } finally {
    rewrap.end();
  }
}

/** Gets ready for it. */
export async function rewrapping(custody: Custody): Promise<Rewrapping> {
  const wasLocked = watch(custody);
  const ready = await prepared(custody);
  if (wasLocked()) {
    ready.end();
    throw locked();
  }
  const remember = (key: SlotKey) => {
    if (!wasLocked()) t.remember(custody, key);
  };
  return { ...ready, remember };
}

async function prepared(custody: Custody): Promise<Prepared> {
  // Half a sign-in may replace a PIN and read nothing: what is missing is mended by the sign-in that follows.
  if (custody.transport.session?.scope !== "full") return NOTHING;
  const { secrets } = await custody.transport.request("get", "/v1/account/secrets");
  const there = secrets.find(({ name }) => name === t.DEVICE_SECRET);
  const pending = await pendingOf(custody, !!there);
  const first = pending && (await t.opened(pending));
  let held: Held | undefined;
  const wasThere = secrets.some(({ name }) => name === t.APP_KEY);
  try {
    held = there
      ? await stored(custody, there.version, first)
      : first && (await unsent(custody, first.secret));
  } catch (error) {
    first?.lock();
    // Whoever may not have it can not give it slots.
    if (!(error instanceof t.Refused) || error.code !== "release-forbidden") throw error;
    const done = async (): Promise<void> => {
      if (pending && wasThere) await nothingWaits(custody);
    };
    return there?.server_slot ? { ...NOTHING, done } : withoutSlots(error);
  }
  if (held) return sealing(custody, { ...held, key: copied(held.key) }, wasThere, pending, first);
  first?.lock();
  // Made without it, a factor would open nothing, and codes take the place of some that do.
  if (there) throw locked();
  return NOTHING;
}

/** With the device secret as it was stored, and a content key that no `lock` wipes. */
function sealing(
  custody: Custody,
  held: Held,
  wasThere: boolean,
  pending: Pending | undefined,
  first: Unlocked | undefined,
): Prepared {
  const place = t.placeOf(custody, t.DEVICE_SECRET);
  let keyThere = wasThere;
  let sent: Record<string, Schemas["Rewrapped"]> = {};
  let contentKey: Bytes | undefined;
  return {
    needsSlots: !held.server,
    hasOnlyPrf: !opensWithoutPrf(held.slots, held.server || held.leaves),
    waits: first !== undefined && !held.server,
    with: async (added, replaces) => {
      // Asked again after a refusal: nothing of what was refused was written.
      [sent, keyThere, contentKey] = [{}, wasThere, undefined];
      if (added.length === 0) return {};
      const kept = held.slots.filter((slot) => slot.type !== replaces);
      const made = await Promise.all(added.map((key) => slotFor(place, key, held.key)));
      const slots = [...kept, ...made];
      // A session that may replace recovery codes may make all slots: what a removed factor has seen ends here.
      const anew =
        replaces === "recovery-code" && !held.whole
          ? await renewed(custody, held, kept, added)
          : undefined;
      const stays = held.leaves && !opensWithoutPrf(slots, false);
      // With a passkey alone the daemon's slot can not go yet, and the daemon takes none anew.
      if (stays && held.whole) return {};
      const device = {
        ...(held.version === undefined ? {} : { if_version: held.version }),
        ...(anew?.content || held.whole || (held.leaves && !stays)
          ? { content: anew?.content ?? contentOf(held, slots) }
          : { slots }),
      };
      contentKey = (anew?.held ?? held).key;
      sent = { [t.DEVICE_SECRET]: device };
      if (keyThere || !first) return sent;
      const content = await t.sealedSecret(custody, t.APP_KEY, first.wrapped, first);
      keyThere = true;
      sent = { ...sent, [t.APP_KEY]: { content } };
      return sent;
    },
    without: async (gone) => {
      const stay = held.slots.filter((slot) => !isOfGone(gone, slot));
      const { content, needs } = await renewed(custody, held, stay);
      if (!content || held.version === undefined) return { secrets: {}, needs };
      return { secrets: { [t.DEVICE_SECRET]: { if_version: held.version, content } }, needs };
    },
    contentKey: () => contentKey,
    done: async () => {
      await written(custody, sent);
      if (pending && keyThere) await nothingWaits(custody);
    },
    end: () => {
      held.key.fill(0);
      first?.lock();
    },
  };
}

/** Of a secret that this session may not have, nor the daemon open. */
function withoutSlots(why: Refused): Prepared {
  return {
    ...NOTHING,
    needsSlots: true,
    with: (_, replaces) => (replaces === "recovery-code" ? Promise.reject(why) : NOTHING.with([])),
  };
}

/** What was written is remembered as what is shown: the device that wrote it takes nothing older. */
export async function written(
  custody: Custody,
  secrets: Record<string, Schemas["Rewrapped"]>,
): Promise<void> {
  for (const [name, { content }] of Object.entries(secrets)) {
    if (!content?.sealed) continue;
    await t.noted(
      custody,
      t.placeOf(custody, name),
      content.server_slot == null,
      t.fromBase64Url(content.sealed),
    );
  }
}

function isOfGone({ type, credential }: Gone, slot: Slot): boolean {
  return slot.type === type && (credential === undefined || slot.credential === credential);
}

async function unsent(custody: Custody, secret: Bytes, version?: number): Promise<Held> {
  const [place, key] = [t.placeOf(custody, t.DEVICE_SECRET), t.random(32)];
  const sealed = await t.sealContent(place, key, secret, await t.nextRevision(custody, place));
  const server = await t.givesServerSlot(custody);
  return { version, key, sealed, slots: [], server, leaves: false, whole: true };
}

/** The device secret under another content key, with slots for the same factors, where what opens them all is at hand. */
export async function renewed(
  custody: Custody,
  held: Held,
  slots: readonly Slot[],
  added: readonly SlotKey[] = [],
): Promise<{
  readonly content?: Schemas["SecretContent"];
  readonly held?: Held;
  readonly needs: Slot["type"][];
}> {
  const place = t.placeOf(custody, t.DEVICE_SECRET);
  const keyFor = (slot: Slot) => custody.slotKeys.find((key) => !key.unsure && t.isFor(key, slot));
  const missing = slots.filter((slot) => !keyFor(slot));
  const needs = [...new Set(missing.map(({ type }) => type))];
  const keys = [...slots.map(keyFor).filter((one) => one !== undefined), ...added];
  // By passkeys alone the daemon takes none.
  if (needs.length > 0 || keys.every(({ type }) => type === "prf")) return { needs };
  const content = await t.openContent(place, held.key, held.sealed);
  if (!content) return { needs };
  const key = t.random(32);
  const sealed = await t.sealContent(place, key, content, await t.nextRevision(custody, place));
  content.fill(0);
  const made = await Promise.all(keys.map((one) => slotFor(place, one, key)));
  const next = { ...held, key, sealed, slots: made, leaves: false, whole: false };
  return { content: contentOf(next, made), held: next, needs };
}

/** As it is sent, with these slots: of a content key that was not wiped, which some of them may hold. */
export function contentOf(held: Held, slots: readonly Slot[]): Schemas["SecretContent"] {
  demandKept(held.key);
  return {
    sealed: t.toBase64Url(held.sealed),
    slots: [...slots],
    ...(held.server ? { server_slot: t.toBase64Url(held.key) } : {}),
  };
}

/** Whether something else than a passkey's PRF opens it: with one lost authenticator it would be gone. */
export function opensWithoutPrf(slots: readonly Slot[], server: boolean): boolean {
  return server || slots.some((slot) => slot.type !== "prf");
}
