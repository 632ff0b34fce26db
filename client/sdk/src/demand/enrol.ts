/**
 * The steps of an enrolment. Loaded by `../enrol.ts`, and by threshold mode.
 *
 * It can be interrupted at any point and called again. Until the account has its first way in, the device
 * secret waits on the device under a key that WebCrypto does not give out: if it did not, a page
 * closed at the wrong moment would lose the account, also one that is backed up, as nobody could sign in to it.
 * Nothing of it is left afterwards.
 */
import type { Custody } from "../custody.js";
import type { EnrolOptions } from "../enrol.js";
import type { Unlocked } from "../keys.js";
import type { Copy, Queued } from "../offline/changes.js";
import type { Update } from "../storage/storage.js";
import type { Pending } from "../vault.js";
import { appKeyProof } from "./app-key.js";
import { backingUp } from "./back-up.js";
import { t } from "./t.js";

/** Begins an enrolment, or goes on with the one that was. Of two tabs that begin at once, one goes on with the other's. */
export async function begin(
  custody: Pick<Custody, "storage"> & Partial<Custody>,
): Promise<[Pending, Unlocked]> {
  const kept = (await t.ourRecord(custody, t.PENDING)) as Pending | undefined;
  if (kept) return [kept, await t.opened(kept)];
  const unlocked = await t.Unlocked.create();
  const key = await t.aesKey(t.random(32));
  const pending: Pending = {
    idempotencyKey: t.toBase64Url(t.random(16)),
    key,
    sealed: await t.seal(key, t.PENDING, unlocked.secret),
    wrapped: unlocked.wrapped,
  };
  const first = await t.ours(custody, [t.PENDING], (update) => {
    const before = update.get(t.PENDING) as Pending | undefined;
    update.set(t.PENDING, before ?? pending);
    return before;
  });
  return first ? [first, await t.opened(first)] : [pending, unlocked];
}

/** What each custody has begun and not backed up: the browser may clear its storage under an open page. */
const waiting = new WeakMap<Custody, { readonly account: string; readonly pending: Pending }>();

/** The enrolment that waits for what carries its backup. Where the account has a backup, none that is only in memory counts. */
export async function pendingOf(
  custody: Custody,
  isBackedUp: boolean,
): Promise<Pending | undefined> {
  const kept = (await t.ourRecord(custody, t.PENDING)) as Pending | undefined;
  const { account, pending } = waiting.get(custody) ?? {};
  return kept ?? (isBackedUp || account !== custody.account?.account ? undefined : pending);
}

/** It is backed up, and there is a way in: nothing waits any more. */
export async function nothingWaits(custody: Custody): Promise<void> {
  waiting.delete(custody);
  const drop = (update: Update, at: (key: string) => string) => {
    update.delete(at(t.PENDING));
  };
  await t.ours(custody, [], drop, true);
}

/** Whether an enrolment waits, and its backup is at the daemon: the next way in ends that, also one that carries no slots. */
export const waitsForWay = async (custody: Custody): Promise<boolean> =>
  (await t.ourRecord(custody, t.PENDING)) !== undefined && (await isBackedUp(custody));

/** The device secret is stored first, and the wrapped key after it or with it. */
async function isBackedUp({ transport }: Custody): Promise<boolean> {
  const { secrets } = await transport.request("get", "/v1/account/secrets");
  return secrets.some(({ name }) => name === t.APP_KEY);
}

/** Creates the account, or finds the one that was created; returns its identifier. */
export async function create(
  custody: Custody,
  pending: Pick<Pending, "idempotencyKey">,
  unlocked: Unlocked,
  options: EnrolOptions,
): Promise<string> {
  const { app, realm, device, transport } = custody;
  const created = await transport.request("post", "/v1/apps/{app}/accounts", {
    headers: { "Idempotency-Key": pending.idempotencyKey },
    body: async (fresh) => ({
      app_key_proof: await appKeyProof(unlocked, `${realm.name}/${app}`, device.jwk, fresh),
      ...(options.deviceName === undefined ? {} : { device_name: options.deviceName }),
      ...(options.ticket === undefined ? {} : { ticket: options.ticket }),
    }),
  });
  const { account, bindings } = created;
  const about = { app, sub: account };
  await t.verifyBinding(realm, bindings.app_key, {
    ...about,
    kind: "app-key",
    device_id: unlocked.thumbprint,
  });
  await t.verifyBinding(realm, bindings.device_key, {
    ...about,
    kind: "device-key",
    device_id: device.thumbprint,
  });
  await t.takeReceipt(custody, created.log, account);
  transport.session = created.session;
  custody.serverSlot = created.server_slot;
  return account;
}

/**
 * The same, also where the account was created too long ago to be gone on with: nobody can open a session there that sets a
 * first factor. Another account is made for the same key, which what was sealed meanwhile hangs on. A ticket is good for
 * one account, so that one comes first.
 *
 * @param begun where the enrolment waits: the custody, or its group
 */
