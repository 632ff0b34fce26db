/**
 * The device secret as it is stored now, read and kept at hand. Called by all of `demand/` that seals it for other factors.
 */
import type { Bytes } from "../bytes.js";
import type { AppKeyRecord, Custody } from "../custody.js";
import type { Unlocked } from "../keys.js";
import { t } from "./t.js";
import { beside, locked, watch } from "./wiped.js";

/**
 * Reads the device secret, and keeps it at hand: unless it is locked meanwhile, which is an error. What did not open any more
 * for that reason is no fault of anybody's.
 */
export async function reread(custody: Custody, first?: Unlocked): Promise<void> {
  const wasLocked = watch(custody);
  const own = beside(custody);
  let isKept = false;
  try {
    await read(custody, own, first);
    isKept = !wasLocked();
  } catch (error) {
    const isShut = error instanceof t.CanNotOpen || error instanceof t.NotReady;
    if (!isShut || !wasLocked()) throw error;
  } finally {
    if (!isKept) {
      own.unlocked?.lock();
      own.held?.key.fill(0);
    }
  }
  if (!isKept) throw locked();
  if (own.held) custody.held = own.held;
  if (own.unlocked) t.opensNow(custody, own.unlocked);
}

async function read(custody: Custody, own: Custody, first?: Unlocked): Promise<void> {
  const path = { name: t.DEVICE_SECRET };
  const route = "/v1/account/secrets/{name}";
  const secret = await custody.transport.request("get", route, { path });
  const found = await t.openWith(custody, t.DEVICE_SECRET, secret);
  // Another device has replaced it: the key that is open is to be under the same.
  if (await isNewer(custody, found.content, first)) await t.unlock(own);
  else await t.hold(own, secret, found);
  found.content.fill(0);
}

/**
 * Whether a device secret is newer than the one that is open. What a daemon shows is not sealed anew before it is known to
 * be the owner's: the one that is known here, or that with newer ones before it.
 */
async function isNewer(custody: Custody, secret: Bytes, first?: Unlocked): Promise<boolean> {
  const open = first ?? custody.unlocked;
  if (open && !open.locked) {
    const { length } = open.secret;
    if (t.equal(open.secret, secret.slice(-length))) return secret.length > length;
    throw new t.Untrusted("statement-differs", "the device secret that is stored is another one");
  }
  const kept = (await t.ourRecord(custody, t.KEPT.appKey)) as AppKeyRecord | undefined;
  if (!kept) throw new t.NotReady("locked", "unlock first: a new factor gets a slot");
  if (await t.opensKept(secret, kept.wrapped)) return false;
  throw new t.CanNotOpen("secret-damaged", "the stored device secret opens no key of this device");
}
