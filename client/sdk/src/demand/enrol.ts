/**
 * The steps of an enrolment. Loaded by `../enrol.ts`, and by threshold mode.
 *
 * It can be interrupted at any point and called again. Until the backup is stored, the device
 * secret waits on the device under a key that WebCrypto does not give out: if it did not, a page
 * closed at the wrong moment would lose the account. Nothing of it is left afterwards.
 */
import type { Custody } from "../custody.js";
import type { EnrolOptions } from "../enrol.js";
import type { Unlocked } from "../keys.js";
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

/** It is backed up: nothing waits any more. */
export async function nothingWaits(custody: Custody): Promise<void> {
  waiting.delete(custody);
  const drop = (update: Update, at: (key: string) => string) => {
    update.delete(at(t.PENDING));
  };
  await t.ours(custody, [], drop, true);
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

/** What `../enrol.ts` says. */
export async function enrol(custody: Custody, options: EnrolOptions): Promise<Unlocked> {
  const isBegun = (await t.ourRecord(custody, t.PENDING)) !== undefined;
  if (custody.account && !isBegun) {
    throw new t.NotReady("already-enrolled", "this device has an account; forget the device first");
  }
  const [pending, unlocked] = await begin(custody);
  const account = await create(custody, pending, unlocked, options);
  await t.keepAccount(custody, { account, boundDevice: custody.device.thumbprint });
  const open = await t.keepAppKey(custody, unlocked);
  // Sealed end to end, it goes out with the first PIN or recovery codes: before, there is nothing to seal it under.
  if (custody.serverSlot && !custody.endToEnd) {
    await backingUp(custody, open);
    await nothingWaits(custody);
  } else waiting.set(custody, { account, pending });
  // The account is there: where the log can not be asked now, the next sign-in asks.
  if (custody.checkLog) await t.afterwards("log", () => t.checkLog(custody));
  return open;
}
