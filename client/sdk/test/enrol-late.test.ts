/** An enrolment that was cut off before its first PIN, and is gone on with another day: the key that data hangs on is not lost. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { utf8 } from "../src/bytes.js";
import { openCustody, type Custody } from "../src/custody.js";
import { enrol, enrolmentPending } from "../src/enrol.js";
import { setRecoveryCodes } from "../src/factors.js";
import { parseJws, publicJwk, thumbprint } from "../src/jose.js";
import { queuedOf, pendingChanges } from "../src/offline/changes.js";
import { saveSecret } from "../src/offline/queue.js";
import { memoryStorage } from "../src/storage/memory.js";
import { enrolAtAll } from "../src/threshold/enrol.js";
import { openGroup } from "../src/threshold/group.js";
import { FakeDaemon, problem, type Reply } from "./support/daemon.js";
import { leaves, Realm } from "./support/realm.js";

/** A daemon that goes on with an account for ten minutes, and what it has made. */
class Service {
  /** Accounts by the key of the request that made them. */
  readonly accounts = new Map<string, string>();
  readonly stored: string[] = [];
  readonly old = new Set<string>();
  readonly storage = memoryStorage();
  down = false;
  view: object = { contacts: [], passkeys: [], pin: null, recovery_codes: null };

  private constructor(
    readonly realm: Realm,
    readonly servers: boolean,
  ) {}

  static async make(name = "test.example", servers = false): Promise<Service> {
    return new Service(await Realm.make(name), servers);
  }

  readonly daemon: FakeDaemon = new FakeDaemon(async (asked): Promise<Reply> => {
    const { path, headers, body = "{}" } = asked;
    if (this.down) throw new TypeError("Failed to fetch");
    const session = { token: "t", scope: "full", factor: "creation" };
    if (path.endsWith("/sessions/device")) {
      const account = [...this.accounts.values()].at(-1);
      const about = { account, device_bound: true, device_id: "d", server_slots: "forbidden" };
      return { body: { ...about, secrets: {}, session: { ...session, scope: "read" } } };
    }
    if (path === "/v1/account") return { body: this.view };
    if (path === "/v1/account/secrets") {
      const secrets = this.stored.map((name) => ({ name, version: 1 }));
      return { body: { secrets } };
    }
    if (path.startsWith("/v1/account/secrets/")) {
      if (asked.method === "GET") return problem(404, "not-found");
      this.stored.push(path.split("/").at(-1) ?? "");
      return { body: { version: 1 } };
    }
    if (path === "/v1/account/recovery-codes") {
      const { secrets = {} } = JSON.parse(body) as { secrets?: object };
      this.stored.push(...Object.keys(secrets));
      const sub = [...this.accounts.values()].at(-1);
      const bound = { app: "notes", sub, kind: "recovery-codes", device_id: "codes" };
      const binding = await this.realm.binding(bound);
      return { body: { recovery_codes: { device_id: "codes", binding }, session } };
    }
    if (!path.endsWith("/accounts")) return { body: {}, nonce: "n" };
    const key = headers.get("Idempotency-Key") ?? "";
    if (this.old.has(key)) return problem(409, "account-exists");
    const account = this.accounts.get(key) ?? `a-${this.accounts.size + 1}`;
    this.accounts.set(key, account);
    const { app_key_proof: proof } = JSON.parse(body) as { app_key_proof: string };
    const print = (jws: string | null) =>
      thumbprint(publicJwk(parseJws(jws ?? "")?.header["jwk"])!);
    const about = { app: "notes", sub: account };
    const [app_key, device_key] = await Promise.all([
      this.realm.binding({ ...about, kind: "app-key", device_id: await print(proof) }),
      this.realm.binding({
        ...{ ...about, kind: "device-key" },
        device_id: await print(headers.get("DPoP")),
      }),
    ]);
    const bindings = { app_key, device_key };
    const log = await this.realm.receipt(1, leaves(2));
    return { status: 201, body: { account, bindings, log, session, server_slot: this.servers } };
  });

