/**
 * A daemon that keeps the secrets of one account with its factors, for several devices: writes name the version that they
 * replace, recovery codes and secrets are one commit, and who changes what is there is held to the real one's rules
 * (`daemon/src/service/secrets.rs`).
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

/** What the real one takes in one request. */
export const MOST = 64 << 10;

/** The account's strongest factors: their sessions, fresh here, could erase it. */
const STRONGEST = ["passkey", "recovery-code"];

/** What a network or a disk does with one step. */
export type Fate = "done" | "lost" | "answer-lost";

/** The account, at its daemon. */
export class Safe {
  readonly secrets = new Map<string, Content & { version: number }>();
  /** Every body that was taken with recovery codes. */
  readonly sets: Codes[] = [];
  /** Which factors read a secret, where not all do. */
  readonly readers = new Map<string, readonly string[]>();
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

  /** A device with a session of this factor; what it kept before is in `storage`. */
  async device(
    storage: Storage = memoryStorage(),
    fate: (asked: Asked) => Fate = () => "done",
    factor = "passkey",
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
    custody.transport.session = { token: factor, scope: "full", factor } as never;
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
    const by = headers.get("Authorization")?.replace("DPoP ", "") ?? "";
    if (body.length > MOST) return problem(413, "body-too-large");
    if (path === "/v1/account") return { body: await this.#view() };
    if (path === "/v1/account/recovery-codes") return this.#setCodes(by, JSON.parse(body) as Codes);
    if (path.startsWith("/v1/account/passkeys/")) {
      return this.#written(by, (JSON.parse(body) as Codes).secrets, "prf") ?? { status: 204 };
    }
    if (path === "/v1/account/secrets") {
      const entries = [...this.secrets].map(([name, { version, server_slot: slot }]) => {
        return { name, version, server_slot: slot !== undefined };
      });
      return { body: { secrets: entries } };
    }
    const stored = this.secrets.get(name);
    if (method === "GET") {
      if (!stored) return problem(404, "not-found");
      if (!this.#reads(by, name)) return problem(403, "release-forbidden");
      return { body: { updated: 0, slots: [], server_slot_withheld: false, ...stored } };
    }
    const expected = headers.get("If-Match") ?? undefined;
    if (expected !== (stored && `"${stored.version}"`)) return problem(412, "precondition-failed");
    const content = JSON.parse(body) as Content;
    const refused = stored && this.#replacing(by, name, { sealed: stored.sealed!, ...content });
    return refused ?? { body: { version: this.write(name, content) } };
  }

  #reads(by: string, name: string): boolean {
    return this.readers.get(name)?.includes(by) ?? true;
  }

  #notItsReader(by: string, name: string): Reply | undefined {
    if (this.#reads(by, name)) return undefined;
    const need_one_of = this.readers.get(name);
    const lacks = { need_at_least: need_one_of?.[0], need_fresh: false, need_one_of };
    return problem(403, "step-up-required", { ...lacks, secret: name });
  }

  /** A secret is changed by who reads it, and what opens others by who reads those, keeps them open or could erase all. */
  #replacing(by: string, name: string, after: Content, own?: string): Reply | undefined {
    const before = this.secrets.get(name)!;
    const has = new Set(after.slots?.map((slot) => JSON.stringify(slot)));
    const keeps =
      after.sealed === before.sealed &&
      after.server_slot === before.server_slot &&
      before.slots?.every((slot) => slot.type === own || has.has(JSON.stringify(slot)));
    const hanging = [...this.secrets].filter(([, { slots }]) =>
      slots?.some(({ type, credential }) => type === "secret" && credential === name),
    );
    const others = keeps || STRONGEST.includes(by) ? [] : hanging.map(([other]) => other);
    const refusals = [name, ...others].map((one) => this.#notItsReader(by, one));
    return refusals.find((one) => one !== undefined);
  }

  /** All of them, or the refusal. */
  #written(by: string, secrets: Codes["secrets"] = {}, own: string): Reply | undefined {
    const writes = Object.entries(secrets);
    for (const [name, { if_version: version }] of writes) {
      if (this.secrets.get(name)?.version !== version) return problem(412, "precondition-failed");
    }
    for (const [name, { content, slots }] of writes) {
      const after = content ?? { ...this.secrets.get(name), slots: slots! };
      const refused = this.#replacing(by, name, after, own);
      if (refused) return refused;
    }
    for (const [name, { content, slots }] of writes) {
      const { sealed, server_slot } = this.secrets.get(name)!;
      this.write(name, content ?? { sealed: sealed!, slots: slots!, server_slot: server_slot! });
    }
    return undefined;
  }

  async #setCodes(by: string, set: Codes): Promise<Reply> {
    if (!STRONGEST.includes(by)) {
      return problem(403, "step-up-required", { need_at_least: "passkey", need_fresh: false });
    }
    const refused = this.#written(by, set.secrets, "recovery-code");
    if (refused) return refused;
    this.sets.push(set);
    const bound = { app: "notes", sub: "a-1", kind: "recovery-codes", device_id: "codes" };
    const recovery_codes = { device_id: "codes", binding: await this.realm.binding(bound) };
    const session = { token: by, scope: "full", factor: by };
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
