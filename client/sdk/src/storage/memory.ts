/** A storage that is gone with the page: for tests, and for who wants nothing kept. */
import { Draft, type Storage, type Update } from "./storage.js";

/** An empty storage in memory. */
export function memoryStorage(): Storage {
  const kept = new Map<string, unknown>();
  return {
    get: (key) => Promise.resolve(structuredClone(kept.get(key))),
    list: (prefix) => {
      const found = [...kept].filter(([key]) => key.startsWith(prefix));
      found.sort(([one], [other]) => (one < other ? -1 : 1));
      return Promise.resolve(structuredClone(found));
    },
    update: <T>(keys: readonly string[], change: (update: Update) => T): Promise<T> => {
      return Promise.resolve().then(() => {
        const draft = new Draft(new Map(keys.map((key) => [key, kept.get(key)])));
        const result = change(draft);
        for (const [key, value] of draft.writes) {
          if (value === undefined) kept.delete(key);
          else kept.set(key, structuredClone(value));
        }
        return result;
      });
    },
    clear: () => {
      kept.clear();
      return Promise.resolve();
    },
  };
}
