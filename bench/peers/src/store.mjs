// SQLite. Nobody is answered before the disk has what the answer rests on.
import Database from "better-sqlite3";

const SCHEMA = `
CREATE TABLE IF NOT EXISTS accounts (
  id TEXT PRIMARY KEY, created INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
  pin_hash TEXT, opaque_record TEXT
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS passkeys (
  id TEXT PRIMARY KEY, account TEXT NOT NULL, public_key BLOB NOT NULL, counter INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS secrets (
  account TEXT NOT NULL, name TEXT NOT NULL, sealed BLOB NOT NULL, PRIMARY KEY (account, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sessions (
  hash BLOB PRIMARY KEY, account TEXT NOT NULL, expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS audit (
  number INTEGER PRIMARY KEY, at INTEGER NOT NULL, account TEXT NOT NULL, event TEXT NOT NULL
) STRICT;
`;

/** Sessions whose time is over are removed so often. */
const SWEEP = 60_000;

export class Store {
  #db;
  #statements = new Map();
  #waiting = [];
  #begin;
  #commit;
  #rollback;
  /** One change, which leaves nothing if it throws. */
  #alone;
  #sweeping;

  constructor(path) {
    this.#db = new Database(path);
    this.#db.pragma("journal_mode = WAL");
    this.#db.pragma("synchronous = FULL");
    this.#db.exec(SCHEMA);
    this.#begin = this.#db.prepare("BEGIN IMMEDIATE");
    this.#commit = this.#db.prepare("COMMIT");
    this.#rollback = this.#db.prepare("ROLLBACK");
    this.#alone = this.#db.transaction((work) => work());
    this.#sweeping = setInterval(() => this.#sweep(), SWEEP).unref();
  }

  /** A row, as it is now. */
  row(sql, ...values) {
    return this.#prepared(sql).get(values);
  }

  /** Inside of a change: how many rows it touched. */
  run(sql, ...values) {
    return this.#prepared(sql).run(values).changes;
  }

  /** Inside of a change. */
  audit(account, event) {
    this.run("INSERT INTO audit (at, account, event) VALUES (?, ?, ?)", Date.now(), account, event);
  }

  /** Does `work`, which may not wait for anything, and resolves with its result when that is durable. Changes that come
   * in the same turn of the event loop share a commit. */
  change(work) {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ work, resolve, reject });
      if (this.#waiting.length === 1) setImmediate(() => this.#flush());
    });
  }

  close() {
    clearInterval(this.#sweeping);
    this.#db.close();
  }

  #flush() {
    const batch = this.#waiting;
    this.#waiting = [];
    const answers = [];
    try {
      this.#begin.run();
      for (const { work, resolve, reject } of batch) {
        try {
          const done = this.#alone(work);
          answers.push(() => resolve(done));
        } catch (error) {
          answers.push(() => reject(error));
        }
      }
      this.#commit.run();
    } catch (error) {
      if (this.#db.inTransaction) this.#rollback.run();
      for (const { reject } of batch) reject(error);
      return;
    }
    for (const tell of answers) tell();
  }

  #sweep() {
    const sql = "DELETE FROM sessions WHERE expires < ?";
    this.change(() => this.run(sql, Date.now())).catch((error) => console.error(error));
  }

  #prepared(sql) {
    let statement = this.#statements.get(sql);
    if (!statement) {
      statement = this.#db.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }
}
