/** A daemon that lets everybody in with the same two secrets, and answers the rest as a test likes. */
import { toBase64Url } from "../../src/bytes.js";
import type { Custody } from "../../src/custody.js";
import { Unlocked } from "../../src/keys.js";
import { FakeDaemon, type Reply } from "./daemon.js";
import { leaves, Realm } from "./realm.js";

export interface Scene {
  readonly realm: Realm;
  readonly unlocked: Unlocked;
  custody: Custody;
  /** What `GET /v1/account/events` and `GET /v1/account` answer. */
  events: () => Promise<Reply>;
  view: () => Promise<Reply>;
  bound: boolean;
  /** Which factor opened the session. */
  credential: string | undefined;
  /** What was reported, and how that is answered. */
  readonly reports: string[];
  reporting: () => Reply;
  /** The receipt of each sign-in. */
  log: () => Promise<unknown>;
  /** What a session that reads waits for. */
  reading: Promise<void>;
}

/** A daemon that lets everybody in with the same two secrets. */
export async function scene(): Promise<Scene> {
  const realm = await Realm.make();
  const unlocked = await Unlocked.create();
  const slot = (content: Uint8Array) => {
    return { version: 1, updated: 0, slots: [], server_slot: toBase64Url(content) };
  };
  const secrets = { "device-secret": slot(unlocked.secret), "app-key": slot(unlocked.wrapped) };
  const made: Scene = {
    realm,
    unlocked,
    custody: undefined as never,
    events: () => Promise.reject(new TypeError("Failed to fetch")),
    view: () => Promise.reject(new TypeError("Failed to fetch")),
    bound: true,
    credential: undefined,
    reports: [],
    reporting: () => ({ status: 204 }),
    log: () => realm.receipt(1, leaves(2)),
    reading: Promise.resolve(),
  };
  const daemon = new FakeDaemon(async ({ path, body }) => {
    if (path.startsWith("/v1/account/events")) return made.events();
    if (path === "/v1/account") return made.view();
    if (path === "/v1/account/offline-report") {
      made.reports.push(body ?? "");
      return made.reporting();
    }
    const reads = path.endsWith("/sessions/device");
    if (reads) await made.reading;
    const scope = reads ? "read" : "full";
    const session = { token: "t", scope, factor: reads ? "device-key" : "pin" };
    const log = await made.log();
    const { bound: device_bound, credential } = made;
    const about = { account: "a-1", device_bound, device_id: "d", credential };
    return { body: { ...about, server_slots: "allowed", log, secrets, session } };
  });
  made.custody = await daemon.custody(realm, true);
  return made;
}
