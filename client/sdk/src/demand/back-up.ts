/**
 * The first backup of a key. Called by `backUp` of `../secrets.ts`.
 */
import type { Bytes } from "../bytes.js";
import type { Custody } from "../custody.js";
import type { Unlocked } from "../keys.js";
import { t } from "./t.js";
import { copied } from "./wiped.js";

/** Stores both; after an answer that was lost, what is there is the same. */
export async function backingUp(custody: Custody, unlocked: Unlocked): Promise<void> {
  // A copy, for it may be locked while it is on its way: zeros would be backed up.
  const secret = copied(unlocked.secret);
  try {
    await storing(custody, unlocked, secret);
  } finally {
    secret.fill(0);
  }
}

async function storing(custody: Custody, unlocked: Unlocked, secret: Bytes): Promise<void> {
  for (const [name, content] of [
    [t.DEVICE_SECRET, secret],
    [t.APP_KEY, unlocked.wrapped],
  ] as const) {
    try {
      await t.put(custody, name, undefined, await t.sealedSecret(custody, name, content, unlocked));
    } catch (error) {
      if (!(error instanceof t.VersionConflict)) throw error;
      const there = await t.released(custody, name);
      const opened = there && (await t.openSecret(custody, name, there, secret));
      const same = opened && t.toBase64Url(opened) === t.toBase64Url(content);
      if (!same) throw error;
    }
  }
}
