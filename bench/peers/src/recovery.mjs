// What recoveries have in common: attempts, sessions, and the secret that is given back.
import { createHash, randomBytes } from "node:crypto";
import { Refusal } from "./http.mjs";
import { open } from "./keys.mjs";

const ATTEMPTS = 10;
const SESSION = 60 * 60_000;

/** Where a secret belongs. Accounts have a fixed length. */
export const place = (account, name) => `${account} ${name}`;

const hashed = (token) => createHash("sha256").update(token).digest();

export class Recovery {
  #store;
  #keys;

  constructor(store, keys) {
    this.#store = store;
    this.#keys = keys;
  }

  /** Whose session it is. */
  account(token) {
    const sql = "SELECT account FROM sessions WHERE hash = ? AND expires > ?";
    return this.#store.row(sql, hashed(token), Date.now())?.account;
  }

  /** Inside of a change. */
  openSession(account) {
    const token = randomBytes(32).toString("base64url");
    const expires = Date.now() + SESSION;
    this.#store.run("INSERT INTO sessions VALUES (?, ?, ?)", hashed(token), account, expires);
    return token;
  }

  /** Counts an attempt, durably, before anybody looks at the guess; what the guess is to be held against. */
  charge(account) {
    const sql = "UPDATE accounts SET attempts = attempts + 1 WHERE id = ? AND attempts < ?";
    return this.#store.change(() => {
      const counted = this.#store.run(sql, account, ATTEMPTS);
      const row = this.#store.row("SELECT * FROM accounts WHERE id = ?", account);
      if (!row) throw new Refusal(401, "wrong");
      if (counted === 0) throw new Refusal(423, "locked");
      return row;
    });
  }

  /** A guess was wrong; the attempt stays counted. */
  async refuse(account, factor) {
    await this.#store.change(() => this.#store.audit(account, `wrong ${factor}`));
    throw new Refusal(401, "wrong");
  }

  /** Inside of a change: a guess was right. */
  forgive(account) {
    this.#store.run("UPDATE accounts SET attempts = 0 WHERE id = ?", account);
  }

  /** The secret, with a session. `also` is part of the same commit. */
  async release(account, name, factor, also) {
    const token = await this.#store.change(() => {
      also();
      this.#store.audit(account, `recovered ${name} by ${factor}`);
      return this.openSession(account);
    });
    const sql = "SELECT sealed FROM secrets WHERE account = ? AND name = ?";
    const row = this.#store.row(sql, account, name);
    if (!row) throw new Refusal(404, "no-such-secret");
    const secret = open(this.#keys.sealing, place(account, name), row.sealed);
    return { account, token, secret: secret.toString("base64url") };
  }
}
