// What a server remembers between the two calls of a ceremony. It lives in memory: lost in a restart, and begun again.
import { randomBytes } from "node:crypto";
import { Refusal } from "./http.mjs";

const LASTS = 5 * 60_000;
const MOST = 100_000;

export class Pending {
  #all = new Map();

  /** Keeps `value` for one `take`. */
  put(value) {
    const now = Date.now();
    // The oldest come first.
    for (const [id, { until }] of this.#all) {
      if (until > now && this.#all.size < MOST) break;
      this.#all.delete(id);
    }
    const id = randomBytes(16).toString("base64url");
    this.#all.set(id, { value, until: now + LASTS });
    return id;
  }

  take(id) {
    const found = this.#all.get(id);
    this.#all.delete(id);
    if (!found || found.until < Date.now()) throw new Refusal(401, "ceremony-unknown");
    return found.value;
  }
}
