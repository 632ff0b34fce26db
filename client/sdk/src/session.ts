/**
 * What follows every sign-in: the receipt, the account, the secrets that came with the session.
 *
 * Called by `sign-in.ts` and `enrol.ts`. An answer whose proofs are not the pinned realm's gives no
 * session and no key.
 */
import { type Custody, KEPT, isBound, keepAccount, lock } from "./custody.js";
import { NotReady, Unreachable, Untrusted } from "./errors.js";
import { thumbprint, publicJwk } from "./jose.js";
import { Unlocked } from "./keys.js";
import { checkLog, takeReceipt } from "./receipts/log.js";
import { verifyBinding } from "./receipts/realm.js";
import { mend } from "./rewrap.js";
import type { SlotKey } from "./slots.js";
import type { Schemas } from "./transport.js";
import { APP_KEY, DEVICE_SECRET, openSecret, remember } from "./vault.js";
import type { PrfKey } from "./webauthn.js";

/** A session that was opened. */
export interface SignedIn {
  readonly account: string;
  /** `read`: nothing but reading; `pin-only`: the PIN is next, or a new one. */
  readonly scope: "read" | "full" | "pin-only";
  /** The factor that opened it. */
  readonly factor: string;
  /** Whether this device is bound to the account. */
  readonly deviceBound: boolean;
  /** The app key, where the secrets came with the session. */
  readonly unlocked: Unlocked | undefined;
  /** All secrets that came with the session. */
  readonly secrets: Readonly<Record<string, Schemas["Secret"]>>;
  /** Where a passkey was used: for an offline slot, and never to be sent. */
  readonly prf?: PrfKey | undefined;
}

/** What a factor gave that opens slots; which credential it is, the daemon tells with the session. */
export type Brought = Omit<SlotKey, "credential"> & Partial<SlotKey>;

/** Takes a session up, after its receipt was verified. */
export async function takeSession(
  custody: Custody,
  answer: Schemas["SessionStarted"],
  brought?: Brought,
): Promise<SignedIn> {
  await takeReceipt(custody, answer.log);
  const { transport, device } = custody;
  transport.session = answer.session;
  try {
    const boundDevice = answer.device_bound ? device.thumbprint : undefined;
    await keepAccount(custody, { account: answer.account, boundDevice });
    const credential = brought?.credential ?? answer.credential;
    if (brought && credential != null) remember(custody, { ...brought, credential });
    // One realm of a group would put a key of its own in the place of the owner's.
    const unlocked = custody.member ? undefined : await opened(custody, answer.secrets);
    const { scope, factor } = answer.session;
    if (unlocked && scope === "full") await mend(custody);
    if (custody.checkLog && scope !== "pin-only") await checkLogIfReachable(custody);
    const { account, device_bound: deviceBound, secrets } = answer;
    return { account, scope, factor, deviceBound, unlocked, secrets };
  } catch (error) {
    if (error instanceof Untrusted) {
      transport.session = undefined;
      lock(custody);
    }
    throw error;
  }
}

/** The sign-in has happened; that the connection broke off afterwards does not undo it. */
async function checkLogIfReachable(custody: Custody): Promise<void> {
  try {
    await checkLog(custody);
  } catch (error) {
    if (!(error instanceof Unreachable)) throw error;
  }
}

/** Opens the app key with released secrets; undefined where they were not asked for. */
async function opened(
  custody: Custody,
  secrets: Readonly<Record<string, Schemas["Secret"]>>,
): Promise<Unlocked | undefined> {
  const { [DEVICE_SECRET]: device, [APP_KEY]: key } = secrets;
  if (!device || !key) return undefined;
  const secret = await openSecret(custody, DEVICE_SECRET, device);
  const wrapped = await openSecret(custody, APP_KEY, key, secret);
  const unlocked = await Unlocked.open(secret, wrapped);
  secret.fill(0);
  const kept = (await custody.storage.get(KEPT.appKey)) as { thumbprint?: string } | undefined;
  if (kept?.thumbprint !== unlocked.thumbprint) await demandBinding(custody, unlocked);
  await keepAppKey(custody, unlocked);
  return unlocked;
}

/** A key that this device sees for the first time must be bound to the account by the realm. */
export async function demandBinding(custody: Custody, unlocked: Unlocked): Promise<void> {
  const view = await custody.transport.request("get", "/v1/account");
  const bound = view.app_keys.find((key) => key.device_id === unlocked.thumbprint);
  const jwk = publicJwk(bound?.jwk);
  if (!bound || !jwk || (await thumbprint(jwk)) !== unlocked.thumbprint) {
    throw new Untrusted(
      "statement-differs",
      "the recovered key is none of this account's app keys",
    );
  }
  const { account: sub, app } = view;
  await verifyBinding(custody.realm, bound.binding, {
    ...{ app, sub, kind: "app-key", device_id: unlocked.thumbprint },
  });
}

/** Keeps the wrapped key on this device, and the open one in memory. */
export async function keepAppKey(custody: Custody, unlocked: Unlocked): Promise<void> {
  const { thumbprint: name, wrapped } = unlocked;
  await custody.storage.update([], (update) => {
    update.set(KEPT.appKey, { thumbprint: name, wrapped });
  });
  custody.unlocked = unlocked;
}

/** The account of this device. */
export function accountOf(custody: Custody): string {
  if (!custody.account) throw new NotReady("no-account", "this device knows no account yet");
  return custody.account.account;
}

/** The account, where this device is bound to it: then the daemon tells its passkeys. */
export function boundAccount(custody: Custody): string | undefined {
  return isBound(custody) ? custody.account?.account : undefined;
}
