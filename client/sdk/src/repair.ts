/**
 * The way on from `storage-damaged`: `demand/repair.ts` does it.
 */
import type { CustodyOptions } from "./custody.js";
import { onDemand } from "./tools.js";

/** What was damaged. Names are those of records: `device-key`, `app-key`, `queue/ACCOUNT/SECRET`. */
export interface Repaired {
  /** Let go, to be made anew. With `device-key` this device is a stranger to its account, and recovers as a new one does. */
  readonly replaced: readonly string[];
  /** Left as it is, since it can not be had again: changes that were not sent, and what was seen of the log. */
  readonly left: readonly string[];
}

/**
 * Lets go of records that are damaged and can be made anew, after `storage-damaged`; all else stays, changes that were not
 * sent among it. Then open the custody, and sign in; where the device key was replaced, as on a new device (`bindDevice`).
 */
export async function repairDevice(options: CustodyOptions): Promise<Repaired> {
  return (await onDemand()).repair(options);
}
