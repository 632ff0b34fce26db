/**
 * From an account at one realm to a group of realms that hold its key together, and back.
 *
 * The key stays, and its secret is at no time nowhere: first the shares are at all realms, beside the secret at the one;
 * then a recovery from the shares has to give the key, as it would on a new device; then the secret goes, last of all.
 * Each call can be interrupted at any request and called again. What the one realm has had, and its backups, stays with
 * whoever kept it: to shut that realm out, the app needs a new key.
 */
import { random, toBase64Url } from "../bytes.js";
import {
  type AccountRecord,
  type AppKeyRecord,
  type Custody,
  forgetDevice,
  KEPT,
  keepAccount,
  ourRecord,
} from "../custody.js";
import { CustodyError, NotReady, Refused, Untrusted, VersionConflict } from "../errors.js";
import type { Unlocked } from "../keys.js";
import { backUp, deleteSecret, listSecrets, unlock } from "../secrets.js";
import type { SignedIn } from "../session.js";
import { indexedDbStorage } from "../storage/indexeddb.js";
import type { Storage } from "../storage/storage.js";
import { onDemand } from "../tools.js";
import { APP_KEY, DEVICE_SECRET, PENDING } from "../vault.js";
import { carryOver } from "./carry.js";
import type { GroupEnrolOptions } from "./enrol.js";
import { RealmsFailed } from "./failures.js";
import { atEach, type Group, type GroupOptions, keepUnlocked, openGroup } from "./group.js";
import { type Ask, recover, type Recovered, type RecoverOptions } from "./recover.js";
import { spread } from "./refresh.js";
import { SHARE } from "./stored.js";

/** Where a conversion waits that was begun. */
const CONVERSION = "conversion";
/** A realm that is slow to prove its share is waited for: what is erased afterwards does not come back. */
const PATIENCE = 30_000;

/** What lies on this device for one app at one realm, put where another custody looks for it. Nothing is put over an account. */
async function adopt(from: Storage, to: Storage): Promise<void> {
  const entries = await from.list("");
  await to.update([KEPT.account], (update) => {
    if (update.get(KEPT.account) !== undefined) return;
    for (const [key, value] of entries) if (key !== PENDING) update.set(key, value);
  });
}

/**
 * Splits the open key of a single-realm account over the realms of a group, with an account at each of those that has
 * none yet. The realm of `single` may be one of them: its account becomes that of the group.
 *
 * Nothing is erased. Set a PIN, passkeys or recovery codes at the new realms now (`atEach`, within ten minutes), and then
 * call `finishConversion`. Where it is too late for that, `forgetGroup` and begin again.
 */
export async function convertToGroup(
  single: Custody,
  options: GroupOptions,
  enrol: GroupEnrolOptions = {},
): Promise<Group> {
  const { unlocked } = single;
  if (!unlocked || unlocked.locked) {
    throw new NotReady("locked", "unlock first: the key that is open is the one that is split");
  }
  const group = await groupOf(single, options);
  const kept = (await group.storage.get(CONVERSION)) as { idempotencyKey: string } | undefined;
  const begun = kept ?? { idempotencyKey: toBase64Url(random(16)) };
  if (!kept) {
    await group.storage.update([], (update) => {
      update.set(CONVERSION, begun);
    });
  }
  await atEach(group, (custody) => enter(custody, begun, unlocked, enrol));
  await spread(group, unlocked, group.threshold);
  await keepUnlocked(group, unlocked);
  return group;
}

/** The group, with the single account in it where its realm is one of the group's. */
async function groupOf(single: Custody, options: GroupOptions): Promise<Group> {
  const { app, realm, transport, device } = single;
  const { storage = indexedDbStorage, realms } = options;
  if (options.app !== app) throw new RangeError("a key is split for the app that it is of");
  const isMember = realms.some((one) => one.realm.name === realm.name);
  if (isMember) await adopt(single.storage, storage(`custodyd:${app}:${realm.name}`));
  const group = await openGroup(options);
  const adopted = oldOf(single, group);
  if (adopted === single) return group;
  demandSame(single, adopted);
  if (adopted.device.thumbprint === device.thumbprint) {
    adopted.transport.session ??= transport.session;
  }
  // Without one it would get a second account, and the first one would keep its secret.
  if (!adopted.transport.session) {
    throw new NotReady("not-signed-in", "sign in at the one realm first: it is one of the group's");
  }
  return group;
}

