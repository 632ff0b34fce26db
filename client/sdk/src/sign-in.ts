/**
 * Ways in: the device key alone, PIN, passkey, TOTP, delivered code, recovery code.
 *
 * Each opens a session and, unless asked otherwise, brings device secret and app key back with it
 * (`custody.unlocked`). Guesses are charged by the daemon before it looks at them; a wrong one is a
 * `WrongGuess` that says how many are left.
 */
import { toBase64Url } from "./bytes.js";
import { type Custody, lock } from "./custody.js";
import { NotReady, Refused } from "./errors.js";
import type { PinOptions } from "./factors.js";
import { renewOffline } from "./offline/slots.js";
import { accountOf, afterwards, boundAccount, takeSession } from "./session.js";
import type { SignedIn } from "./session.js";
import { onDemand } from "./tools.js";
import type { Schemas } from "./transport.js";
import { APP_KEY, DEVICE_SECRET } from "./vault.js";
import { type PrfKey, usePasskey } from "./webauthn.js";

/** What a sign-in brings. */
export interface SignInOptions {
  /** Secrets to return with the session. Default: those that unlock the app key. `[]` for none. */
  readonly release?: readonly string[];
  /** Binds this device to the account in the same step, under this name. */
  readonly bindDevice?: string;
  /** Which account is meant. Default: the one that this device knows. */
  readonly account?: string;
}

function more(options: SignInOptions): { release: string[]; bind_device?: Schemas["BindDevice"] } {
  const release = [...(options.release ?? [DEVICE_SECRET, APP_KEY])];
  return options.bindDevice === undefined
    ? { release }
    : { release, bind_device: { name: options.bindDevice } };
}

/** What was used unlocks offline again, where it did before another device has replaced the device secret. */
async function withOffline(
  custody: Custody,
  signedIn: SignedIn,
  used: string | PrfKey | undefined,
): Promise<SignedIn> {
  if (!used) return signedIn;
  const late = await afterwards("offline", () => renewOffline(custody, used));
  return { ...signedIn, undone: [...signedIn.undone, ...late] };
}

/** A read-only session. Asks the owner for nothing; works on a bound device. */
export async function openReadOnly(
  custody: Custody,
  options: Pick<SignInOptions, "release"> = {},
): Promise<SignedIn> {
  const account = accountOf(custody);
  const { transport } = custody;
  const { session } = transport;
  const body = { account, release: [...(options.release ?? [])] };
  const route = "/v1/apps/{app}/sessions/device";
  const answer = await transport.request("post", route, { body });
  // Of an owner who has signed in meanwhile, or out, it changes nothing.
  const isLate = () => transport.session !== session;
  return takeSession(custody, answer, undefined, account, isLate);
}

/**
 * Signs in with the PIN, on a bound device. The PIN stays on this device (OPAQUE), unless `onServer` says
 * that it was set the other way: `pin-other-way` tells which it is.
 */
export async function signInWithPin(
  custody: Custody,
  pin: string,
  options: Pick<SignInOptions, "release" | "account"> & PinOptions = {},
): Promise<SignedIn> {
  const { transport } = custody;
  const account = options.account ?? accountOf(custody);
  const { release } = more(options);
  if (options.onServer) {
    const body = { account, pin, release };
    const route = "/v1/apps/{app}/sessions/pin";
    const answer = await transport.request("post", route, { body });
    return withOffline(custody, await takeSession(custody, answer, undefined, account), pin);
  }
  const start = "/v1/apps/{app}/sessions/opaque/start";
  const { end, key } = await (
    await onDemand()
  ).login(pin, (ke1) => transport.request("post", start, { body: { account, ke1 } }));
  const route = "/v1/apps/{app}/sessions/opaque/finish";
  const answer = await transport.request("post", route, { body: { ...end, release } });
  return withOffline(custody, await takeSession(custody, answer, key, account), pin);
}

/**
 * Signs in with a passkey, from any device: on a new one the passkey finds the account.
 *
 * @param options.anyAccount it does so on a device that is bound to one, too, which may be another one than that
 */
export async function signInWithPasskey(
  custody: Custody,
  options: Omit<SignInOptions, "account"> & {
    readonly signal?: AbortSignal;
    readonly anyAccount?: boolean;
  } = {},
): Promise<SignedIn> {
  const account = options.anyAccount ? undefined : boundAccount(custody);
  const { ceremony, publicKey } = await custody.transport.request(
    "post",
    "/v1/apps/{app}/sessions/passkey/options",
    { body: account === undefined ? {} : { account } },
  );
  const used = await usePasskey(publicKey, options.signal);
  const body = { ceremony, credential: used.credential as never, ...more(options) };
  const route = "/v1/apps/{app}/sessions/passkey";
  const answer = await custody.transport.request("post", route, { body });
  const key = used.prf && ({ type: "prf", material: used.prf.output } as const);
  const prf = used.prf && { ...used.prf, deviceId: answer.credential ?? undefined };
  const signedIn = await takeSession(custody, answer, key, account);
  return { ...(await withOffline(custody, signedIn, prf)), prf };
}

