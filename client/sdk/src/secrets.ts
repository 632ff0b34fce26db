/**
 * Secrets: small versioned values that the daemon keeps and hands out as the app's policy says.
 *
 * Two by convention back the app key up (`backUp`, `unlock`); an app may have more of its own. Each is sealed end to end
 * (`vault.ts`); where the policy has server slots, it opens to the daemon, too. A
 * write names the version that it replaces, so that two devices can not overwrite each other.
 */
import { type Bytes, fromBase64Url } from "./bytes.js";
import { type Custody, otherAccount } from "./custody.js";
import { CanNotOpen, NotReady, Refused } from "./errors.js";
import type { Unlocked } from "./keys.js";
import { accountOf } from "./session.js";
import { onDemand } from "./tools.js";
import type { Schemas } from "./transport.js";
import { tellReplaced, unlockWith } from "./unlock.js";
import { APP_KEY, DEVICE_SECRET, noted, openSecret, placeOf, sealedSecret } from "./vault.js";

/** A secret as it was released. */
export interface Stored {
  readonly version: number;
  readonly content: Bytes;
  /** When it was stored, in seconds since the Unix epoch, by the daemon's clock. */
  readonly updated: number;
}

/** A secret's content, where this session's factor may have it; undefined where there is none. */
export async function getSecret(custody: Custody, name: string): Promise<Stored | undefined> {
  const secret = await released(custody, name);
  if (!secret) return undefined;
  const { version, updated } = secret;
  try {
    return { version, updated, content: await openSecret(custody, name, secret) };
  } catch (error) {
    // Sealed perhaps under a device secret that another device has put in the place of the one that is open.
    const isShut = error instanceof CanNotOpen || error instanceof NotReady;
    if (!isShut || !(await followRotation(custody))) throw error;
    return { version, updated, content: await openSecret(custody, name, secret) };
  }
}

/**
 * Takes up what another device has put in the place of the device secret that is open here: nothing is to be sealed under
 * that any more. Returns whether there was such a thing. `getSecret` and `sync` do it by themselves; an app that is open for
 * long does it when it comes to the front.
 *
 * @throws `NotReady` (`locked`) where what is stored does not open here, its cause saying why: a sign-in has to bring it
 */
export async function followRotation(custody: Custody): Promise<boolean> {
  const { unlocked, held } = custody;
  if (unlocked?.locked !== false || custody.member) return false;
  const there = (await listSecrets(custody)).find(({ name }) => name === DEVICE_SECRET);
  if (!there || there.version === held?.version) return false;
  try {
    return (await unlock(custody)) !== unlocked;
  } catch (cause) {
    const isKept = cause instanceof Refused && cause.code === "release-forbidden";
    if (!isKept && !(cause instanceof CanNotOpen)) throw cause;
    custody.held = undefined;
    if (held) tellReplaced(custody, undefined);
    const message = "another device has changed the device secret: sign in again";
    throw new NotReady("locked", message, { cause });
  }
}

/** A secret as the daemon shows it; undefined where there is none. */
export async function released(
  custody: Custody,
  name: string,
): Promise<Schemas["Secret"] | undefined> {
  try {
    const route = "/v1/account/secrets/{name}";
    return await custody.transport.request("get", route, { path: { name } });
  } catch (error) {
    if (error instanceof Refused && error.code === "not-found") return undefined;
    throw error;
  }
}

/**
 * Stores a secret.
 *
 * @param replaces the version that is there; undefined to create it. Otherwise `VersionConflict`.
 * @returns the new version
 */
export async function putSecret(
  custody: Custody,
  name: string,
  content: Bytes,
  replaces: number | undefined,
): Promise<number> {
  const { account } = custody;
  const sealed = await sealedSecret(custody, name, content);
  // The session is of another account by now.
  if (custody.account?.account !== account?.account) throw otherAccount();
  return put(custody, name, replaces, sealed);
}

function sealedOf({ sealed }: Schemas["SecretContent"]): Bytes | undefined {
  return sealed == null ? undefined : fromBase64Url(sealed);
}

/** Writes a secret as it was sealed. */
export async function put(
  custody: Custody,
  name: string,
  replaces: number | undefined,
  body: Schemas["SecretContent"],
): Promise<number> {
  const headers: Record<string, string> =
    replaces === undefined ? { "If-None-Match": "*" } : { "If-Match": `"${replaces}"` };
  const place = placeOf(custody, name);
  const { version } = await custody.transport.request("put", "/v1/account/secrets/{name}", {
    path: { name },
    headers,
    body,
  });
  await noted(custody, place, body.server_slot == null, sealedOf(body));
  return version;
}

/** Names and versions of all secrets. */
export async function listSecrets(custody: Custody): Promise<{ name: string; version: number }[]> {
  const { secrets } = await custody.transport.request("get", "/v1/account/secrets");
  return secrets.map(({ name, version }) => ({ name, version }));
}

/** Deletes the version given. */
export async function deleteSecret(custody: Custody, name: string, version: number): Promise<void> {
  await custody.transport.request("delete", "/v1/account/secrets/{name}", {
    path: { name },
    headers: { "If-Match": `"${version}"` },
  });
}

/** Backs device secret and wrapped key up. What is stored already is left, if it is the same. */
export async function backUp(custody: Custody, unlocked: Unlocked): Promise<void> {
  await (await onDemand()).backingUp(custody, unlocked);
}

/** Brings the app key back within a full session whose factor may have it. */
export async function unlock(custody: Custody): Promise<Unlocked> {
  accountOf(custody);
  const secret = await released(custody, DEVICE_SECRET);
  const wrapped = secret && (await released(custody, APP_KEY));
  if (!wrapped) {
    throw new NotReady("nothing-backed-up", "this account has no backup of its key");
  }
  return unlockWith(custody, secret, wrapped);
}
