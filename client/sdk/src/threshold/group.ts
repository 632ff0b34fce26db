/**
 * Several realms of independent operators that hold one secret together: a custody at each of them,
 * with a device key, an account and a session of its own.
 *
 * Made by an app when it starts; the other modules here take it. What is done at all realms alike (setting the
 * PIN, adding a passkey) is `atEach`.
 */
import { type Custody, forgetDevice, lock, openCustody } from "../custody.js";
import { NotReady } from "../errors.js";
import { keepAppKey, opensNow } from "../unlock.js";
import type { Unlocked } from "../keys.js";
import type { RealmTrust } from "../receipts/realm.js";
import { indexedDbStorage } from "../storage/indexeddb.js";
import type { Storage } from "../storage/storage.js";
import { answerOf, type RealmAnswer, RealmsFailed } from "./failures.js";
import { isPossible } from "./share.js";

/** What an app says about its realms. */
export interface GroupOptions {
  /** The app's identifier, in the policy files of all realms. */
  readonly app: string;
  /** So many realms give the key back; and no set that asks for fewer is believed. Two at least. */
  readonly threshold: number;
  /** Each realm's address, name and pinned keys. Their names differ. */
  readonly realms: readonly { readonly url: string; readonly realm: RealmTrust }[];
  /** Default: an IndexedDB database for each name. */
  readonly storage?: (name: string) => Storage;
  /** Default: the browser's. */
  readonly fetch?: typeof fetch;
  /** As for one custody. */
  readonly checkLog?: boolean;
}

/** Realms that hold one secret together. Made by `openGroup`. */
export interface Group {
  readonly app: string;
  readonly threshold: number;
  /** One for each realm, by their names' order: on every device the same. */
  readonly custodies: readonly Custody[];
  /** What concerns all of them. */
  readonly storage: Storage;
}

/** Opens a custody at each realm. Works offline. */
export async function openGroup(options: GroupOptions): Promise<Group> {
  const { app, threshold, realms, storage = indexedDbStorage, ...more } = options;
  const names = realms.map(({ realm }) => realm.name);
  if (!isPossible(threshold, realms.length) || new Set(names).size !== names.length) {
    throw new RangeError(
      "a group has 2 to 16 realms with different names, and a threshold of 2 at least",
    );
  }
  const opened = await Promise.all(
    realms.map(({ url, realm }) => {
      const kept = storage(`custodyd:${app}:${realm.name}`);
      return openCustody({ ...more, app, url, realm, storage: kept, member: true });
    }),
  );
  const custodies = opened.sort((one, other) => (one.realm.name < other.realm.name ? -1 : 1));
  return { app, threshold, custodies, storage: storage(`custodyd:${app}:threshold`) };
}

/** The open app key. */
export function unlockedOf(group: Group): Unlocked {
  const open = group.custodies.map(({ unlocked }) => unlocked).find((one) => one && !one.locked);
  if (!open) throw new NotReady("locked", "unlock first: recover the key, or unlock offline");
  return open;
}

/**
 * Keeps the wrapped key on this device, and the open one in memory: any of the custodies has it. Returns that one: what is
 * open already goes on.
 */
export async function keepUnlocked({ custodies }: Group, unlocked: Unlocked): Promise<Unlocked> {
  const open = custodies.reduce((one, custody) => opensNow(custody, one), unlocked);
  for (const custody of custodies) await keepAppKey(custody, open);
  return open;
}

/** Locks the app key; the sessions go on. */
export function lockGroup(group: Group): void {
  group.custodies.forEach(lock);
}

/** Forgets everything on this device, at all realms. Ends nothing at the daemons; open the group again afterwards. */
export async function forgetGroup(group: Group): Promise<void> {
  for (const custody of group.custodies) await forgetDevice(custody);
  await group.storage.clear();
}

/** How realms are asked. */
export interface Asking {
  /** One after the other: where each asks the owner for something, as a passkey does. */
  readonly oneByOne?: boolean;
  /** Only these realms, by name: those that failed before. */
  readonly only?: readonly string[];
}

/**
 * Does the same at each realm, and returns what each gave, in the group's order. Where some fail, the others have done it:
 * `RealmsFailed` has their names, for another try with `only`.
 */
export async function atEach<T>(
  group: Group,
  call: (custody: Custody) => Promise<T>,
  { oneByOne = false, only }: Asking = {},
): Promise<T[]> {
  const meant = group.custodies.filter(({ realm }) => only?.includes(realm.name) ?? true);
  const gave: T[] = [];
  const ask = async (custody: Custody, at: number): Promise<RealmAnswer> => {
    const realm = custody.realm.name;
    try {
      gave[at] = await call(custody);
      return { realm, outcome: "done" };
    } catch (error) {
      return answerOf(realm, error);
    }
  };
  const answers: RealmAnswer[] = [];
  if (oneByOne) {
    for (const [at, custody] of meant.entries()) answers.push(await ask(custody, at));
  } else {
    answers.push(...(await Promise.all(meant.map(ask))));
  }
  if (answers.some(({ outcome }) => outcome !== "done")) {
    throw new RealmsFailed("realms-failed", "not every realm did it", answers);
  }
  return gave;
}
