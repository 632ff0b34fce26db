/**
 * The browser's storage. Each update is one IndexedDB transaction with strict durability: what it
 * wrote is on the disk when its promise resolves, or nothing of it is.
 *
 * A browser may clear it under pressure; `navigator.storage.persist()` is the app's to ask.
 */
import { StorageFailed } from "../errors.js";
import { Draft, type Storage, type Update } from "./storage.js";

const STORE = "kept";

function asked<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => {
      resolve(request.result);
    };
    request.onerror = () => {
      reject(failed(request.error));
    };
  });
}

function failed(cause: unknown): StorageFailed {
  const why = cause instanceof Error ? `${cause.name}: ${cause.message}` : "no reason given";
  return new StorageFailed("storage-unavailable", `the browser's storage failed (${why})`, {
    cause,
  });
}

function opened(name: string): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(name, 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore(STORE);
    };
    request.onsuccess = () => {
      resolve(request.result);
    };
    request.onerror = () => {
      reject(failed(request.error));
    };
    request.onblocked = () => {
      reject(failed(new Error("another tab holds an older version")));
    };
  });
}

class Database implements Storage {
  #open: Promise<IDBDatabase> | undefined;
  constructor(private readonly name: string) {}

  /** Opened on first use, and again after the browser has closed it. */
  async #transaction(mode: IDBTransactionMode): Promise<IDBTransaction> {
    for (let again = true; ; again = false) {
      try {
        this.#open ??= opened(this.name);
        const database = await this.#open;
        database.onclose = database.onversionchange = () => {
          database.close();
          this.#open = undefined;
        };
        return database.transaction(STORE, mode, { durability: "strict" });
      } catch (error) {
        this.#open = undefined;
        if (!again) throw error instanceof StorageFailed ? error : failed(error);
      }
    }
  }

  async get(key: string): Promise<unknown> {
    const store = (await this.#transaction("readonly")).objectStore(STORE);
    return asked(store.get(key) as IDBRequest<unknown>);
  }

  async list(prefix: string): Promise<[string, unknown][]> {
    const store = (await this.#transaction("readonly")).objectStore(STORE);
    const range = IDBKeyRange.bound(prefix, `${prefix}\uffff`);
    const [keys, values] = await Promise.all([
      asked(store.getAllKeys(range)),
      asked(store.getAll(range) as IDBRequest<unknown[]>),
    ]);
    return keys.map((key, at) => [key as string, values[at]]);
  }

  async update<T>(keys: readonly string[], change: (update: Update) => T): Promise<T> {
    const transaction = await this.#transaction("readwrite");
    const store = transaction.objectStore(STORE);
    const ended = new Promise<void>((resolve, reject) => {
      transaction.oncomplete = () => {
        resolve();
      };
      transaction.onabort = () => {
        reject(failed(transaction.error));
      };
    });
    ended.catch(() => undefined); // It is awaited below, unless `change` throws before.
    const reads = keys.map((key) => asked(store.get(key) as IDBRequest<unknown>));
    const values = await Promise.all(reads);
    const draft = new Draft(new Map(keys.map((key, at) => [key, values[at]])));
    let result: T;
    try {
      result = change(draft);
      for (const [key, value] of draft.writes) {
        if (value === undefined) store.delete(key);
        else store.put(value, key);
      }
    } catch (error) {
      transaction.abort();
      throw error;
    }
    await ended;
    return result;
  }

  async clear(): Promise<void> {
    const transaction = await this.#transaction("readwrite");
    await asked(transaction.objectStore(STORE).clear());
  }
}

/** The storage of an app, in a database of its own. */
export function indexedDbStorage(name: string): Storage {
  if (typeof indexedDB === "undefined") {
    throw new StorageFailed("storage-unavailable", "this runtime has no IndexedDB; give a storage");
  }
  return new Database(name);
}