/** What is erased at the end is of the account that was converted, or else nothing is. */
function demandSame(single: Custody, adopted: Custody): void {
  if (adopted.account?.account === single.account?.account) return;
  const message = "the group has another account at this realm: `forgetGroup` and begin again";
  throw new NotReady("already-enrolled", message);
}

/**
 * Where the custody at one realm looks there is nothing yet, or this very account: nothing is put over another one, and without
 * a place for the account the device would not know it once the shares are gone.
 */
async function demandRoom(target: Storage, { account, realm }: Custody): Promise<void> {
  const there = (await target.get(KEPT.account)) as AccountRecord | undefined;
  if (!there || there.account === account?.account) return;
  const message = `another account is kept where the custody at ${realm.name} looks: forget that device first, nothing was erased`;
  throw new NotReady("already-enrolled", message);
}

/** The device secret goes last, and goes only if nothing else opens by it: known before anything is erased. */
async function demandNothingElse(custody: Custody): Promise<void> {
  const ours = [APP_KEY, DEVICE_SECRET, SHARE];
  const { secrets } = await custody.transport.request("get", "/v1/account/secrets");
  const hanging = secrets.filter(({ name, server_slot }) => !server_slot && !ours.includes(name));
  if (hanging.length === 0) return;
  const names = hanging.map(({ name }) => name).join(", ");
  throw new NotReady("locked", `${names}: open only by the device secret; nothing was erased`);
}

/** The custody that has the single account in the group, or else the one of before. */
function oldOf(single: Custody, group: Group): Custody {
  return group.custodies.find(({ realm }) => realm.name === single.realm.name) ?? single;
}

/** An account at a realm of the group, and a session. */
async function enter(
  custody: Custody,
  begun: { readonly idempotencyKey: string },
  unlocked: Unlocked,
  { tickets, ...more }: GroupEnrolOptions,
): Promise<void> {
  if (custody.account && custody.transport.session) return;
  const ticket = tickets?.[custody.realm.name];
  const its = ticket === undefined ? more : { ...more, ticket };
  const account = await (await onDemand()).create(custody, begun, unlocked, its);
  await keepAccount(custody, { account, boundDevice: custody.device.thumbprint });
}

/**
 * Ends a conversion: signs in at every realm, demands that the shares give the very key, and erases the secret and the
 * wrapped key that the single account has. Where one realm does not give its share, nothing is erased, and `RealmsFailed`
 * names it.
 *
 * @param signIn as for `recover`
 */
export async function finishConversion(
  single: Custody,
  group: Group,
  signIn: (custody: Custody, ask: Ask) => Promise<SignedIn>,
  options: RecoverOptions = {},
): Promise<Recovered> {
  const own = (await ourRecord(single, KEPT.appKey)) as AppKeyRecord | undefined;
  const old = oldOf(single, group);
  const adopted = (await ourRecord(old, KEPT.appKey)) as AppKeyRecord | undefined;
  const wanted = (own ?? adopted)?.thumbprint;
  const proven = await recover(group, await asked(group, signIn, options), {
    patience: options.patience ?? PATIENCE,
  });
  if (proven.answers.some(({ outcome }) => outcome !== "done")) {
    const message = "not every realm gave its share; nothing was erased";
    throw new RealmsFailed("realms-failed", message, proven.answers);
  }
  if (proven.unlocked.thumbprint !== wanted) {
    throw new Untrusted("statement-differs", "the shares are of another key; nothing was erased");
  }
  if (old !== single && single.account) demandSame(single, old);
  await demandNothingElse(old);
  await bothErased(old);
  await group.storage.update([], (update) => {
    update.delete(CONVERSION);
  });
  // Its account, device key and session are the group's now.
  if (old !== single) {
    await carryOver(single.storage, old.storage);
    await forgetDevice(single);
  }
  return proven;
}

