/**
 * Removal of a factor, with another content key for the device secret where the slots of all others can be made.
 *
 * Loaded by `../factors.ts`.
 */
import type { Custody } from "../custody.js";
import type { Slot } from "../slots.js";
import { dropOffline, dropOfflinePasskey } from "./ended.js";
import { changing, type Gone, type Renewal, written } from "./rewrap.js";
import { t } from "./t.js";

/** What became of the content key that a removed factor could have kept. */
export interface Removed {
  /**
   * `renewed`: nothing that is stored from now on opens to it. `kept`: somebody who has that factor, and an older state of the
   * database, opens the device secret as before; `setRecoveryCodes` renews the key where what `needs` names was used since
   * the last `lock`.
   */
  readonly contentKey: "renewed" | "kept";
  /** Other factors that have to be used for that, or made anew. Empty where nothing was open to be sealed anew. */
  readonly needs: readonly Slot["type"][];
}

/** The PIN, and what unlocks by it offline. */
export async function removePin(custody: Custody): Promise<Removed> {
  const removed = await removing(custody, { type: "opaque" }, (secrets) =>
    custody.transport.request("delete", "/v1/account/pin", { body: { secrets } }),
  );
  await dropOffline(custody, "pin");
  return removed;
}

/** A passkey, likewise. */
export async function removePasskey(custody: Custody, deviceId: string): Promise<Removed> {
  const path = { device_id: deviceId };
  const route = "/v1/account/passkeys/{device_id}";
  const removed = await removing(custody, { type: "prf", credential: deviceId }, (secrets) =>
    custody.transport.request("delete", route, { path, body: { secrets } }),
  );
  await dropOfflinePasskey(custody, deviceId);
  return removed;
}

/** All recovery codes. */
export function removeCodes(custody: Custody): Promise<Removed> {
  return removing(custody, { type: "recovery-code" }, (secrets) =>
    custody.transport.request("delete", "/v1/account/recovery-codes", { body: { secrets } }),
  );
}

/** Removes a factor, with a new content key where that can be. A locked key must not hinder anybody. */
async function removing(
  custody: Custody,
  gone: Gone,
  remove: (secrets: Renewal["secrets"]) => Promise<unknown>,
): Promise<Removed> {
  const { secrets, needs } = await renewal(custody, gone);
  let contentKey: Removed["contentKey"] = Object.keys(secrets).length > 0 ? "renewed" : "kept";
  try {
    await remove(secrets);
    await written(custody, secrets);
  } catch (error) {
    // Others' slots may be too strong for this session to make anew.
    if (!(error instanceof t.StepUpRequired) || contentKey === "kept") throw error;
    await remove({});
    contentKey = "kept";
  }
  t.forget(custody, gone);
  custody.held = undefined;
  return { contentKey, needs };
}

async function renewal(custody: Custody, gone: Gone): Promise<Renewal> {
  try {
    return await changing(custody, (rewrap) => rewrap.without(gone));
  } catch (error) {
    if (!(error instanceof t.NotReady) && !(error instanceof t.CanNotOpen)) throw error;
    return { secrets: {}, needs: [] };
  }
}
