/**
 * The context that every call of this package takes: one app, on one device, at one daemon.
 *
 * Calls are functions and not methods, so that a bundler leaves out what an app does not use.
 */
import type { SigningKey } from "./dpop.js";
import { NotReady } from "./errors.js";
import { generate } from "./jose.js";
import { signingKey, type Unlocked } from "./keys.js";
import type { RealmTrust } from "./receipts/realm.js";
import type { SlotKey } from "./slots.js";
import { indexedDbStorage } from "./storage/indexeddb.js";
import { DEVICE_KEY, kept } from "./storage/sound.js";
import type { Storage, Update } from "./storage/storage.js";
import { Transport } from "./transport.js";
import type { Held } from "./vault.js";

/** What an app says about itself. */
export interface CustodyOptions {
  /** The daemon's address, as `listen.url` of its configuration: no path, no slash at the end. */
  readonly url: string;
  /** The app's identifier in its policy file. */
  readonly app: string;
  /** The realm and its keys, pinned in the app. */
  readonly realm: RealmTrust;
  /** Default: an IndexedDB database of this app's. */
  readonly storage?: Storage;
  /** Default: the browser's. */
  readonly fetch?: typeof fetch;
  /**
   * Whether a sign-in also demands that the log continues what this device has seen of it (two or
   * three more requests). Default: true. Otherwise call `checkLog` when it suits.
   */
  readonly checkLog?: boolean;
  /**
   * Whether the daemon never gets what opens a secret, whatever it says that the policy allows. Default: false, it
   * gets it where the policy has server slots. Say true where the policy forbids them, or where it shall be the owner's
   * passkey, PIN or recovery code that opens, and nothing else.
   *
   * `"moving"` leads there from an app that has accounts: it hands out nothing either, and takes what the daemon can open
   * from before, to move it at the next sign-in. Until all accounts have moved, a daemon that lies could pass off a key
   * of its own on a device that is new to the account, as without `endToEnd`.
   */
  readonly endToEnd?: boolean | "moving";
  /**
   * Whether this daemon is one of a group that holds a key together; `openGroup` says so. Such a one gives shares: no key
   * that comes with a sign-in is ever taken from it.
   */
  readonly member?: boolean;
  /**
   * Called when the device secret that is open here was replaced, by another device or by `rotateSecret`: with the key that
   * is open from now on, that of before being locked; or with undefined where what is stored now does not open here, so that
   * the owner has to sign in. Until then the key of before goes on. It is noticed by a sign-in, `sync`, and `getSecret`.
   */
  readonly onReplaced?: (now: Unlocked | undefined) => void;
}

/** What is kept about the account on this device. */
export interface AccountRecord {
  readonly account: string;
  /** The device key that is bound to it: another one is a stranger. */
  readonly boundDevice?: string | undefined;
}

/** What is kept of the app key: encrypted under the device secret, which is not here. */
export interface AppKeyRecord {
  readonly thumbprint: string;
  readonly wrapped: Uint8Array<ArrayBuffer>;
  /** A restore was accepted since: it may be under a device secret that the account has no more. */
  readonly restored?: boolean;
}

/** One app on one device. Made by `openCustody`. */
export interface Custody {
  readonly app: string;
  readonly realm: RealmTrust;
  readonly storage: Storage;
  readonly transport: Transport;
  readonly checkLog: boolean;
  readonly endToEnd: boolean | "moving";
  readonly member: boolean;
  readonly onReplaced: CustodyOptions["onReplaced"];
  /** The device key; its thumbprint is the device identifier. */
  readonly device: SigningKey & { readonly thumbprint: string; readonly pair: CryptoKeyPair };
  /** The account of this device, once there is one. */
  account: AccountRecord | undefined;
  /** The app key, between an unlock and `lock()`. */
  unlocked: Unlocked | undefined;
  /** What opens key slots, from a sign-in until `lock()`. Never to be sent or kept. */
  slotKeys: readonly SlotKey[];
  /** The device secret as it is stored, likewise. */
  held: Held | undefined;
  /** The PIN that was used or set last, as the daemon names it; likewise. */
  pin: string | undefined;
  /** How often `lock` was called: what has begun before keeps nothing at hand. */
  locks: number;
  /** Whether the policy has server slots, once the daemon has said so. */
  serverSlot: boolean | undefined;
  /** The policy lets those that are there be moved, as the daemon said at the last sign-in. */
  slotsEnd: boolean;
}

/** Names of what is kept. */
export const KEPT = { device: DEVICE_KEY, account: "account", appKey: "app-key" } as const;

/** Opens what the device keeps, and makes a device key where there is none. Works offline. */
export async function openCustody(options: CustodyOptions): Promise<Custody> {
  const { url, app, realm } = options;
  const storage = options.storage ?? indexedDbStorage(`custodyd:${app}`);
  const fresh = await generate(false);
  const [pair, account] = await storage.update([KEPT.device, KEPT.account], (update) => {
    const before = kept(KEPT.device, update.get(KEPT.device)) as CryptoKeyPair | undefined;
    if (!before) update.set(KEPT.device, fresh);
    const account = kept(KEPT.account, update.get(KEPT.account));
    return [before ?? fresh, account as AccountRecord | undefined] as const;
  });
  const device = { ...(await signingKey(pair)), pair };
  const fetcher = options.fetch ?? ((...call) => globalThis.fetch(...call));
  return {
    app,
    realm,
    storage,
    transport: new Transport(url.replace(/\/$/, ""), app, device, fetcher),
    checkLog: options.checkLog ?? true,
    endToEnd: options.endToEnd ?? false,
    member: options.member ?? false,
    onReplaced: options.onReplaced,
    device,
    account,
    unlocked: undefined,
    slotKeys: [],
    held: undefined,
    pin: undefined,
    locks: 0,
    serverSlot: undefined,
    slotsEnd: false,
  };
}

