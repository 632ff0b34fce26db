/** One device with two tabs and two accounts: the first tab has its own open, and the other has signed in to the second. */
import { utf8 } from "../../src/bytes.js";
import { type Custody, keepAccount } from "../../src/custody.js";
import type { Storage } from "../../src/storage/storage.js";
import type { Asked } from "./daemon.js";
import type { Fate, Safe } from "./safe.js";

/** What belongs to the second account, and to nobody else. */
const THEIRS = {
  "app-key": { thumbprint: "theirs", wrapped: new Uint8Array(4) },
  offline: {
    passkeys: [
      { credentialId: "c", salt: "s", rpId: "r", sealed: new Uint8Array(4), deviceId: "d" },
    ],
    wrongPins: 2,
    unreported: 2,
  },
  codes: [{ sealed: new Uint8Array(4), at: 0 }],
  rotation: [{ sealed: new Uint8Array(4), at: 0 }],
  "copy/a-2/notes": { version: 1, updated: 0, content: utf8("theirs") },
  "queue/a-2/notes": { id: "q", content: utf8("theirs, not sent"), base: 1, changed: 0 },
};

/** The first tab, which has its own account open, and what reaches the daemon from it. */
export async function tab(
  safe: Safe,
  storage: Storage,
  fate: (asked: Asked) => Fate = () => "done",
) {
  const asked: string[] = [];
  const custody = await safe.device(storage, (one) => {
    asked.push(`${one.method} ${one.path}`);
    return fate(one);
  });
  await safe.opened(custody, safe.pin, safe.passkey);
  asked.length = 0;
  return { custody, asked };
}

/** The other tab signs in to the second account, and goes on there. */
export async function signInElsewhere(custody: Custody): Promise<void> {
  await keepAccount(
    { ...custody, account: undefined, unlocked: undefined, slotKeys: [], held: undefined },
    { account: "a-2" },
  );
  await custody.storage.update([], (update) => {
    for (const [key, value] of Object.entries(THEIRS)) update.set(key, value);
  });
}

/** Its records, as they are now. */
export const theirs = (storage: Storage) =>
  Promise.all(["account", ...Object.keys(THEIRS)].map((key) => storage.get(key)));

/** A tab that does not look whose device this is: as it was before there was such a check. */
export const blind = (storage: Storage): Storage => ({
  ...storage,
  update: (keys, change) =>
    storage.update(keys, (update) =>
      change({
        get: (key) => (key === "account" ? { account: "a-1" } : update.get(key)),
        set: (key, value) => {
          update.set(key, value);
        },
        delete: (key) => {
          update.delete(key);
        },
      }),
    ),
});
