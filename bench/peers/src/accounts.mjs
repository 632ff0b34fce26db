// Accounts, and the secrets that they keep.
import { randomBytes } from "node:crypto";
import { text } from "./http.mjs";
import { seal } from "./keys.mjs";
import { place } from "./recovery.mjs";

export function accounts(store, keys, recovery) {
  return {
    "POST /accounts": {
      open: () => {
        const account = randomBytes(16).toString("base64url");
        return store.change(() => {
          store.run("INSERT INTO accounts (id, created) VALUES (?, ?)", account, Date.now());
          store.audit(account, "created");
          return { account, token: recovery.openSession(account) };
        });
      },
    },
    "PUT /secrets": {
      signedIn: (account, body) => {
        const name = text(body, "name");
        const plain = Buffer.from(text(body, "secret"), "base64url");
        const sealed = seal(keys.sealing, place(account, name), plain);
        return store.change(() => {
          store.run("INSERT OR REPLACE INTO secrets VALUES (?, ?, ?)", account, name, sealed);
          store.audit(account, `stored ${name}`);
          return {};
        });
      },
    },
  };
}
