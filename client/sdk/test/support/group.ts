/** Realms in a few lines each, and groups of custodies over them: for tests of threshold mode. */
import { memoryStorage } from "../../src/storage/memory.js";
import type { SignedIn } from "../../src/session.js";
import { type Group, openGroup } from "../../src/threshold/group.js";
import { type Ask, recover } from "../../src/threshold/recover.js";
import { SHARE } from "../../src/threshold/stored.js";
import type { Custody } from "../../src/custody.js";
import { equal, fromBase64Url, toBase64Url } from "../../src/bytes.js";
import { keepAccount } from "../../src/custody.js";
import { parseJws, publicJwk, thumbprint } from "../../src/jose.js";
import type { Unlocked } from "../../src/keys.js";
import type { Schemas } from "../../src/transport.js";
import { keepUnlocked } from "../../src/threshold/group.js";
import { combineShares, readDocument, type Share, together } from "../../src/threshold/share.js";
import { type Asked, FakeDaemon, problem, type Reply } from "./daemon.js";
import { Realm } from "./realm.js";

/** What a realm does with one request. */
export type Fate = "done" | "lost" | "answer-lost";

/** A realm that keeps one secret, and says which app key it has bound. */
export class Keeper {
  stored: { version: number; content: string } | undefined;
  /** Answers for it, where it is no honest one. */
  lie: ((honest: string | undefined) => string | undefined) | undefined;
  bound: Unlocked | undefined;
  /** What the sessions here are too weak for: to erase, or to read. */
  readonly keptFrom = new Map<string, "erase" | "read">();
  /** What it keeps beside its share, of an account that was its own before. */
  readonly secrets = new Map<string, { version: number; body: Schemas["SecretContent"] }>();
  /** Seconds, by this realm's clock. */
  now = 0;
  #created = 0;
  /** Accounts by the key of the request that made them. */
  readonly accounts = new Set<string>();
  #next = 1;

  private constructor(
    readonly realm: Realm,
    readonly url: string,
  ) {}

  static async make(name: string): Promise<Keeper> {
    return new Keeper(await Realm.make(name), `https://${name}`);
  }

  async answer({ method, path, headers, body }: Asked): Promise<Reply> {
    if (path === "/v1/account") return this.#view();
    if (path.endsWith("/accounts")) return this.#create(headers, body);
    if (path === "/v1/account/pin") return this.#setPin();
    if (path === "/v1/account/secrets") return this.#list();
    if (method === "DELETE") return this.#erase(path, headers);
    if (path.startsWith("/v1/account/secrets/") && !path.endsWith(`/${SHARE}`)) {
      return this.#other(method, path, headers, body);
    }
    if (!path.endsWith(`/secrets/${SHARE}`)) return problem(404, "no-such-route");
    if (method === "GET") {
      const content = this.lie ? this.lie(this.stored?.content) : this.stored?.content;
      if (content === undefined) return problem(404, "not-found");
      const version = this.stored?.version ?? 1;
      return { body: { version, updated: 0, slots: [], server_slot: content } };
    }
    const expected = headers.get("If-None-Match") === "*" ? undefined : headers.get("If-Match");
    const current = this.stored ? `"${this.stored.version}"` : undefined;
    if (expected !== current) return problem(412, "precondition-failed");
    const content = (JSON.parse(body ?? "{}") as { server_slot: string }).server_slot;
    this.stored = { version: this.#next, content };
    this.#next += 1;
    return { body: { version: this.stored.version } };
  }

  async #create(headers: Headers, body = "{}"): Promise<Reply> {
    const made = headers.get("Idempotency-Key") ?? "none";
    if (!this.accounts.has(made)) this.#created = this.now;
    this.accounts.add(made);
    const { app_key_proof: proof } = JSON.parse(body) as { app_key_proof: string };
    const keyOf = (jws: string | null) =>
      thumbprint(publicJwk(parseJws(jws ?? "")?.header["jwk"])!);
    const bind = (kind: string, device_id: string) =>
      this.realm.binding({ app: "notes", sub: "a-1", kind, device_id });
    const bindings = {
      app_key: await bind("app-key", await keyOf(proof)),
      device_key: await bind("device-key", await keyOf(headers.get("DPoP"))),
    };
    const session = { token: "t", scope: "full", factor: "creation" };
    return { body: { account: "a-1", bindings, session, server_slot: true } };
  }