/** Whether this device's key is the one that was bound to the account. */
export function isBound(custody: Custody): boolean {
  return custody.account?.boundDevice === custody.device.thumbprint;
}

/** What belongs to one account, and waits under its name while this device is another's. */
const OWN = [KEPT.appKey, "offline", "rotation", "codes", "enrolment"];

/** Where it waits. */
const aside =
  (account = "") =>
  (key: string): string =>
    `of/${account}/${key}`;

/** The device is another account's by now. */
export const otherAccount = (): NotReady =>
  new NotReady(
    "other-account",
    "another tab has signed in to another account on this device: sign in here again, or reload",
  );

/**
 * Reads and writes what belongs to the account that is open here, in one update that looks at whose device this is: all tabs
 * have one storage, and another one may have signed in to another account since. Then it is refused (`other-account`) before
 * anything is written; or, where it `isLate` as what it tells of has happened already, done `at` where this account's records wait.
 * A storage that the browser has cleared under an open page is this account's again.
 */
export function ours<T>(
  { account, device, storage }: Pick<Custody, "storage"> & Partial<Custody>,
  keys: readonly string[],
  change: (update: Update, at: (key: string) => string) => T,
  isLate = false,
): Promise<T> {
  const away = aside(account?.account);
  const read = [KEPT.device, KEPT.account, ...keys, ...keys.map(away)];
  return storage.update(read, (update) => {
    const now = update.get(KEPT.account) as AccountRecord | undefined;
    if (now && now.account !== account?.account) {
      if (!isLate) throw otherAccount();
      return change(update, away);
    }
    if (!now && account) {
      if (!update.get(KEPT.device)) update.set(KEPT.device, device?.pair);
      update.set(KEPT.account, account);
    }
    return change(update, (key) => key);
  });
}

/** One record of this account's, whole. */
export const ourRecord = (custody: Parameters<typeof ours>[0], key: string): Promise<unknown> =>
  ours(custody, [key], (update) => kept(key, update.get(key)));

/**
 * Keeps what is known of the account. Whose everything was until now is looked at in the same update: another tab may have
 * signed in to a third account meanwhile. The device key is there again afterwards, should the browser have cleared its
 * storage under an open page: the daemon has bound the account to that one. A device that is another account's by now is
 * this one's again, unless nobody has asked for that (`isQuiet`).
 */
export async function keepAccount(
  custody: Custody,
  account: AccountRecord,
  isQuiet = false,
): Promise<void> {
  const { storage, device } = custody;
  const back = aside(account.account);
  const read = [KEPT.device, KEPT.account, ...OWN, ...OWN.map(back)];
  await storage.update(read, (update) => {
    const before = (update.get(KEPT.account) as AccountRecord | undefined)?.account;
    if (before !== account.account) {
      if (isQuiet && before) return;
      const away = aside(before);
      for (const key of OWN) {
        const its = update.get(back(key));
        // An enrolment that made no account yet is nobody's, and waits under no name.
        if (before || key === "enrolment") update.set(away(key), update.get(key));
        // What else was begun before there was an account is this one's, unless it has its own: the one of before was erased here.
        else if (!its) continue;
        update.set(key, its);
        update.delete(back(key));
      }
    }
    if (!update.get(KEPT.device)) update.set(KEPT.device, device.pair);
    update.set(KEPT.account, account);
  });
  // What is open is the other one's, and would seal what is this one's.
  if (custody.account && custody.account.account !== account.account) lockOwn(custody);
  custody.account = account;
}

/** Locks what one daemon is to blame for. The open key of a group is that of its other realms, too, and stays. */
export function lockOwn(custody: Custody): void {
  if (custody.member) custody.unlocked = undefined;
  lock(custody);
}

/** Locks the app key; the session goes on. */
export function lock(custody: Custody): void {
  custody.unlocked?.lock();
  custody.unlocked = undefined;
  for (const { material } of custody.slotKeys) material.fill(0);
  custody.slotKeys = [];
  custody.held?.key.fill(0);
  custody.held = custody.pin = undefined;
  custody.locks += 1;
}

/**
 * Forgets everything on this device: keys, account, slots, the queue. Ends nothing at the daemon.
 * Open the custody again afterwards; this one can not be used any more.
 */
export async function forgetDevice(custody: Custody): Promise<void> {
  lock(custody);
  const kept = await custody.storage.list("");
  await ours(custody, [], (update) => {
    // What `ours` has put back goes, too.
    for (const key of [KEPT.account, KEPT.device, ...kept.map(([key]) => key)]) update.delete(key);
  });
  custody.account = undefined;
  custody.transport.session = undefined;
}
