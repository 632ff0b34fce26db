// PINs that the server hashes, with Argon2id and a pepper from the key file.
import argon2 from "argon2";
import { text } from "./http.mjs";

/** Those of custodyd's policies without a setting: OWASP's first choice. */
const COST = { type: argon2.argon2id, memoryCost: 19_456, timeCost: 2, parallelism: 1 };

export class Pins {
  #store;
  #recovery;
  #secret;

  constructor(store, recovery, keys) {
    this.#store = store;
    this.#recovery = recovery;
    this.#secret = keys.pepper;
  }

  routes() {
    return {
      "PUT /pin": { signedIn: (account, body) => this.#set(account, text(body, "pin")) },
      "POST /recover/pin": {
        open: (body) => this.#recover(text(body, "account"), text(body, "pin"), text(body, "name")),
      },
    };
  }

  async #set(account, pin) {
    const hash = await argon2.hash(pin, { ...COST, secret: this.#secret });
    return this.#store.change(() => {
      this.#store.run("UPDATE accounts SET pin_hash = ?, attempts = 0 WHERE id = ?", hash, account);
      this.#store.audit(account, "PIN set");
      return {};
    });
  }

  async #recover(account, pin, name) {
    const { pin_hash: hash } = await this.#recovery.charge(account);
    const right = hash !== null && (await argon2.verify(hash, pin, { secret: this.#secret }));
    if (!right) return this.#recovery.refuse(account, "PIN");
    return this.#recovery.release(account, name, "PIN", () => this.#recovery.forgive(account));
  }
}
