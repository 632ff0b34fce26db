/**
 * What the SDK keeps on the device: a small ordered map with atomic updates.
 *
 * `indexeddb.ts` is the browser's; `memory.ts` is for tests and for runtimes without one. Whoever
 * can read it has the whole browser profile: it holds no private key and no device secret in the clear.
 */

/** Reads and writes within one atomic update. Synchronous, so that it can not be interrupted. */
export interface Update {
  get(key: string): unknown;
  set(key: string, value: unknown): void;
  delete(key: string): void;
}

/** A map from keys to anything that the structured clone algorithm copies, `CryptoKey` included. */
export interface Storage {
  /** The value, or undefined. */
  get(key: string): Promise<unknown>;
  /** Keys with this prefix, in order, with their values. */
  list(prefix: string): Promise<[string, unknown][]>;
  /**
   * Reads the keys given, lets `change` decide, and writes what it said: all of it or nothing. It
   * returns once that is durable.
   */
  update<T>(keys: readonly string[], change: (update: Update) => T): Promise<T>;
  /** Forgets everything. */
  clear(): Promise<void>;
}

/** Collects what a change reads and writes; both kinds of storage apply it in their own way. */
export class Draft implements Update {
  readonly writes = new Map<string, unknown>();
  constructor(private readonly read: ReadonlyMap<string, unknown>) {}

  get(key: string): unknown {
    if (this.writes.has(key)) return this.writes.get(key);
    if (!this.read.has(key)) throw new TypeError(`${key} was not named for this update`);
    return this.read.get(key);
  }

  set(key: string, value: unknown): void {
    this.writes.set(key, value);
  }

  delete(key: string): void {
    this.writes.set(key, undefined);
  }
}