  /** A session of an account's creation may for ten minutes. */
  async #setPin(): Promise<Reply> {
    if (this.now - this.#created >= 600) {
      return problem(403, "step-up-required", { need_at_least: "pin", need_fresh: true });
    }
    const bound = { app: "notes", sub: "a-1", kind: "pin", device_id: "pin" };
    const pin = { device_id: "pin", binding: await this.realm.binding(bound) };
    return { body: { pin, session: { token: "t", scope: "full", factor: "creation" } } };
  }

  #list(): Reply {
    const entries = [...this.secrets].map(([name, { version }]) => ({ name, version }));
    const share = this.stored ? [{ name: SHARE, version: this.stored.version }] : [];
    return { body: { secrets: [...entries, ...share] } };
  }

  #erase(path: string, headers: Headers): Reply {
    const name = path.split("/").at(-1) ?? "";
    const there = name === SHARE ? this.stored : this.secrets.get(name);
    if (!there) return problem(404, "not-found");
    if (headers.get("If-Match") !== `"${there.version}"`)
      return problem(412, "precondition-failed");
    if (this.keptFrom.has(name)) {
      return problem(403, "step-up-required", { need_at_least: "passkey", need_fresh: true });
    }
    const hangs = (body: Schemas["SecretContent"]) =>
      body.slots?.some(({ type, credential }) => type === "secret" && credential === name);
    if ([...this.secrets.values()].some(({ body }) => hangs(body))) {
      return problem(409, "last-slot");
    }
    if (name === SHARE) this.stored = undefined;
    this.secrets.delete(name);
    return { status: 204 };
  }

  #other(method: string, path: string, headers: Headers, body = "{}"): Reply {
    const name = path.split("/").at(-1) ?? "";
    const there = this.secrets.get(name);
    if (method === "GET") {
      if (!there) return problem(404, "not-found");
      if (this.keptFrom.get(name) === "read") return problem(403, "release-forbidden");
      return { body: { updated: 0, slots: [], ...there.body, version: there.version } };
    }
    const expected = headers.get("If-None-Match") === "*" ? undefined : headers.get("If-Match");
    if (expected !== (there && `"${there.version}"`)) return problem(412, "precondition-failed");
    const version = this.#next;
    this.#next += 1;
    this.secrets.set(name, { version, body: JSON.parse(body) as Schemas["SecretContent"] });
    return { body: { version } };
  }

  async #view(): Promise<Reply> {
    const { bound, realm } = this;
    const about = { account: "a-1", app: "notes", server_slot: true };
    if (!bound) return { body: { ...about, app_keys: [] } };
    const device_id = bound.thumbprint;
    const claims = { app: "notes", sub: "a-1", kind: "app-key", device_id };
    const key = { device_id, jwk: bound.jwk, binding: await realm.binding(claims) };
    return { body: { ...about, app_keys: [key] } };
  }

  /** What it keeps, read as a device would. */
  async shares(): Promise<readonly Share[]> {
    if (!this.stored) return [];
    const content = fromBase64Url(this.stored.content);
    return content ? (await readDocument(content, this.realm.name)).shares : [];
  }

  /** Changes what it answers, as whoever runs it can. */
  lies(change: (document: Record<string, unknown>) => unknown): void {
    this.lie = (honest) => {
      const text = new TextDecoder().decode(fromBase64Url(honest ?? ""));
      const other = change(JSON.parse(text) as Record<string, unknown>);
      return toBase64Url(new TextEncoder().encode(JSON.stringify(other)));
    };
  }
}

/** So many realms: a.example, b.example ... */
export async function keepers(count: number): Promise<Keeper[]> {
  const names = Array.from({ length: count }, (_, at) => `${"abcdefghijklmnop"[at]!}.example`);
  return Promise.all(names.map((name) => Keeper.make(name)));
}

