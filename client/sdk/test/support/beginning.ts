/**
 * A daemon that has the key of what it keeps, as a policy with server slots has it: it makes accounts, goes on with one for ten
 * minutes, and lets each of the first ways in be made.
 */
import { ready, server } from "@serenity-kit/opaque";
import { toBase64Url } from "../../src/bytes.js";
import { type Custody, openCustody } from "../../src/custody.js";
import { parseJws, publicJwk, thumbprint } from "../../src/jose.js";
import { memoryStorage } from "../../src/storage/memory.js";
import type { Schemas } from "../../src/transport.js";
import { type Asked, FakeDaemon, problem, type Reply } from "./daemon.js";
import { leaves, Realm } from "./realm.js";
import type { Fate } from "./safe.js";

type Content = Schemas["SecretContent"];

/** The least that the SDK takes. */
const COST = { memory_kib: 8192, passes: 5, lanes: 1 };

/** One of its accounts. */
interface Account {
  readonly secrets: Map<string, Content & { version: number }>;
  readonly factors: Set<string>;
}

/** The daemon, and one device's storage. */
export class Beginning {
  /** By the key of the request that made them: their names. */
  readonly made = new Map<string, string>();
  readonly accounts = new Map<string, Account>();
  /** App keys for which accounts were asked. */
  readonly keys = new Set<string>();
  readonly storage = memoryStorage();
  /** Whether the policy keeps the backup from the session. */
  isKept = false;
  /** Contacts of its accounts: when each was confirmed, null for a claim. */
  claims: (number | null)[] = [];
  fate: (asked: Asked) => Fate = () => "done";
  readonly #old = new Set<string>();
  readonly #setup: string;

  private constructor(readonly realm: Realm) {
    this.#setup = server.createSetup();
  }

  static async make(): Promise<Beginning> {
    await ready;
    return new Beginning(await Realm.make());
  }

  /** Another load of the page. */
  open(): Promise<Custody> {
    const { realm, storage } = this;
    const { fetch } = new FakeDaemon(async (asked) => {
      const fate = this.fate(asked);
      if (fate === "lost") throw new TypeError("Failed to fetch");
      const reply = await this.#answer(asked);
      if (fate === "answer-lost") throw new TypeError("Failed to fetch");
      return reply;
    });
    const options = { url: "https://c.example", app: "notes", realm: realm.trust, checkLog: false };
    return openCustody({ ...options, storage, fetch });
  }

  /** Ten minutes later. */
  later(): void {
    for (const key of this.made.keys()) this.#old.add(key);
  }

  /** Whose session it is. */
  of({ headers }: Asked): string {
    return headers.get("Authorization")?.replace(/^DPoP (read:)?/, "") ?? "";
  }

  /** A sign-in by what its owner has, as far as the session goes. */
  signIn({ account, transport }: Custody, factor: string): void {
    transport.session = { token: account!.account, scope: "full", factor } as never;
  }

  async #answer(asked: Asked): Promise<Reply> {
    const { path, method, body = "{}" } = asked;
    if (path.endsWith("/accounts")) return this.#create(asked);
    if (path.endsWith("/sessions/device"))
      return this.#read(JSON.parse(body) as { account: string });
    const account = this.accounts.get(this.of(asked));
    if (!account) return { body: {}, nonce: "n" };
    if (path === "/v1/account") return { body: this.#view(account) };
    if (path === "/v1/account/secrets") {
      const secrets = [...account.secrets].map(([name, { version }]) => {
        return { name, version, server_slot: true };
      });
      return { body: { secrets } };
    }
    if (!path.startsWith("/v1/account/secrets/")) return this.#factor(asked, account);
    const name = path.split("/").at(-1) ?? "";
    const stored = account.secrets.get(name);
    const reads = asked.headers.get("Authorization")?.startsWith("DPoP read:");
    if (this.isKept || reads) return problem(403, "release-forbidden");
    if (method === "GET")
      return stored ? { body: { updated: 0, ...stored } } : problem(404, "not-found");
    if (stored) return problem(412, "precondition-failed");
    account.secrets.set(name, { ...(JSON.parse(body) as Content), version: 1 });
    return { body: { version: 1 } };
  }

