/**
 * Damaged records, after a browser that crashed or a disk that failed. Loaded by `../repair.ts`.
 *
 * Only what a sign-in makes anew is let go: the device key, which account this is, the wrapped private key, copies of what the daemon
 * has, ways to unlock offline. A change that was not sent, a version that lost a conflict and what was seen of the log are nowhere else, or
 * would be missed as evidence: they stay as they are, damaged or not, and are named.
 */
import type { CustodyOptions } from "../custody.js";
import type { Repaired } from "../repair.js";
import { t } from "./t.js";

/** Records by the first part of their names. */
const MADE_ANEW: readonly string[] = [
  ...["device-key", "account", "app-key", "offline", "copy"],
  // It could not be gone on with: another one can be begun.
  "enrolment",
];

/**
 * Replaces what is damaged and can be had again. One update: a page that is closed meanwhile finds it done, or not begun. Each
 * record is looked at again in it, as another tab may have mended it since, and that one stays.
 */
export async function repair({ app, storage }: CustodyOptions): Promise<Repaired> {
  const kept = storage ?? t.indexedDbStorage(`custodyd:${app}`);
  const found = (await kept.list("")).filter(([key, value]) => !t.isSound(key, value));
  const names = found.map(([key]) => key);
  return kept.update(names, (update) => {
    const [replaced, left]: [string[], string[]] = [[], []];
    for (const key of names) {
      const now = update.get(key);
      if (now === undefined || t.isSound(key, now)) continue;
      const isHadAgain = MADE_ANEW.includes(key.split("/", 1)[0] ?? "");
      (isHadAgain ? replaced : left).push(key);
      // `openCustody` makes a device key where there is none.
      if (isHadAgain) update.delete(key);
    }
    return { replaced, left };
  });
}