/** A network to these realms. `fate` decides about each request. */
export function fetchFrom(
  realms: readonly Keeper[],
  fate: (keeper: Keeper, asked: Asked) => Fate | Promise<Fate> = () => "done",
): typeof fetch {
  const daemons = realms.map((keeper) => {
    const daemon = new FakeDaemon(async (asked) => {
      const its = await fate(keeper, asked);
      if (its === "lost") throw new TypeError("Failed to fetch");
      const reply = await keeper.answer(asked);
      if (its === "answer-lost") throw new TypeError("Failed to fetch");
      return reply;
    });
    return [new URL(keeper.url).host, daemon] as const;
  });
  return ((url: string, init?: RequestInit) => {
    const found = daemons.find(([host]) => host === new URL(url).host);
    return found![1].fetch(url, init);
  }) as typeof fetch;
}

/** A device of the group, signed in at each realm. `fate` decides about each request to a realm. */
export async function device(
  realms: readonly Keeper[],
  threshold: number,
  fate: (keeper: Keeper, asked: Asked) => Fate | Promise<Fate> = () => "done",
): Promise<Group> {
  const group = await openGroup({
    app: "notes",
    threshold,
    realms: realms.map(({ url, realm }) => ({ url, realm: realm.trust })),
    storage: memoryStorage,
    fetch: fetchFrom(realms, fate),
    checkLog: false,
  });
  for (const custody of group.custodies) {
    custody.transport.session = { token: "t", scope: "full" } as never;
    await keepAccount(custody, { account: "a-1" });
  }
  return group;
}

/** The same with the key open, which all realms have bound. */
export async function unlockedDevice(
  realms: readonly Keeper[],
  threshold: number,
  unlocked: Unlocked,
  fate?: (keeper: Keeper, asked: Asked) => Fate | Promise<Fate>,
): Promise<Group> {
  const group = await device(realms, threshold, fate);
  for (const keeper of realms) keeper.bound = unlocked;
  await keepUnlocked(group, unlocked);
  return group;
}

/** Signs in: here a session is there already. */
export async function signIn(custody: Custody, ask: Ask): Promise<SignedIn> {
  const [name = ""] = ask.release;
  const route = "/v1/account/secrets/{name}";
  const secret = await custody.transport.request("get", route, { path: { name } });
  return { secrets: { [name]: secret } } as never;
}

/** The key, as a new device gets it. */
export async function recovered(realms: readonly Keeper[], threshold: number) {
  return recover(await device(realms, threshold), signIn, { patience: 1000 });
}

/** All ways to take so many of them. */
export function choices<T>(from: readonly T[], count: number): T[][] {
  const [first, ...rest] = from;
  if (count === 0) return [[]];
  if (first === undefined) return [];
  return [...choices(rest, count - 1).map((one) => [first, ...one]), ...choices(rest, count)];
}

/** Whether these shares give the secret: enough of one set, and combined. */
async function open(shares: readonly Share[], unlocked: Unlocked): Promise<boolean> {
  for (const share of shares) {
    const set = shares.filter((other) => together(share, other));
    if (set.length < share.manifest.threshold) continue;
    const secret = await combineShares(set);
    if (secret && equal(secret, unlocked.secret)) return true;
  }
  return false;
}

/** Whether these realms give the secret. */
export async function give(realms: readonly Keeper[], unlocked: Unlocked): Promise<boolean> {
  return open((await Promise.all(realms.map((keeper) => keeper.shares()))).flat(), unlocked);
}

/** Whether whatever `threshold` realms are there give the secret. */
export async function anyGive(
  realms: readonly Keeper[],
  threshold: number,
  unlocked: Unlocked,
): Promise<boolean> {
  const kept = await Promise.all(realms.map((keeper) => keeper.shares()));
  for (const some of choices(kept, threshold))
    if (!(await open(some.flat(), unlocked))) return false;
  return true;
}
