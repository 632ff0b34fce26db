/**
 * Sends what `queue.ts` keeps. Called by it, and by the app after a sign-in and when the network is back.
 *
 * A change that was begun for one account is never sent into another's: it is found under its account's name, and that of
 * the session is looked at before each step.
 */
import { type Custody, ourRecord } from "../custody.js";
import {
  CanNotOpen,
  CustodyError,
  isAway,
  NotReady,
  Refused,
  SessionOver,
  StepUpRequired,
  VersionConflict,
} from "../errors.js";
import { followRotation, putSecret, type Stored } from "../secrets.js";
import { onDemand } from "../tools.js";
import {
  type Copy,
  laterWins,
  of,
  pendingChanges,
  type Queued,
  queuedOf,
  type Rule,
  type Whose,
} from "./changes.js";
import { OFFLINE, slotsOf } from "./kept.js";
import { isLocked } from "./queue.js";
import { reportOffline } from "./report.js";

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
  // Between tabs no network is needed.
  const apart = await whatStops(() => settleAll(custody, names, rule));
  const first = apart ?? (await whatStops(() => upToDate(custody)));
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

/** Decides between changes of tabs that did not know of each other. */
async function settleAll(custody: Custody, names: readonly string[], rule: Rule): Promise<void> {
  for (const name of names) {
    const queued = await queuedOf(custody, name);
    if (queued?.aside?.length) await (await onDemand()).settle(custody, name, rule);
  }
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

/** A factor that was removed or changed on another device is not to unlock this one. */
async function followRemovals(custody: Custody): Promise<void> {
  const { passkeys, pin } = slotsOf(await ourRecord(custody, OFFLINE));
  if (passkeys.length > 0 || pin) await (await onDemand()).followRemovals(custody);
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
    if (isAway(error)) return "offline";
    // The second is the answer to a look at what another device has written meanwhile.
    if (error instanceof StepUpRequired || code === "release-forbidden") return "step-up";
    if (isLocked(error) || error instanceof SessionOver || code === "read-only-session")
      return "sign-in";
    throw error;
  }
}

/** Sends one secret until it is there, or theirs stays. */
async function send(custody: Custody, name: string, rule: Rule): Promise<void> {
  const { account } = custody;
  for (;;) {
    const queued = await queuedOf(custody, name);
    if (!queued || custody.account?.account !== account?.account) return;
    if (queued.aside?.length) {
      // Another tab has come in between.
      await settleAll(custody, [name], rule);
      continue;
    }
    const { content, base } = queued;
    try {
      const version = await putSecret(custody, name, content, base);
      await done(custody, { account }, name, queued, { version, content, updated: queued.changed });
    } catch (error) {
      if (!(error instanceof VersionConflict)) throw error;
      await (await onDemand()).resolve(custody, name, queued, rule);
    }
  }
}

/** Keeps what the daemon has now; a change made meanwhile goes on from there. */
export async function done(
  { storage }: Custody,
  whose: Whose,
  name: string,
  sent: Queued,
  stored: Stored,
): Promise<void> {
  const queue = of(whose, "queue", name);
  await storage.update([queue], (update) => {
    const now = update.get(queue) as Queued | undefined;
    update.set(of(whose, "copy", name), { ...stored, change: sent.id } satisfies Copy);
    if (now?.id === sent.id) update.delete(queue);
    // It has replaced what was sent, or has that, or what replaced it, aside: nothing is overwritten unseen.
    else if (now) update.set(queue, { ...now, base: stored.version });
  });
}
