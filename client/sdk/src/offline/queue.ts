/**
 * Secrets that can be read and changed without a network: a copy of each, and a durable queue of new
 * versions that goes out when there is a full session again.
 *
 * Contents are kept as the app gives them: seal them first (`Unlocked.dataKey`). Each write names the
 * version that it replaces. Where another device was faster, a rule decides, and what lost is kept on
 * this device until the app drops it. Background Sync can not send these: a write needs a factor.
 */
import { type Bytes, equal, random, toHex } from "../bytes.js";
import { type Custody, isBound } from "../custody.js";
import {
  CanNotOpen,
  CustodyError,
  NotReady,
  Refused,
  SessionOver,
  StepUpRequired,
  Unreachable,
  VersionConflict,
} from "../errors.js";
import { followRotation, getSecret, putSecret, type Stored } from "../secrets.js";
import { openReadOnly } from "../sign-in.js";
import { OFFLINE, slotsOf } from "./kept.js";
import { reportOffline } from "./report.js";
import { dropOthersOffline } from "./slots.js";

const COPY = "copy/";
const QUEUE = "queue/";
const LOST = "lost/";

interface Queued {
  readonly id: string;
  readonly content: Bytes;
  /** The version that it replaces. */
  readonly base: number | undefined;
  /** Seconds since the Unix epoch, by this device's clock. */
  readonly changed: number;
}

/** A secret as this device knows it. */
export interface Known {
  readonly content: Bytes;
  /** `pending`: changed here and not sent. `server`: just read. `copy`: read earlier. */
  readonly from: "pending" | "server" | "copy";
  /** A copy, because what the daemon has opens by the device secret alone, which is locked. */
  readonly locked?: true;
}

/** Two versions that were made without knowing of each other. */
export interface Conflict {
  readonly name: string;
  readonly mine: { readonly content: Bytes; readonly changed: number };
  /** Undefined where it was deleted. */
  readonly theirs: Stored | undefined;
}

/** Decides: new content, made of both perhaps, or that theirs stays. */
export type Rule = (conflict: Conflict) => Bytes | "theirs" | Promise<Bytes | "theirs">;

/** The rule that holds unless the app gives another: the later change wins. */
export const laterWins: Rule = ({ mine, theirs }) =>
  theirs && theirs.updated > mine.changed ? "theirs" : mine.content;

/** What a synchronisation has come to. */
export interface Synced {
  readonly sent: readonly string[];
  /** Still waiting. */
  readonly waiting: readonly string[];
  /** Why something waits: no network, a sign-in that is needed first, or one that may read what it would replace. */
  readonly because: "offline" | "sign-in" | "step-up" | undefined;
  /** What waits because another device's version, which it would replace, does not open here: which, and why. */
  readonly unopened: readonly Unopened[];
}

/** A secret that this device can not open. */
export interface Unopened {
  readonly name: string;
  readonly error: CanNotOpen;
}

/** A version that lost a conflict. */
export interface Lost {
  readonly key: string;
  readonly name: string;
  readonly content: Bytes;
}

/** Reads a secret: what waits to be sent, else what the daemon has, else the copy of this device. */
export async function loadSecret(custody: Custody, name: string): Promise<Known | undefined> {
  const queued = (await custody.storage.get(QUEUE + name)) as Queued | undefined;
  if (queued) return { content: queued.content, from: "pending" };
  try {
    const stored = await withReading(custody, () => getSecret(custody, name));
    await custody.storage.update([], (update) => {
      if (stored) update.set(COPY + name, stored);
      else update.delete(COPY + name);
    });
    return stored && { content: stored.content, from: "server" };
  } catch (error) {
    const locked = isLocked(error);
    if (!locked && !(error instanceof Unreachable)) throw error;
    const copy = (await custody.storage.get(COPY + name)) as Stored | undefined;
    if (locked && !copy) throw error;
    return copy && { content: copy.content, from: "copy", ...(locked ? { locked: true } : {}) };
  }
}

/** A secret that is sealed end to end needs the device secret, which comes with a sign-in. */
const isLocked = (error: unknown): boolean => error instanceof NotReady && error.code === "locked";

/** Reads within the running session, or one of the device key alone. */
async function withReading<T>(custody: Custody, read: () => Promise<T>): Promise<T> {
  if (!custody.transport.session && isBound(custody)) await openReadOnly(custody);
  try {
    return await read();
  } catch (error) {
    if (!(error instanceof SessionOver) || !isBound(custody)) throw error;
    await openReadOnly(custody);
    return read();
  }
}

/** Changes a secret: durably on this device at once, and at the daemon if that is possible now. */
export async function saveSecret(
  custody: Custody,
  name: string,
  content: Bytes,
  rule: Rule = laterWins,
): Promise<Synced> {
  await custody.storage.update([QUEUE + name, COPY + name], (update) => {
    const before = update.get(QUEUE + name) as Queued | undefined;
    const copy = update.get(COPY + name) as Stored | undefined;
    // What waits already is replaced: nobody has seen it.
    const base = before ? before.base : copy?.version;
    const changed = Math.floor(Date.now() / 1000);
    update.set(QUEUE + name, { id: toHex(random(8)), content, base, changed } satisfies Queued);
  });
  return sync(custody, rule);
}

/** Names of the secrets that wait to be sent. */
export async function pendingChanges(custody: Custody): Promise<string[]> {
  const entries = await custody.storage.list(QUEUE);
  return entries.map(([key]) => key.slice(QUEUE.length));
}

/** Versions that lost a conflict and are nowhere else. */
export async function lostVersions(custody: Custody): Promise<Lost[]> {
  const entries = await custody.storage.list(LOST);
  return entries.map(([key, value]) => ({ key, ...(value as { name: string; content: Bytes }) }));
}