/** Signs in with a code of an authenticator app, on a bound device. */
export async function signInWithTotp(
  custody: Custody,
  code: string,
  options: Pick<SignInOptions, "release" | "account"> = {},
): Promise<SignedIn> {
  const account = options.account ?? accountOf(custody);
  const body = { account, code, release: more(options).release };
  const route = "/v1/apps/{app}/sessions/totp";
  const answer = await custody.transport.request("post", route, { body });
  return takeSession(custody, answer, undefined, account);
}

/**
 * Signs in with a recovery code, from any device. The code is used up. A slip of the pen is found
 * here (`code-mistyped`) and costs nothing.
 */
export async function signInWithRecoveryCode(
  custody: Custody,
  typed: string,
  options: SignInOptions = {},
): Promise<SignedIn> {
  const { codeCredential, parseRecoveryCode } = await onDemand();
  const { auth, slot: material } = await parseRecoveryCode(typed);
  const code = toBase64Url(auth);
  const account = options.account ?? accountOf(custody);
  const body = { account, code, ...more(options) };
  const route = "/v1/apps/{app}/sessions/recovery-code";
  const answer = await custody.transport.request("post", route, { body });
  const credential = await codeCredential(auth);
  return takeSession(custody, answer, { type: "recovery-code", credential, material }, account);
}

/** Who is meant, where a device may not know its account: by identifier, or by address or name. */
export type Who = { readonly account: string } | { readonly alias: string };

/**
 * Asks for a code at the owner's contact. The answer is the same whether there is such an account
 * or not: how long a code is good, in seconds.
 */
export async function requestCode(
  custody: Custody,
  who: Who,
  channel?: "email" | "sms",
): Promise<number> {
  const body = channel === undefined ? { ...who } : { ...who, channel };
  const answer = await custody.transport.request("post", "/v1/apps/{app}/otp", { body });
  return answer.valid_for;
}

/**
 * Signs in with a delivered code. On a device that is not bound the scope is mostly `pin-only`:
 * go on with `continueWithPin`, or with `setPin` where the PIN is forgotten and then that.
 */
export async function signInWithCode(
  custody: Custody,
  who: Who,
  code: string,
  options: Omit<SignInOptions, "account"> = {},
): Promise<SignedIn> {
  const { release, ...bind } = more({ ...options, release: options.release ?? [] });
  const body = { ...who, code: code.trim(), release, ...bind };
  const route = "/v1/apps/{app}/sessions/otp";
  const answer = await custody.transport.request("post", route, { body });
  return takeSession(custody, answer, undefined, "account" in who ? who.account : undefined);
}

/** Makes a full session of one of scope `pin-only`. */
export async function continueWithPin(
  custody: Custody,
  pin: string,
  options: Omit<SignInOptions, "account"> & PinOptions = {},
): Promise<SignedIn> {
  const { transport } = custody;
  const account = custody.account?.account;
  if (options.onServer) {
    const body = { pin, ...more(options) };
    const answer = await transport.request("post", "/v1/session/pin", { body });
    return withOffline(custody, await takeSession(custody, answer, undefined, account), pin);
  }
  const start = "/v1/session/opaque/start";
  const { end, key } = await (
    await onDemand()
  ).login(pin, (ke1) => transport.request("post", start, { body: { ke1 } }));
  const body = { ...end, ...more(options) };
  const answer = await transport.request("post", "/v1/session/opaque/finish", { body });
  return withOffline(custody, await takeSession(custody, answer, key, account), pin);
}

/** Renews the session's idle time. The absolute end stays. */
export async function refreshSession(custody: Custody): Promise<void> {
  const { transport } = custody;
  const { session } = transport;
  if (!session) throw new NotReady("not-signed-in", "there is no session to refresh");
  const next = await transport.request("post", "/v1/session/refresh");
  // Of another account's, which was signed in to meanwhile, it is none.
  if (transport.session === session) transport.session = next;
}

/**
 * Ends this device's sessions, or those of all devices, and locks the app key. Where nobody has answered, the session stays that can
 * end those of all devices; this device's own is let go in any case.
 */
export async function signOut(
  custody: Custody,
  where: "here" | "everywhere" = "here",
): Promise<void> {
  lock(custody);
  const { transport } = custody;
  const isHere = where === "here";
  if (!transport.session) {
    if (isHere) return;
    throw new NotReady("not-signed-in", "sign in first, to end all sessions");
  }
  let isOver = isHere;
  try {
    await transport.request("delete", isHere ? "/v1/session" : "/v1/sessions");
    isOver = true;
  } catch (error) {
    const isRefused = error instanceof Refused && error.status === 401;
    isOver ||= isRefused;
    // A session that is over already needs no end. It has ended no others.
    if (!isRefused || !isHere) throw error;
  } finally {
    if (isOver) transport.session = undefined;
  }
}