export async function createAnyway(
  begun: Parameters<typeof t.ours>[0],
  custody: Custody,
  { idempotencyKey: first, again = {} }: Pending,
  unlocked: Unlocked,
  options: EnrolOptions,
): Promise<void> {
  const { name } = custody.realm;
  const make = (idempotencyKey: string) => create(custody, { idempotencyKey }, unlocked, options);
  try {
    await goOnAs(custody, await make(again[name] ?? first));
  } catch (error) {
    const isOld = error instanceof t.Refused && error.code === "account-exists";
    if (!isOld || options.ticket !== undefined) throw error;
    if (custody.account) await demandNoFactors(custody);
    const next = t.toBase64Url(t.random(16));
    // Before it is sent: called again, this goes on with the account that it makes.
    await t.ours(begun, [t.PENDING], (update) => {
      const now = update.get(t.PENDING) as Pending;
      update.set(t.PENDING, { ...now, again: { ...now.again, [name]: next } } satisfies Pending);
    });
    await goOnAs(custody, await make(next));
  }
}

/** An account with a way in is not left: the answer that made it was lost, and its owner signs in. */
async function demandNoFactors(custody: Custody): Promise<void> {
  await t.openReadOnly(custody);
  const view = await custody.transport.request("get", "/v1/account");
  // Codes that still wait here were perhaps seen by nobody: then the enrolment has the last copy of the key.
  const [codes, rotated] = [
    await t.ourRecord(custody, t.CODES),
    await t.ourRecord(custody, t.ROTATION),
  ];
  const areSeen = codes === undefined && rotated === undefined;
  const opens = view.pin ?? view.passkeys[0] ?? (areSeen ? view.recovery_codes : undefined);
  const contact = view.contacts.find(({ confirmed }) => confirmed != null);
  const backedUp = (opens ?? view.totp ?? contact) && (await isBackedUp(custody));
  // An authenticator app or a delivered code alone brings nothing back but what is there.
  if (!opens && !backedUp) return;
  if (backedUp) await nothingWaits(custody);
  throw new t.NotReady("already-enrolled", "the account has a way in by now: sign in");
}

/**
 * Keeps the account, in the place of one that was begun for the same key, too long ago, if there is such: then what waits to be sent
 * there goes out here, and with it what was sent there, of which this device has copies. One update: all of it is the one's or
 * the other's.
 */
async function goOnAs(custody: Custody, account: string): Promise<void> {
  const now = { account, boundDevice: custody.device.thumbprint };
  const before = custody.account?.account;
  if (before === undefined || before === account) {
    // Not as a sign-in, which puts aside what was begun; and a device that another tab has signed in with since is that account's.
    await t.ours({ ...custody, account: now }, [], (update) => {
      update.set(t.KEPT.account, now);
    });
    custody.account = now;
    return;
  }
  const own = new RegExp(`^(queue|copy|lost|seen)/${before}/`);
  const keys = (await custody.storage.list("")).map(([key]) => key).filter((key) => own.test(key));
  const queues = keys.map((key) => key.replace(/^copy/, "queue"));
  await t.ours(custody, [...keys, ...queues], (update) => {
    const toSend = new Map<string, Queued>();
    for (const key of keys) {
      const [kind, , ...name] = key.split("/");
      const to = `${account}/${name.join("/")}`;
      if (kind === "lost") update.set(`lost/${to}`, update.get(key));
      if (kind !== "queue" && kind !== "copy") continue;
      const queued = update.get(key.replace(/^copy/, "queue")) as Queued | undefined;
      const aside = queued?.aside?.map((one) => ({ ...one, base: undefined }));
      toSend.set(`queue/${to}`, { ...(queued ?? sentAs(update.get(key))), base: undefined, aside });
    }
    for (const key of [...keys, ...queues]) update.delete(key);
    for (const [key, change] of toSend) update.set(key, change);
    // Sealed for the account of before, or of it.
    for (const key of [t.OFFLINE, t.CODES, t.ROTATION]) update.delete(key);
    update.set(t.KEPT.account, now);
  });
  custody.account = now;
  custody.held = undefined;
}

/** What was sent, to be sent once more. */
function sentAs(copy: unknown): Queued {
  const { content, updated: changed, change: id } = copy as Copy;
  return { id: id ?? t.toHex(t.random(8)), content, changed, base: undefined };
}

/** What `../enrol.ts` says. */
export async function enrol(custody: Custody, options: EnrolOptions): Promise<Unlocked> {
  const isBegun = (await t.ourRecord(custody, t.PENDING)) !== undefined;
  if (custody.account && !isBegun) {
    throw new t.NotReady("already-enrolled", "this device has an account; forget the device first");
  }
  const [pending, unlocked] = await begin(custody);
  await createAnyway(custody, custody, pending, unlocked, options);
  const open = await t.keepAppKey(custody, unlocked);
  // Sealed end to end, it goes out with the first PIN or recovery codes: before, there is nothing to seal it under.
  if (custody.serverSlot && !custody.endToEnd) await backingUp(custody, open);
  else waiting.set(custody, { account: t.accountOf(custody), pending });
  // The account is there: where the log can not be asked now, the next sign-in asks.
  if (custody.checkLog) await t.afterwards("log", () => t.checkLog(custody));
  return open;
}