/** Signs in one after the other first, where that is asked for: every realm, and not only as many as are needed. */
async function asked(
  group: Group,
  signIn: (custody: Custody, ask: Ask) => Promise<SignedIn>,
  { oneByOne = false }: RecoverOptions,
): Promise<(custody: Custody, ask: Ask) => Promise<SignedIn>> {
  if (!oneByOne) return signIn;
  const gave = new Map<Custody, () => Promise<SignedIn>>();
  for (const custody of group.custodies) {
    try {
      const signedIn = await signIn(custody, { release: [SHARE] });
      gave.set(custody, () => Promise.resolve(signedIn));
    } catch (error) {
      if (!(error instanceof CustodyError)) throw error;
      gave.set(custody, () => Promise.reject(error));
    }
  }
  return (custody, ask) => (gave.get(custody) ?? (() => signIn(custody, ask)))();
}

/**
 * Erases the wrapped key and the device secret, or neither where this session may not erase both.
 *
 * The device secret goes first where nothing hangs on it, and is tried first where the app key does: the daemon refuses
 * a session that is too weak for it (`StepUpRequired`) before it says `last-slot`. The app key takes whoever may read it.
 */
async function bothErased(custody: Custody): Promise<void> {
  await demandReadable(custody, APP_KEY);
  try {
    await erased(custody, DEVICE_SECRET);
  } catch (error) {
    if (!(error instanceof Refused) || error.code !== "last-slot") throw error;
  }
  for (const name of [APP_KEY, DEVICE_SECRET]) await erased(custody, name);
}

/** Refused to a session that may not erase it either. */
async function demandReadable(custody: Custody, name: string): Promise<void> {
  try {
    await custody.transport.request("get", "/v1/account/secrets/{name}", { path: { name } });
  } catch (error) {
    if (!(error instanceof Refused) || error.code !== "not-found") throw error;
  }
}

/** Deletes a secret, if it is still there. */
async function erased(custody: Custody, name: string): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    const there = (await listSecrets(custody)).find((one) => one.name === name);
    if (!there) return;
    try {
      await deleteSecret(custody, name, there.version);
      return;
    } catch (error) {
      if (error instanceof Refused && error.code === "not-found") return;
      if (!(error instanceof VersionConflict) || tries > 2) throw error;
    }
  }
}

/**
 * The way back: the key that is open is backed up at one realm of the group, which has to give it back, and then the
 * shares go, that realm's own last of all. The other accounts stay, until they are erased (`eraseAccount`).
 *
 * Needs a full session at each realm. Afterwards open the custody at that realm: it knows this device.
 *
 * @param options.storage of the custody at one realm. Default: the one that `openCustody` takes
 */
export async function convertToSingle(
  group: Group,
  realm: string,
  options: { readonly storage?: Storage } = {},
): Promise<void> {
  const custody = group.custodies.find((one) => one.realm.name === realm);
  if (!custody) throw new RangeError(`${realm} is no realm of this group`);
  const target = options.storage ?? indexedDbStorage(`custodyd:${group.app}`);
  await demandRoom(target, custody);
  const open = group.custodies.map(({ unlocked }) => unlocked).find((one) => one && !one.locked);
  const wanted = (await ourRecord(custody, KEPT.appKey)) as AppKeyRecord | undefined;
  if (open) await backUp(custody, open);
  const back = await unlock(custody);
  if (wanted && wanted.thumbprint !== back.thumbprint) {
    throw new Untrusted("statement-differs", "the realm gives another key; no share was erased");
  }
  await adopt(custody.storage, target);
  const others = group.custodies.map((one) => one.realm.name).filter((one) => one !== realm);
  for (const only of [others, [realm]]) {
    await atEach(group, (one) => erased(one, SHARE), { only });
  }
}