  async #create({ headers, body = "{}" }: Asked): Promise<Reply> {
    const key = headers.get("Idempotency-Key") ?? "";
    if (this.#old.has(key)) return problem(409, "account-exists");
    const account = this.made.get(key) ?? `a-${this.made.size + 1}`;
    this.made.set(key, account);
    if (!this.accounts.has(account))
      this.accounts.set(account, { secrets: new Map(), factors: new Set() });
    const { app_key_proof: proof } = JSON.parse(body) as { app_key_proof: string };
    const print = (jws: string | null) =>
      thumbprint(publicJwk(parseJws(jws ?? "")?.header["jwk"])!);
    const own = await print(proof);
    this.keys.add(own);
    const bound = (kind: string, device_id: string) =>
      this.realm.binding({ app: "notes", sub: account, kind, device_id });
    const [app_key, device_key] = await Promise.all([
      bound("app-key", own),
      bound("device-key", await print(headers.get("DPoP"))),
    ]);
    const session = { token: account, scope: "full", factor: "creation" };
    const log = await this.realm.receipt(1, leaves(2));
    const bindings = { app_key, device_key };
    return { status: 201, body: { account, bindings, log, session, server_slot: true } };
  }

  #read({ account }: { account: string }): Reply {
    const session = { token: `read:${account}`, scope: "read", factor: "device" };
    const about = { account, device_bound: true, device_id: "d", server_slots: "allowed" };
    return { body: { ...about, secrets: {}, session } };
  }

  #view({ factors }: Account) {
    const one = (name: string) => (factors.has(name) ? { device_id: name } : null);
    return {
      server_slot: true,
      ...{ pin: one("pin"), recovery_codes: one("recovery-codes"), totp: one("totp") },
      passkeys: factors.has("passkey") ? [one("passkey")] : [],
      contacts: this.claims.map((confirmed) => ({ id: "c", device_id: "c", confirmed })),
    };
  }

  /** Makes a way in, with the slots that go along. */
  async #factor(asked: Asked, account: Account): Promise<Reply> {
    const { path, body = "{}" } = asked;
    const sub = this.of(asked);
    if (path.endsWith("/opaque/start")) return this.#opaqueStart(JSON.parse(body) as never);
    if (path.endsWith("/passkeys/options")) return { body: passkeyOptions() };
    const kind = /opaque|pin/.test(path)
      ? "pin"
      : (["passkey", "totp", "recovery-codes"].find((one) => path.includes(one)) ?? "");
    account.factors.add(kind);
    const { secrets = {} } = JSON.parse(body) as Schemas["SetRecoveryCodes"];
    for (const [name, { content, slots }] of Object.entries(secrets)) {
      const before = account.secrets.get(name);
      const version = (before?.version ?? 0) + 1;
      account.secrets.set(name, { ...before, ...(content ?? { slots: slots! }), version });
    }
    const bound = { app: "notes", sub, kind, device_id: kind };
    const made = { device_id: kind, binding: await this.realm.binding(bound) };
    const session = { token: sub, scope: "full", factor: "creation" };
    return { body: { ...made, pin: made, totp: made, recovery_codes: made, session } };
  }

  #opaqueStart({ request }: { request: string }): Reply {
    const { registrationResponse: response } = server.createRegistrationResponse({
      ...{ serverSetup: this.#setup, userIdentifier: "ann", registrationRequest: request },
    });
    const body = { response, registration: "r", salt: toBase64Url(new Uint8Array(16)) };
    return { body: { ...body, key_stretching: COST, min_length: 6 } };
  }
}

function passkeyOptions() {
  const challenge = toBase64Url(new Uint8Array(32));
  const user = { id: challenge, name: "Ann", displayName: "Ann" };
  const rp = { id: "localhost", name: "Notes" };
  return { ceremony: "c", publicKey: { challenge, rp, user, extensions: {} } };
}

/** An authenticator that has no PRF. */
export function plugIn(): void {
  class Credential {
    readonly id = toBase64Url(new Uint8Array(16));
    readonly rawId = new Uint8Array(16).buffer;
    readonly type = "public-key";
    readonly response = {
      clientDataJSON: new ArrayBuffer(1),
      attestationObject: new ArrayBuffer(1),
      getTransports: () => ["internal"],
      getAuthenticatorData: () => new ArrayBuffer(64),
    };
    readonly getClientExtensionResults = () => ({});
  }
  const credentials = { create: () => Promise.resolve(new Credential()) };
  Object.defineProperty(globalThis, "navigator", { configurable: true, value: { credentials } });
  Object.assign(globalThis, { PublicKeyCredential: Credential });
}
