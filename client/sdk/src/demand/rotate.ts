/**
 * Another device secret, with all that hangs on it: the wrapped private key, the slots of the app's own secrets that hang on
 * it, and those of the factors that are at hand.
 *
 * The adversary knows the secret of before, from a device that was lost or by a factor that is removed, and may come by any
 * later state of the database. The new one is random, its content key too, and neither is sealed under anything from
 * before. Those of before stay behind it in the content, for what they have sealed: they open nothing that is new. An app's
 * own secret keeps content and content key, and gets another slot: the key is this one content's, which whoever has it has
 * read, and the next write makes another. So the call is small, however much there is, and fits into one request.
 *
 * The daemon takes recovery codes and secrets in one commit. Before it, nothing has changed; after it, every factor that
 * this device has at hand opens the new secret, whether or not the answer came: the next sign-in takes it up, as it does
 * on any other device. The codes wait on this device until the app says that they were seen (`unseen.ts`):
 * `resumeRotation` hands them out where it came about, and else begins anew.
 */
import type { Bytes } from "../bytes.js";
import type { Custody } from "../custody.js";
import type { Unlocked } from "../keys.js";
import type { Slots } from "../offline/kept.js";
import type { Slot, SlotKey } from "../slots.js";
import type { Schemas } from "../transport.js";
import type { Closed } from "../upkeep.js";
import type { Held } from "../vault.js";
import { freshCodes, sendCodes } from "./codes.js";
import { closedTo } from "./moving.js";
import type { RecoveryCode } from "./recovery-codes.js";
import { nothingWaits } from "./enrol.js";
import { reread } from "./reread.js";
import { contentOf, written } from "./rewrap.js";
import { t } from "./t.js";
import { cameAbout, sealed, sending, type Shelf } from "./unseen.js";
import { beside, locked, slotFor, watch } from "./wiped.js";

const shelf = (): Shelf => ({ name: t.ROTATION, label: "custodyd/sdk/rotation/v2" });
/** Another device may change something meanwhile. */
const TRIES = 4;

/** What became of a rotation. */
export interface Rotated {
  /** In place of all earlier ones. Show their `text` once. */
  readonly codes: readonly RecoveryCode[];
  /** Ways of signing in that bring nothing back until each was used right after one that does. */
  readonly closed: readonly Closed[];
  /** Secrets that this session may not read, or that do not open: they stay under the device secret of before until they are stored anew. */
  readonly left: readonly string[];
}

/** Replaces the device secret. */
export async function rotate(custody: Custody, goesOn = false): Promise<Rotated> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await once(custody, goesOn);
    } catch (error) {
      if (!(error instanceof t.VersionConflict) || tries === TRIES) throw error;
    }
  }
}

async function once(custody: Custody, goesOn: boolean): Promise<Rotated> {
  const wasLocked = watch(custody);
  await reread(custody);
  const { held, unlocked: old } = custody;
  if (!old || old.locked || held?.version === undefined) {
    throw new t.NotReady("locked", "unlock first: the key that is open is wrapped anew");
  }
  const done = goesOn ? await happened(custody, held) : undefined;
  if (done) return done;
  const keys = atHand(custody, held);
  const next = await successor(old);
  try {
    return await replacing(custody, { ...held, version: held.version }, next, keys, wasLocked);
  } catch (error) {
    if (custody.unlocked !== next) next.lock();
    throw error;
  }
}

async function replacing(
  custody: Custody,
  held: Held & { readonly version: number },
  next: Unlocked,
  keys: readonly SlotKey[],
  wasLocked: () => boolean,
): Promise<Rotated> {
  const { codes, keys: codeKeys } = await freshCodes();
  const key = t.random(32);
  const device = await sealedUnder(key, custody, held, next.secret, [...keys, ...codeKeys]);
  const { others, left } = await hanging(custody, next);
  const secrets = {
    [t.DEVICE_SECRET]: { if_version: held.version, content: device },
    ...others,
  };
  const closed = await closedTo(custody, device.slots ?? []);
  const set = await sealed(shelf(), { codes, left }, key);
  // What did not open since then is not what this session does not read. Sent, it comes about whatever is locked.
  if (wasLocked()) throw locked();
  await sending(custody, shelf(), set, () => sendCodes(custody, codes, secrets));
  key.fill(0);
  await written(custody, secrets);
  await takeUp(custody, next, wasLocked);
  // Of an account without a way in, its codes are the first: what was begun is under the secret of before.
  if (t.APP_KEY in others) await nothingWaits(custody);
  return { codes, closed, left };
}