  /** Another load of the page. */
  open(): Promise<Custody> {
    const { trust } = this.realm;
    const { storage, daemon } = this;
    const options = { url: "https://c.example", app: "notes", realm: trust, checkLog: false };
    return openCustody({ ...options, storage, fetch: daemon.fetch, endToEnd: true });
  }

  /** Ten minutes later. */
  later(): void {
    for (const key of this.accounts.keys()) this.old.add(key);
  }
}

test("ten minutes later the key goes on with another account, and what waits goes out there", async () => {
  const service = await Service.make();
  const before = await service.open();
  const key = await enrol(before, {});
  service.down = true;
  await saveSecret(before, "draft", utf8("sealed under the key"));
  service.down = false;
  assert.deepEqual((await saveSecret(before, "sent", utf8("sent there"))).sent.length, 2);
  service.down = true;
  await saveSecret(before, "draft", utf8("changed"));
  service.down = false;
  service.later();
  const custody = await service.open();
  assert.equal(custody.account?.account, "a-1");
  const again = await enrol(custody, {});
  assert.equal(again.thumbprint, key.thumbprint);
  assert.deepEqual([custody.account.account, service.accounts.size], ["a-2", 2]);
  assert.deepEqual((await pendingChanges(custody)).sort(), ["draft", "sent"]);
  const { content, base } = (await queuedOf(custody, "draft"))!;
  assert.deepEqual([content, base], [utf8("changed"), undefined]);
  assert.deepEqual((await queuedOf(custody, "sent"))?.content, utf8("sent there"));
  assert.deepEqual(await service.storage.list("copy/a-1/"), []);
  // Called once more it goes on with that one, and the first codes carry the backup.
  const third = await service.open();
  await enrol(third, {});
  assert.deepEqual([third.account?.account, service.accounts.size], ["a-2", 2]);
  await setRecoveryCodes(third);
  assert.ok(service.stored.includes("device-secret"));
  assert.equal(await enrolmentPending(third), false);
});

test("an account that has a way in by now is not left for another one", async () => {
  const service = await Service.make();
  await enrol(await service.open(), {});
  service.later();
  service.view = { contacts: [], passkeys: [], pin: { device_id: "pin-1" }, recovery_codes: null };
  service.stored.push("device-secret", "app-key");
  const custody = await service.open();
  await assert.rejects(enrol(custody, {}), { code: "already-enrolled" });
  assert.deepEqual([custody.account?.account, service.accounts.size], ["a-1", 1]);
  assert.equal(await enrolmentPending(custody), false);
});

test("a ticket is good for one account", async () => {
  const service = await Service.make();
  await enrol(await service.open(), { ticket: "t" });
  service.later();
  await assert.rejects(enrol(await service.open(), { ticket: "t" }), { code: "account-exists" });
  assert.equal(service.accounts.size, 1);
});

test("a realm that was down for ten minutes keeps nobody out of a group", async () => {
  const services = await Promise.all(
    ["a.example", "b.example", "c.example"].map((name) => Service.make(name, true)),
  );
  const stores = new Map<string, ReturnType<typeof memoryStorage>>();
  const group = () =>
    openGroup({
      ...{ app: "notes", threshold: 2, checkLog: false },
      realms: services.map(({ realm }) => ({ url: `https://${realm.name}`, realm: realm.trust })),
      storage: (name) => {
        const kept = stores.get(name) ?? memoryStorage();
        stores.set(name, kept);
        return kept;
      },
      fetch: (input, init) => {
        const its = services.find(({ realm }) => (input as string).includes(realm.name))!;
        return its.daemon.fetch(input, init);
      },
    });
  services[2]!.down = true;
  await assert.rejects(enrolAtAll(await group()), { code: "realms-failed" });
  for (const service of services) service.later();
  services[2]!.down = false;
  await enrolAtAll(await group());
  assert.deepEqual(
    services.map(({ accounts }) => accounts.size),
    [2, 2, 1],
  );
});
