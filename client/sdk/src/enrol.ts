/**
 * Enrolment: a new account, its two keys proven and bound, its backup stored.
 *
 * It can be interrupted at any point and called again. Until the backup is stored, the device
 * secret waits on the device under a key that WebCrypto does not give out: if it did not, a page
 * closed at the wrong moment would lose the account. Nothing of it is left afterwards.
 */
import { random, toBase64Url } from "./bytes.js";
import { type Custody, KEPT, keepAccount } from "./custody.js";
import { appKeyProof } from "./dpop.js";
import { NotReady } from "./errors.js";
import { aesKey, seal, Unlocked } from "./keys.js";
import { checkLog, takeReceipt } from "./receipts/log.js";
import { verifyBinding } from "./receipts/realm.js";
import { backUp } from "./secrets.js";
import { afterwards, keepAppKey } from "./session.js";
import { nothingPending, opened, PENDING, type Pending } from "./vault.js";

/** What an enrolment takes. */
export interface EnrolOptions {
  /** A name for this device, in the owner's list. */
  readonly deviceName?: string;
  /** A ticket of the app's backend, where the policy wants one. */
  readonly ticket?: string;
}

/**
 * Whether an enrolment was begun here and its backup is not at the daemon. Sealed end to end, the backup goes out
 * with the first PIN or recovery codes: until then this is true, and `enrol` goes on.
 */
export async function enrolmentPending(custody: Custody): Promise<boolean> {
  return (await custody.storage.get(PENDING)) !== undefined;
}

/** Begins an enrolment, or goes on with the one that was. */
export async function begin({ storage }: Pick<Custody, "storage">): Promise<[Pending, Unlocked]> {
  const kept = (await storage.get(PENDING)) as Pending | undefined;
  if (kept) return [kept, await opened(kept)];
  const unlocked = await Unlocked.create();
  const key = await aesKey(random(32));
  const pending: Pending = {
    idempotencyKey: toBase64Url(random(16)),
    key,
    sealed: await seal(key, PENDING, unlocked.secret),
    wrapped: unlocked.wrapped,
  };
  await storage.update([], (update) => {
    update.set(PENDING, pending);
  });
  return [pending, unlocked];
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
  await verifyBinding(realm, bindings.app_key, {
    ...about,
    kind: "app-key",
    device_id: unlocked.thumbprint,
  });
  await verifyBinding(realm, bindings.device_key, {
    ...about,
    kind: "device-key",
    device_id: device.thumbprint,
  });
  await takeReceipt(custody, created.log);
  transport.session = created.session;
  custody.serverSlot = created.server_slot;
  return account;
}

/**
 * Creates the account of this device and backs its key up. The session counts as fresh for ten
 * minutes: add a passkey, a PIN or recovery codes within it, or nobody comes back in.
 */
export async function enrol(custody: Custody, options: EnrolOptions = {}): Promise<Unlocked> {
  const waiting = await enrolmentPending(custody);
  if (custody.account && !waiting) {
    throw new NotReady("already-enrolled", "this device has an account; forget the device first");
  }
  const [pending, unlocked] = await begin(custody);
  const account = await create(custody, pending, unlocked, options);
  await keepAccount(custody, { account, boundDevice: custody.device.thumbprint });
  const open = await keepAppKey(custody, unlocked);
  // Sealed end to end, it goes out with the first PIN or recovery codes: before, there is nothing to seal it under.
  if (custody.serverSlot && !custody.endToEnd) {
    await backUp(custody, open);
    await nothingPending(custody);
  }
  // The account is there: where the log can not be asked now, the next sign-in asks.
  if (custody.checkLog) await afterwards("log", () => checkLog(custody));
  return open;
}

/** Gives up an enrolment that was begun, with the key that nobody has used yet. */
export async function abandonEnrolment(custody: Custody): Promise<void> {
  await custody.storage.update([], (update) => {
    update.delete(PENDING);
    update.delete(KEPT.account);
  });
  custody.account = undefined;
}
