/**
 * Secrets that can be read and changed without a network: a copy of each, and a durable queue of new
 * versions that goes out when there is a full session again (`sync.ts`).
 *
 * Contents are kept as the app gives them: seal them first (`Unlocked.dataKey`). Each write names what it was made from,
 * and that is what the caller has read: storage is shared by all tabs, and what another tab has read or written is not in
 * this one's content. Where another device or tab was faster, a rule decides, and what lost is kept on
 * this device until the app drops it. A service worker can not send these, and can wake a page that does: a write needs a factor.
 */
import { type Bytes, random, toHex } from "../bytes.js";
import { type Custody, isBound, otherAccount } from "../custody.js";
import { isAway, NotReady, SessionOver } from "../errors.js";
import { getSecret } from "../secrets.js";
import { accountOf } from "../session.js";
import { openReadOnly } from "../sign-in.js";
import { kept } from "../storage/sound.js";
import {
  type Base,
  type Copy,
  laterWins,
  of,
  type Queued,
  queuedOf,
  type Rule,
} from "./changes.js";
import { sync, type Synced } from "./sync.js";

/** A secret as this device knows it. */
export interface Known {
  readonly content: Bytes;
  /** `pending`: changed here and not sent. `server`: just read. `copy`: read earlier. */
  readonly from: "pending" | "server" | "copy";
  /** A copy, because what the daemon has opens by the device secret alone, which is locked. */
  readonly locked?: true;
  /** What a change that is made from this content is based on, for `saveSecret`. */
  readonly base: Base;
}

/** What each custody, which is one tab, has read or written last. */
const seen = new WeakMap<Custody, Map<string, Base>>();

function saw(custody: Custody, name: string, base: Base = { version: undefined }): void {
  const all = seen.get(custody) ?? new Map<string, Base>();
  seen.set(custody, all.set(of(custody, "copy", name), base));
}

/** Nothing was read: whatever is there, this content was made without it. */
const lastSeen = (custody: Custody, name: string): Base =>
  seen.get(custody)?.get(of(custody, "copy", name)) ?? { version: undefined };

/**
 * Reads a secret: what waits to be sent, else what the daemon has, else the copy of this device.
 *
 * @returns undefined where there is none, as the daemon says
 * @throws where there may be one and this device has no copy: nobody has answered (`unreachable`, a status of 5xx), or it is `locked`
 */
export async function loadSecret(custody: Custody, name: string): Promise<Known | undefined> {
  const known = await load(custody, name);
  saw(custody, name, known?.base);
  return known;
}

async function load(custody: Custody, name: string): Promise<Known | undefined> {
  const queued = await queuedOf(custody, name);
  if (queued) {
    const { content, base: version, id: change } = queued;
    return { content, from: "pending", base: { version, change } };
  }
  const key = of(custody, "copy", name);
  const known = ({ content, version, change }: Copy, from: "server" | "copy"): Known => {
    return { content, from, base: { version, change } };
  };
  try {
    const stored = await withReading(custody, () => getSecret(custody, name));
    return await custody.storage.update([key], (update) => {
      // It is of the account that was signed in to meanwhile.
      if (of(custody, "copy", name) !== key) throw otherAccount();
      if (!stored) {
        update.delete(key);
        return undefined;
      }
      const before = update.get(key) as Copy | undefined;
      // It may be what a tab has written that does not know yet which version that became.
      const change = before?.version === stored.version ? before.change : undefined;
      update.set(key, { ...stored, change } satisfies Copy);
      return known({ ...stored, change }, "server");
    });
  } catch (error) {
    const locked = isLocked(error);
    if (!locked && !isAway(error)) throw error;
    const copy = kept(key, await custody.storage.get(key)) as Copy | undefined;
    // Nobody has said that there is none: a content that is made as the first one would replace what there is.
    if (!copy) throw error;
    return { ...known(copy, "copy"), ...(locked ? { locked: true } : {}) };
  }
}

/** A secret that is sealed end to end needs the device secret, which comes with a sign-in. */
export const isLocked = (error: unknown): boolean =>
  error instanceof NotReady && error.code === "locked";

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

/**
 * Changes a secret: durably on this device at once, and at the daemon if that is possible now.
 *
 * @param from what the content was made from. Default: what this custody has read or written last; an app that reads a
 * secret in several places gives the `base` of the one that it changes
 */
export async function saveSecret(
  custody: Custody,
  name: string,
  content: Bytes,
  rule: Rule = laterWins,
  from: Base = lastSeen(custody, name),
): Promise<Synced> {
  accountOf(custody);
  const [queue, copied] = [of(custody, "queue", name), of(custody, "copy", name)];
  const [id, changed] = [toHex(random(8)), Math.floor(Date.now() / 1000)];
  // Before anything is waited for: a second change may be on its way meanwhile.
  saw(custody, name, { version: from.version, change: id });
  await custody.storage.update([queue, copied], (update) => {
    const before = kept(queue, update.get(queue)) as Queued | undefined;
    const copy = update.get(copied) as Copy | undefined;
    const isSent = from.change !== undefined && copy?.change === from.change;
    const mine = { id, content, changed, base: isSent ? copy.version : from.version };
    if (before && before.id === from.change) {
      const { base, aside } = before;
      update.set(queue, { ...mine, base, aside } satisfies Queued);
    } else {
      // Another tab's change, which this one was made without, is not lost by it.
      const { aside = [], ...other } = before ?? {};
      update.set(queue, { ...mine, aside: before ? [...aside, other as Queued] : [] });
    }
  });
  return sync(custody, rule);
}
