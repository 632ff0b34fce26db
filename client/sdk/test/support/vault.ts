/** A daemon that keeps secrets as they are sent, and an owner's factors: for tests of what opens them. */
import { random, toBase64Url } from "../../src/bytes.js";
import { use } from "../../src/demand/t.js";
import { Unlocked } from "../../src/keys.js";
import { sealContent, sealSlot, type SlotKey } from "../../src/slots.js";
import { tools } from "../../src/tools.js";
import type { Schemas } from "../../src/transport.js";
import { FakeDaemon, problem, type Reply } from "./daemon.js";
import { Realm } from "./realm.js";

// As `onDemand` does it.
use(tools());

/** Of the device secret. */
export const place = { realm: "test.example", app: "notes", account: "a-1", name: "device-secret" };
type Sent = Schemas["SecretContent"];
type Removal = Schemas["RemoveFactor"];

/** A daemon that keeps secrets as they are sent and says of server slots what it likes. */
export async function scene(endToEnd: boolean | "moving") {
  const secrets = new Map<string, Sent & { version: number }>();
  const sent: Sent[] = [];
  const removals: Removal[] = [];
  const daemon = new FakeDaemon(({ method, path, headers, body }): Reply => {
    const name = path.split("/").at(-1) ?? "";
    if (path === "/v1/account") return { body: { server_slot: true, passkeys: [] } };
    if (method === "DELETE" || path.startsWith("/v1/account/passkeys")) {
      removals.push(JSON.parse(body ?? "{}") as Removal);
      return { status: 204 };
    }
    if (path === "/v1/account/secrets") {
      const entries = [...secrets].map(([name, { version, server_slot: slot }]) => {
        return { name, version, server_slot: slot !== undefined };
      });
      return { body: { secrets: entries } };
    }
    const stored = secrets.get(name);
    if (method === "GET") {
      return stored
        ? { body: { updated: 0, slots: [], server_slot_withheld: false, ...stored } }
        : problem(404, "not-found");
    }
    const expected = headers.get("If-Match") ?? undefined;
    if (expected !== (stored && `"${stored.version}"`)) return problem(412, "precondition-failed");
    const content = JSON.parse(body ?? "{}") as Sent;
    sent.push(content);
    const version = (stored?.version ?? 0) + 1;
    secrets.set(name, { ...content, version });
    return { body: { version } };
  });
  const custody = await daemon.custody(await Realm.make());
  Object.assign(custody, { endToEnd, account: { account: "a-1" } });
  custody.transport.session = { token: "t", scope: "full", factor: "passkey" } as never;
  custody.unlocked = await Unlocked.create();
  return { custody, secrets, sent, removals };
}

/** The device secret under these keys, as the daemon has it. */
export async function backedUp(
  secret: Uint8Array<ArrayBuffer>,
  keys: readonly SlotKey[],
  revision = 1,
) {
  const key = random(32);
  const sealed = toBase64Url(await sealContent(place, key, secret, revision));
  const slots = await Promise.all(keys.map((by) => sealSlot(place, by, key)));
  return { version: 1, sealed, slots, key };
}

export const pin = (): SlotKey => ({ type: "opaque", credential: "pin-1", material: random(64) });
export const passkey = (): SlotKey => ({ type: "prf", credential: "key-1", material: random(32) });
export const code = (): SlotKey => ({
  type: "recovery-code",
  credential: "code-1",
  material: random(32),
});
