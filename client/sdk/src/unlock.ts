/**
 * From two secrets to the open app key, which is believed when it is the one that this device knows, or that the realm
 * has bound to the account.
 *
 * Called by `session.ts` and `secrets.ts`. What was opened is kept at hand after that and not before.
 */
import { equal } from "./bytes.js";
import { type AppKeyRecord, type Custody, KEPT, ourRecord, ours } from "./custody.js";
import { Untrusted } from "./errors.js";
import { publicJwk, thumbprint } from "./jose.js";
import { opensKept, Unlocked } from "./keys.js";
import { OFFLINE, stale } from "./offline/kept.js";
import { verifyBinding } from "./receipts/realm.js";
import { accountOf } from "./session.js";
import { kept as sound } from "./storage/sound.js";
import type { Schemas } from "./transport.js";
import { APP_KEY, DEVICE_SECRET, hold, noted, opensToDaemon, openWith, placeOf } from "./vault.js";

/** Opens the app key with released secrets. */
export async function unlockWith(
  custody: Custody,
  device: Schemas["Secret"],
  key: Schemas["Secret"],
): Promise<Unlocked> {
  const place = placeOf(custody, APP_KEY);
  const secret = await openWith(custody, DEVICE_SECRET, device);
  const wrapped = await openWith(custody, APP_KEY, key, secret.content);
  const unlocked = await Unlocked.open(secret.content, wrapped.content);
  const kept = (await ourRecord(custody, KEPT.appKey)) as AppKeyRecord | undefined;
  if (kept?.thumbprint !== unlocked.thumbprint || kept.restored)
    await demandBinding(custody, unlocked);
  // Whoever knows an earlier device secret knows the key, and can wrap it under one of their own.
  else if (!(await opensKept(secret.content, kept.wrapped))) {
    throw new Untrusted("statement-differs", "not the device secret");
  }
  await hold(custody, device, secret);
  await noted(custody, place, !opensToDaemon(key), wrapped.sealed);
  for (const { key, content } of [secret, wrapped]) if (key !== content) key.fill(0);
  secret.content.fill(0);
  return keepAppKey(custody, unlocked);
}

/** A key that this device sees for the first time must be bound to the account by the realm. */
export async function demandBinding(custody: Custody, unlocked: Unlocked): Promise<void> {
  const view = await custody.transport.request("get", "/v1/account");
  const bound = view.app_keys.find((key) => key.device_id === unlocked.thumbprint);
  const jwk = publicJwk(bound?.jwk);
  if (!bound || !jwk || (await thumbprint(jwk)) !== unlocked.thumbprint) {
    throw new Untrusted(
      "statement-differs",
      "the recovered key is none of this account's app keys",
    );
  }
  await verifyBinding(custody.realm, bound.binding, {
    ...{ app: custody.app, sub: accountOf(custody) },
    ...{ kind: "app-key", device_id: unlocked.thumbprint },
  });
}

/**
 * Keeps the wrapped key on this device, and the open one in memory. Where it is wrapped anew, the device secret is
 * another one: what unlocks offline by the one of before goes in the same step, or it would open nothing.
 */
export async function keepAppKey(custody: Custody, unlocked: Unlocked): Promise<Unlocked> {
  const { thumbprint: name, wrapped } = unlocked;
  await ours(custody, [KEPT.appKey, OFFLINE], (update) => {
    const before = sound(KEPT.appKey, update.get(KEPT.appKey)) as AppKeyRecord | undefined;
    update.set(KEPT.appKey, { thumbprint: name, wrapped });
    if (before && !equal(before.wrapped, wrapped)) update.set(OFFLINE, stale(update.get(OFFLINE)));
  });
  return opensNow(custody, unlocked);
}

/**
 * In memory. A key that is open already under the same device secret goes on, since of two `lock` would leave one open.
 * Under another, it was replaced: it is locked, and the app is told. Returns the one that is open.
 */
export function opensNow(custody: Custody, unlocked: Unlocked): Unlocked {
  const { unlocked: open } = custody;
  if (open && open !== unlocked && !open.locked) {
    if (open.thumbprint === unlocked.thumbprint && equal(open.secret, unlocked.secret)) {
      unlocked.lock();
      return open;
    }
    open.lock();
    tellReplaced(custody, unlocked);
  }
  custody.unlocked = unlocked;
  return unlocked;
}

/** What the app makes of it is its own affair, and fails by itself. */
export function tellReplaced({ onReplaced }: Custody, now: Unlocked | undefined): void {
  if (onReplaced) {
    queueMicrotask(() => {
      onReplaced(now);
    });
  }
}
