/** Half of a record: an error with a name, and not whatever the first access makes of it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { keepAccount } from "../src/custody.js";
import { lostVersions } from "../src/offline/changes.js";
import { loadSecret, saveSecret } from "../src/offline/queue.js";
import { offlineState } from "../src/offline/slots.js";
import { newestCheckpoint } from "../src/receipts/log.js";
import { FakeDaemon } from "./support/daemon.js";
import { Realm } from "./support/realm.js";

test("a record that is damaged is said to be, and is left as it is", async () => {
  const daemon = new FakeDaemon(() => {
    throw new TypeError("Failed to fetch");
  });
  const custody = await daemon.custody(await Realm.make());
  await keepAccount(custody, { account: "a-1" });
  for (const [key, value, read] of [
    ["log", { trusted: "x" }, () => newestCheckpoint(custody)],
    ["offline", { wrongPins: 1 }, () => offlineState(custody)],
    ["queue/a-1/notes", { id: "x" }, () => loadSecret(custody, "notes")],
    ["queue/a-1/notes", null, () => saveSecret(custody, "notes", new Uint8Array())],
    ["copy/a-1/other", { version: 1 }, () => loadSecret(custody, "other")],
    ["lost/a-1/notes/1", "half", () => lostVersions(custody)],
  ] as const) {
    await custody.storage.update([], (update) => {
      update.set(key, value);
    });
    await assert.rejects(read(), { name: "StorageFailed", code: "storage-damaged" }, key);
    assert.deepEqual(await custody.storage.get(key), value);
  }
});
