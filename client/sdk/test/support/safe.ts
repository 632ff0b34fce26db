/**
 * A daemon that keeps the secrets of one account with its factors, for several devices: writes name the version that they
 * replace, and recovery codes and secrets are one commit.
 */
import { random, toBase64Url } from "../../src/bytes.js";
import { type Custody, keepAccount, openCustody } from "../../src/custody.js";
import { use } from "../../src/demand/t.js";
import { Unlocked } from "../../src/keys.js";
import { backUp, put, unlock } from "../../src/secrets.js";
import { keepAppKey } from "../../src/session.js";
import { sealContent, sealSlot, type SlotKey } from "../../src/slots.js";
import { memoryStorage } from "../../src/storage/memory.js";
import type { Storage } from "../../src/storage/storage.js";
import { tools } from "../../src/tools.js";
import type { Schemas } from "../../src/transport.js";
import { APP_KEY, remember, sealedSecret } from "../../src/vault.js";
import { type Asked, FakeDaemon, problem, type Reply } from "./daemon.js";
import { Realm } from "./realm.js";

use(tools());

type Content = Schemas["SecretContent"];
type Codes = Schemas["SetRecoveryCodes"];

/** What opens by the device secret. */
export const CHAIN = { type: "secret", credential: "device-secret" } as const;

export const placeOf = (name: string) => ({
  realm: "test.example",
  app: "notes",
  account: "a-1",
  name,
});

/** What a network or a disk does with one step. */
export type Fate = "done" | "lost" | "answer-lost";

/** The account, at its daemon. */
export class Safe {
  readonly secrets = new Map<string, Content & { version: number }>();
  /** Every body that was taken with recovery codes. */
  readonly sets: Codes[] = [];
  /** Secrets that sessions here may not read. */
  readonly kept = new Set<string>();
  /** What the daemon says before it does anything. */
  refuse: (asked: Asked) => Reply | undefined = () => undefined;
  #next = 1;

  private constructor(
    readonly realm: Realm,
    readonly endToEnd: boolean,
    /** The owner's key, as it was at first. */
    readonly first: Unlocked,
    readonly pin: SlotKey,
    readonly passkey: SlotKey,
  ) {}

  /** An account with a PIN, a passkey, and a backup under both. */
  static async make(endToEnd: boolean): Promise<Safe> {
    const own = (type: SlotKey["type"], credential: string, bytes: number): SlotKey => {
      return { type, credential, material: random(bytes) };
    };
    const [pin, passkey] = [own("opaque", "pin-1", 64), own("prf", "key-1", 32)];
    const key = await Unlocked.create();
    const safe = new Safe(await Realm.make(), endToEnd, key, pin, passkey);
    const custody = await safe.device();
    if (endToEnd) {
      const place = placeOf("device-secret");
      const content = random(32);
      const sealed = toBase64Url(await sealContent(place, content, key.secret, 1));
      const slots = [pin, passkey].map((by) => sealSlot(place, by, content));
      safe.write("device-secret", { sealed, slots: await Promise.all(slots) });
    }
    await keepAppKey(custody, key);
    if (!endToEnd) await backUp(custody, key);
    else {
      const content = await sealedSecret(custody, APP_KEY, key.wrapped, key);
      await put(custody, APP_KEY, undefined, content);
    }
    return safe;
  }

  write(name: string, content: Content): number {
    const version = this.#next;
    this.#next += 1;
    this.secrets.set(name, { ...content, version });
    return version;
  }

  /** A device with a session; what it kept before is in `storage`. */
  async device(
    storage: Storage = memoryStorage(),
    fate: (asked: Asked) => Fate = () => "done",
  ): Promise<Custody> {
    const daemon = new FakeDaemon(async (asked) => {
      const its = fate(asked);
      if (its === "lost") throw new TypeError("Failed to fetch");
      const reply = this.refuse(asked) ?? (await this.#answer(asked));
      if (its === "answer-lost") throw new TypeError("Failed to fetch");
      return reply;
    });
    const { realm, endToEnd } = this;
    const options = { url: "https://c.example", app: "notes", realm: realm.trust, endToEnd };
    const custody = await openCustody({ ...options, storage, fetch: daemon.fetch });
    custody.transport.session = { token: "t", scope: "full", factor: "passkey" } as never;
    await keepAccount(custody, { account: "a-1" });
    return custody;
  }

  /** Signs in with these factors, as far as opening goes. */
  async opened(custody: Custody, ...by: readonly SlotKey[]): Promise<Unlocked> {
    for (const key of by) remember(custody, key);
    return unlock(custody);
  }

  async #answer({ method, path, headers, body = "{}" }: Asked): Promise<Reply> {
    const name = path.split("/").at(-1) ?? "";
    if (path === "/v1/account") return { body: await this.#view() };
    if (path === "/v1/account/recovery-codes") return this.#setCodes(JSON.parse(body) as Codes);
    if (path === "/v1/account/secrets") {
      const entries = [...this.secrets].map(([name, { version, server_slot: slot }]) => {
        return { name, version, server_slot: slot !== undefined };
      });
      return { body: { secrets: entries } };
    }
    const stored = this.secrets.get(name);
    if (method === "GET") {
      if (!stored) return problem(404, "not-found");
      if (this.kept.has(name)) return problem(403, "release-forbidden");
      return { body: { updated: 0, slots: [], server_slot_withheld: false, ...stored } };
    }
    const expected = headers.get("If-Match") ?? undefined;
    if (expected !== (stored && `"${stored.version}"`)) return problem(412, "precondition-failed");
    return { body: { version: this.write(name, JSON.parse(body) as Content) } };
  }

  async #setCodes(set: Codes): Promise<Reply> {
    const writes = Object.entries(set.secrets ?? {});
    for (const [name, { if_version: version }] of writes) {
      if (this.secrets.get(name)?.version !== version) return problem(412, "precondition-failed");
    }
    for (const [name, { content, slots }] of writes) {
      const { sealed, server_slot } = this.secrets.get(name)!;
      this.write(name, content ?? { sealed: sealed!, slots: slots!, server_slot: server_slot! });
    }
    this.sets.push(set);
    const bound = { app: "notes", sub: "a-1", kind: "recovery-codes", device_id: "codes" };
    const recovery_codes = { device_id: "codes", binding: await this.realm.binding(bound) };
    const session = { token: "t", scope: "full", factor: "passkey" };
    return { body: { recovery_codes, session } };
  }

  async #view() {
    const { thumbprint: device_id, jwk } = this.first;
    const claims = { app: "notes", sub: "a-1", kind: "app-key", device_id };
    const key = { device_id, jwk, binding: await this.realm.binding(claims) };
    return {
      ...{ account: "a-1", app: "notes", server_slot: !this.endToEnd, app_keys: [key] },
      ...{ passkeys: [{ device_id: "key-1" }], pin: { device_id: "pin-1" } },
    };
  }
}

/** Storage whose nth write, and all after it, do not come about, or come about unheard of. */
export function failing(inner: Storage, fate: () => Fate): Storage {
  return {
    get: (key) => inner.get(key),
    list: (prefix) => inner.list(prefix),
    clear: () => inner.clear(),
    async update(keys, change) {
      const its = fate();
      if (its === "lost") throw new TypeError("the page is gone");
      const done = await inner.update(keys, change);
      if (its === "answer-lost") throw new TypeError("the page is gone");
      return done;
    },
  };
}
