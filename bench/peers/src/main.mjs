// A server that keeps secrets and gives them back to whoever has the passkey or the PIN: what a team would write itself.
//
//   node src/main.mjs FOLDER PORT
//
// FOLDER holds certificate.pem and private-key.pem; keys and database are made there. ../README.md says what it does
// and does not do.
import { join } from "node:path";
import * as opaque from "@serenity-kit/opaque";
import { accounts } from "./accounts.mjs";
import { serve } from "./http.mjs";
import { readKeys } from "./keys.mjs";
import { Opaque } from "./opaque.mjs";
import { Passkeys } from "./passkeys.mjs";
import { Pins } from "./pins.mjs";
import { Recovery } from "./recovery.mjs";
import { Store } from "./store.mjs";

const [folder, port] = process.argv.slice(2);
if (!folder || !port) {
  console.error("usage: node src/main.mjs FOLDER PORT");
  process.exit(2);
}
await opaque.ready;
const keys = readKeys(folder);
const store = new Store(join(folder, "peer.sqlite"));
const recovery = new Recovery(store, keys);
const routes = {
  ...accounts(store, keys, recovery),
  ...new Passkeys(store, recovery).routes(),
  ...new Pins(store, recovery, keys).routes(),
  ...new Opaque(store, recovery, keys).routes(),
};
const server = await serve(folder, Number(port), routes, (token) => recovery.account(token));
console.log(`ready on https://localhost:${server.address().port}`);
for (const signal of ["SIGTERM", "SIGINT"]) {
  process.once(signal, () => {
    server.close(() => store.close());
    server.closeIdleConnections();
  });
}