/** The rotation that was begun here before, where it came about. Else it is done again. */
async function happened(custody: Custody, held: Held): Promise<Rotated | undefined> {
  const done = await cameAbout(custody, shelf(), held);
  return done && { ...done, closed: await closedTo(custody) };
}

/** What opens the slots that can be made anew. Whoever shows one of these comes back, also if the answer is lost. */
function atHand(custody: Custody, held: Held): SlotKey[] {
  const keys = custody.slotKeys.filter(
    (key) =>
      !key.unsure && key.type !== "recovery-code" && held.slots.some((slot) => t.isFor(key, slot)),
  );
  if (keys.length > 0 || held.server) return keys;
  const message =
    "sign in with a passkey or the PIN first: new codes alone would be lost with the answer";
  throw new t.NotReady("slot-factor-missing", message);
}

/** The same private key under a new secret, which has those of before behind it. */
async function successor(old: Unlocked): Promise<Unlocked> {
  const secret = t.concat(t.random(t.SECRET_BYTES), old.secret);
  const plain = await t.unsealed(await t.wrappingKey(old.secret), t.WRAPPED, old.wrapped);
  if (!plain) throw new t.CanNotOpen("secret-damaged", "the private key does not open");
  const wrapped = await t.seal(await t.wrappingKey(secret), t.WRAPPED, plain);
  plain.fill(0);
  const next = await t.Unlocked.open(secret, wrapped);
  secret.fill(0);
  return next;
}

async function sealedUnder(
  key: Bytes,
  custody: Custody,
  held: Held,
  secret: Bytes,
  keys: readonly SlotKey[],
): Promise<Schemas["SecretContent"]> {
  const place = t.placeOf(custody, t.DEVICE_SECRET);
  const sealed = await t.sealContent(place, key, secret, await t.nextRevision(custody, place));
  const slots = await Promise.all(keys.map((by) => slotFor(place, by, key)));
  return contentOf({ ...held, key, sealed }, slots);
}

/** The wrapped key, and slots of every secret that opens by the device secret, under the next one. */
async function hanging(custody: Custody, next: Unlocked) {
  const others: Record<string, Schemas["Rewrapped"]> = {};
  const left: string[] = [];
  const { secrets } = await custody.transport.request("get", "/v1/account/secrets");
  for (const { name, version: if_version, server_slot: isServers } of secrets) {
    if (name === t.APP_KEY) {
      others[name] = {
        if_version,
        content: await t.sealedSecret(custody, name, next.wrapped, next),
      };
    } else if (name !== t.DEVICE_SECRET && !isServers) {
      const slots = await slotsUnder(custody, name, next);
      if (!slots) left.push(name);
      // Changed since it was listed, the commit is refused, and this begins again.
      else if (slots.length > 0) others[name] = { if_version, slots };
    }
  }
  return { others, left };
}

/** Its slots as they shall be; none where it does not hang on the device secret, undefined where this session does not open it. */
async function slotsUnder(
  custody: Custody,
  name: string,
  next: Unlocked,
): Promise<Slot[] | undefined> {
  const by = t.chained(next.secret.subarray(0, t.SECRET_BYTES));
  try {
    const route = "/v1/account/secrets/{name}";
    const secret = await custody.transport.request("get", route, { path: { name } });
    const others = secret.slots.filter((slot) => !t.isFor(by, slot));
    if (others.length === secret.slots.length) return [];
    const { key } = await t.openWith(custody, name, secret);
    return [...others, await slotFor(t.placeOf(custody, name), by, key)];
  } catch (error) {
    const isKept = error instanceof t.Refused && error.code === "release-forbidden";
    if (!isKept && !(error instanceof t.CanNotOpen)) throw error;
    return undefined;
  }
}

/**
 * On this device. A passkey that unlocked here offline and is at hand does so at once, and other ways once they are used. What
 * was locked meanwhile stays so: the next sign-in opens it.
 */
async function takeUp(custody: Custody, next: Unlocked, wasLocked: () => boolean): Promise<void> {
  const { passkeys }: Slots = t.slotsOf(await t.ourRecord(custody, t.OFFLINE));
  t.forget(custody, { type: "recovery-code" });
  custody.held = undefined;
  await t.keepAppKey(beside(custody), next);
  // A sign-in since may have brought what is replaced.
  if (!wasLocked() || custody.unlocked?.locked === false) t.opensNow(custody, next);
  else next.lock();
  for (const { credentialId, salt, rpId, deviceId } of passkeys) {
    const key = custody.slotKeys.find(
      ({ type, credential }) => type === "prf" && credential === deviceId,
    );
    const prf = key && { credentialId, salt, rpId, deviceId, output: key.material };
    if (prf && !next.locked) await t.keepOfflineByPasskey(custody, prf);
  }
}
