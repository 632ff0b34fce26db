/**
 * Damaged records, after a browser that crashed or a disk that failed. Loaded by `../repair.ts`.
 *
 * Only what a sign-in makes anew is let go: the device key, the wrapped private key, copies of what the daemon has, ways to unlock
 * offline. A change that was not sent, a version that lost a conflict and what was seen of the log are nowhere else, or
 * would be missed as evidence: they stay as they are, damaged or not, and are named.
 */
import type { CustodyOptions } from "../custody.js";
import type { Repaired } from "../repair.js";
import { t } from "./t.js";

/** Records by the first part of their names. */
const MADE_ANEW: readonly string[] = ["app-key", "offline", "copy"];

/** Replaces what is damaged and can be had again. One update: a page that is closed meanwhile finds it done, or not begun. */
export async function repair({ app, storage }: CustodyOptions): Promise<Repaired> {
  const kept = storage ?? t.indexedDbStorage(`custodyd:${app}`);
  const replaced: string[] = [];
  const left: string[] = [];
  for (const [key, value] of await kept.list("")) {
    const [kind = ""] = key.split("/", 1);
    const isWhole =
      key === t.KEPT.device
        ? await t.signingKey(value as CryptoKeyPair).then(
            () => true,
            () => false,
          )
        : t.isSound(key, value);
    if (!isWhole) (key === t.KEPT.device || MADE_ANEW.includes(kind) ? replaced : left).push(key);
  }
  await kept.update([], (update) => {
    // `openCustody` makes a device key where there is none.
    for (const key of replaced) update.delete(key);
  });
  return { replaced, left };
}