/** Drops a version that lost, once a person has looked at it. */
export async function dropLost(custody: Custody, lost: Lost): Promise<void> {
  await custody.storage.update([], (update) => {
    update.delete(lost.key);
  });
}

/** Sends what waits, and what happened offline. Call it after each sign-in and when the network is back. */
export async function sync(custody: Custody, rule: Rule = laterWins): Promise<Synced> {
  const work = () => syncAlone(custody, rule);
  // Two tabs would resolve the same conflict twice.
  return typeof navigator !== "undefined" && "locks" in navigator
    ? navigator.locks.request(`custodyd:${custody.app}:sync`, work)
    : work();
}

async function syncAlone(custody: Custody, rule: Rule): Promise<Synced> {
  const sent: string[] = [];
  const unopened: Unopened[] = [];
  if (custody.transport.session) await tellIfPossible(custody);
  const names = await pendingChanges(custody);
  const first = await whatStops(() => upToDate(custody));
  let because = first instanceof CanNotOpen ? "sign-in" : names.length > 0 ? first : undefined;
  for (const name of because ? [] : names) {
    const stopped = await whatStops(() => send(custody, name, rule));
    // What this session may not change, or this device not open, holds nothing else back.
    if (stopped instanceof CanNotOpen) unopened.push({ name, error: stopped });
    else if (!stopped) sent.push(name);
    else {
      because = stopped;
      if (stopped !== "step-up") break;
    }
  }
  return { sent, waiting: await pendingChanges(custody), because, unopened };
}

/** Another device may have replaced the device secret: nothing is to be sealed under the one of before any more. */
async function upToDate(custody: Custody): Promise<void> {
  if (custody.transport.session?.scope !== "full") throw new NotReady("locked", "sign in first");
  try {
    await followRotation(custody);
  } catch (error) {
    // Whoever may not have it writes what they may, and its readers open that.
    if (!(error instanceof NotReady && error.cause instanceof Refused)) throw error;
  }
}

/** Custodies that have asked which passkeys are left. */
const asked = new WeakSet<Custody>();

/** Once in a page's life: a passkey that was removed on another device is not to unlock this one. */
async function followRemovals(custody: Custody): Promise<void> {
  if (asked.has(custody)) return;
  const { passkeys } = slotsOf(await custody.storage.get(OFFLINE));
  if (passkeys.length > 0) {
    const view = await custody.transport.request("get", "/v1/account");
    await dropOthersOffline(custody, new Set(view.passkeys.map((one) => one.device_id)));
  }
  asked.add(custody);
}

/** What can not be told now stays counted; it must not keep a change of the owner's back. */
async function tellIfPossible(custody: Custody): Promise<void> {
  try {
    await reportOffline(custody);
    await followRemovals(custody);
  } catch (error) {
    if (!(error instanceof CustodyError)) throw error;
  }
}

/** Why a step has to wait; undefined where it was done. */
async function whatStops(step: () => Promise<unknown>): Promise<Synced["because"] | CanNotOpen> {
  try {
    await step();
    return undefined;
  } catch (error) {
    if (error instanceof CanNotOpen) return error;
    const code = error instanceof Refused ? error.code : "";
    if (error instanceof Unreachable) return "offline";
    // The second is the answer to a look at what another device has written meanwhile.
    if (error instanceof StepUpRequired || code === "release-forbidden") return "step-up";
    if (isLocked(error) || error instanceof SessionOver || code === "read-only-session")
      return "sign-in";
    throw error;
  }
}

/** Sends one secret until it is there, or theirs stays. */
async function send(custody: Custody, name: string, rule: Rule): Promise<void> {
  for (;;) {
    const queued = (await custody.storage.get(QUEUE + name)) as Queued | undefined;
    if (!queued) return;
    const { content, base } = queued;
    try {
      const version = await putSecret(custody, name, content, base);
      await done(custody, name, queued, { version, content, updated: queued.changed });
    } catch (error) {
      if (!(error instanceof VersionConflict)) throw error;
      await resolve(custody, name, queued, rule);
    }
  }
}

/** Keeps what the daemon has now; a change made meanwhile goes on from there. */
async function done(custody: Custody, name: string, sent: Queued, stored: Stored): Promise<void> {
  await custody.storage.update([QUEUE + name], (update) => {
    const now = update.get(QUEUE + name) as Queued | undefined;
    update.set(COPY + name, stored);
    if (now?.id === sent.id) update.delete(QUEUE + name);
    else if (now) update.set(QUEUE + name, { ...now, base: stored.version });
  });
}

async function resolve(custody: Custody, name: string, mine: Queued, rule: Rule): Promise<void> {
  const theirs = await getSecret(custody, name);
  // The answer to an earlier try was lost: it is ours that is there.
  if (theirs && equal(theirs.content, mine.content)) {
    await done(custody, name, mine, theirs);
    return;
  }
  const decided = await rule({ name, mine, theirs });
  const loser = decided === "theirs" ? mine.content : theirs?.content;
  await custody.storage.update([QUEUE + name], (update) => {
    const now = update.get(QUEUE + name) as Queued | undefined;
    if (loser) update.set(`${LOST}${name}/${toHex(random(8))}`, { name, content: loser });
    if (theirs) update.set(COPY + name, theirs);
    else update.delete(COPY + name);
    if (now?.id !== mine.id) {
      // Changed again while the rule was asked: that one is judged next.
      if (now) update.set(QUEUE + name, { ...now, base: theirs?.version });
    } else if (decided === "theirs") {
      update.delete(QUEUE + name);
    } else {
      update.set(QUEUE + name, { ...mine, content: decided, base: theirs?.version });
    }
  });
}
