/**
 * What follows every sign-in: the receipt, the account, the secrets that came with the session.
 *
 * Called by `sign-in.ts` and `enrol.ts`. An answer whose proofs are not the pinned realm's gives no
 * session and no key.
 */
import { type Custody, isBound, keepAccount, lockOwn } from "./custody.js";
import { type CustodyError, failure, NotReady, Untrusted } from "./errors.js";
import type { Unlocked } from "./keys.js";
import { reportOffline } from "./offline/report.js";
import { checkLog, newestCheckpoint, takeReceipt, unproven } from "./receipts/log.js";
import { verifyBinding } from "./receipts/realm.js";
import type { SlotKey } from "./slots.js";
import type { Schemas } from "./transport.js";
import { unlockWith } from "./unlock.js";
import { tend, type Upkeep } from "./upkeep.js";
import { APP_KEY, DEVICE_SECRET, remember } from "./vault.js";
import type { PrfKey } from "./webauthn.js";

export { demandBinding, keepAppKey } from "./unlock.js";

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
  /** What was done to the slots that open the account's secrets; undefined where there was nothing to do. */
  readonly upkeep?: Upkeep | undefined;
  /** What else should have followed, and did not: mostly nothing. The next sign-in tries again. */
  readonly undone: readonly Undone[];
  /** Where a passkey was used: for an offline slot, and never to be sent. */
  readonly prf?: PrfKey | undefined;
}

/** What did not follow a sign-in, which stands all the same. */
export interface Undone {
  /**
   * `log`: the log was not proven to continue what this device has seen; `checkLog` asks again. `offline`: what was used
   * does not unlock offline again, as it did before the device secret was replaced. `report`: wrong PINs that were typed
   * offline are not told to the daemon yet.
   */
  readonly what: "log" | "offline" | "report";
  readonly error: CustodyError;
}

/** What a factor gave that opens slots; which credential it is, the daemon tells with the session. */
export type Brought = Omit<SlotKey, "credential"> & Partial<SlotKey>;

/**
 * Takes a session up, after its receipt was verified: of the account `asked` for, where one was. It does not run
 * where it `isLate` by then.
 */
export async function takeSession(
  custody: Custody,
  answer: Schemas["SessionStarted"],
  brought?: Brought,
  asked?: string,
  isLate = (): boolean => false,
): Promise<SignedIn> {
  if (asked !== undefined && asked !== answer.account) {
    throw new Untrusted("statement-differs", "a session of another account");
  }
  await takeReceipt(custody, answer.log, answer.account);
  const { transport, device } = custody;
  const runs = !isLate();
  try {
    const boundDevice = answer.device_bound ? device.thumbprint : undefined;
    const { scope, factor } = answer.session;
    const isQuiet = scope === "read";
    if (runs) await keepAccount(custody, { account: answer.account, boundDevice }, isQuiet);
    // Whose it is, is known by then: nothing of the account of before goes out with it.
    if (runs && !isLate()) transport.session = answer.session;
    custody.serverSlot = answer.server_slots === "allowed";
    custody.slotsEnd = answer.server_slots === "ending";
    const credential = brought?.credential ?? answer.credential;
    if (factor === "pin") custody.pin = credential ?? undefined;
    if (brought && credential != null) remember(custody, { ...brought, credential });
    // A copy is kept until `lock`; of a passkey's output the app has the other.
    if (brought && brought.type !== "prf") brought.material.fill(0);
    // Before anything is judged by what this device has seen of secrets: after a restore that is another log's.
    const asksLog = custody.checkLog && scope !== "pin-only";
    const undone = asksLog ? await afterwards("log", () => shown(custody, answer)) : [];
    // One realm of a group would put a key of its own in the place of the owner's.
    const { [DEVICE_SECRET]: secret, [APP_KEY]: key } = answer.secrets;
    const isAsked = secret && key && !custody.member;
    const unlocked = isAsked ? await unlockWith(custody, secret, key) : undefined;
    const upkeep = unlocked && scope === "full" ? await tend(custody) : undefined;
    // Wrong PINs of a thief's are told before anybody unlocks.
    if (scope !== "pin-only")
      undone.push(...(await afterwards("report", () => reportOffline(custody))));
    const { account, device_bound: deviceBound, secrets } = answer;
    return { account, scope, factor, deviceBound, unlocked, secrets, upkeep, undone };
  } catch (error) {
    if (error instanceof Untrusted) {
      transport.session = undefined;
      lockOwn(custody);
    }
    throw error;
  }
}

/** A daemon that was put back in time could show what it has shown before: a sign-in is an event, which it tells of. */
async function shown(custody: Custody, { log, session }: Schemas["SessionStarted"]) {
  const before = await newestCheckpoint(custody);
  await checkLog(custody);
  // What no checkpoint covers yet is not in one from before. Another tab may have gone on meanwhile: that is no proof of a lie.
  const isOld = log && !log.proof && before && log.index < before.size;
  if (isOld || (!log && session.scope === "full")) throw unproven();
}

/** The sign-in has happened, and what fails afterwards does not undo it: unless that shows whom one has signed in to. */
export async function afterwards(
  what: Undone["what"],
  step: () => Promise<unknown>,
): Promise<Undone[]> {
  try {
    await step();
    return [];
  } catch (cause) {
    if (cause instanceof Untrusted) throw cause;
    return [{ what, error: failure(cause) }];
  }
}

/** The account of this device. */
export function accountOf(custody: Custody): string {
  if (!custody.account) throw new NotReady("no-account", "this device knows no account yet");
  return custody.account.account;
}

/** A credential that was made must be bound to the account by the realm. */
export async function demandBound(
  custody: Custody,
  kind: string,
  bound: Schemas["Bound"],
): Promise<void> {
  await verifyBinding(custody.realm, bound.binding, {
    app: custody.app,
    sub: accountOf(custody),
    kind,
    device_id: bound.device_id,
  });
}

/** The account, where this device is bound to it: then the daemon tells its passkeys. */
export function boundAccount(custody: Custody): string | undefined {
  return isBound(custody) ? custody.account?.account : undefined;
}
