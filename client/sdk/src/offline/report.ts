/**
 * Wrong PINs that only this device has heard, told to the daemon on return: an event that the owner
 * reads on every other device. Called by `queue.ts` when it synchronises.
 */
import { type Custody, ourRecord, ours } from "../custody.js";
import { OFFLINE, slotsOf } from "./kept.js";

/** What the daemon takes at once. */
const MOST = 1_000_000;

/**
 * Reports what was counted, within whatever session there is. Returns how many that were.
 *
 * A report whose answer is lost is sent again, so that the daemon may hear of a guess twice, and never
 * not at all.
 */
export async function reportOffline(custody: Custody): Promise<number> {
  const counted = slotsOf(await ourRecord(custody, OFFLINE)).unreported ?? 0;
  const unreported = Math.min(counted, MOST);
  if (unreported === 0) return 0;
  const body = { wrong_pins: unreported };
  await custody.transport.request("post", "/v1/account/offline-report", { body });
  await ours(custody, [OFFLINE], (update) => {
    const slots = slotsOf(update.get(OFFLINE));
    // Those that were typed while the report was on its way are still to come.
    update.set(OFFLINE, {
      ...slots,
      unreported: Math.max((slots.unreported ?? 0) - unreported, 0),
    });
  });
  return unreported;
}
