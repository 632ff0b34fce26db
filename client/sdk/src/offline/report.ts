/**
 * Wrong PINs that only this device has heard, told to the daemon on return: an event that the owner
 * reads on every other device. Called by `queue.ts` when it synchronises.
 */
import { type Custody, ourRecord } from "../custody.js";
import { onDemand } from "../tools.js";
import { OFFLINE, slotsOf } from "./kept.js";

/**
 * Reports what was counted, within whatever session there is. Returns how many that were.
 *
 * A report whose answer is lost is sent again, so that the daemon may hear of a guess twice, and never
 * not at all.
 */
export async function reportOffline(custody: Custody): Promise<number> {
  const { unreported } = slotsOf(await ourRecord(custody, OFFLINE));
  return unreported ? (await onDemand()).report(custody, unreported) : 0;
}
