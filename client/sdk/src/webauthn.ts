/**
 * The browser's authenticator: options in, answer out, and the PRF output kept here.
 *
 * `credential.toJSON()` of a browser contains the PRF output, which is a key of the owner's, and
 * what other extensions gave. The answer is written member by member instead, of what the daemon
 * reads, so that nothing else can be sent by mistake.
 */
import { type Bytes, bytesOf, fromBase64Url, random, toBase64Url } from "./bytes.js";
import { PasskeyFailed } from "./errors.js";

/** What an authenticator answered. */
export interface Ceremony {
  /** For the daemon, without what any extension gave but for what it reads. */
  readonly credential: Record<string, unknown>;
  /** Identifier of the credential, base64url. */
  readonly id: string;
  /** What seals on this device; undefined where the authenticator has no PRF. */
  readonly prf: PrfKey | undefined;
  /** Whether it said that it has PRF. */
  readonly prfEnabled: boolean;
}

/** A PRF output, and how to ask the same passkey for it again. Never to be sent. */
export interface PrfKey {
  readonly credentialId: string;
  readonly output: Bytes;
  /** The PRF input, base64url: constant for the app. */
  readonly salt: string;
  /** The relying party of the passkey. */
  readonly rpId: string;
  /** The passkey's device identifier at the daemon, once that has told it. */
  readonly deviceId?: string | undefined;
}

/** As JSON. */
export type Options = Record<string, unknown>;

/** Base64url of the options. */
export function decoded(value: unknown): Bytes {
  const bytes = typeof value === "string" ? fromBase64Url(value) : undefined;
  if (!bytes) throw new PasskeyFailed("passkey-failed", "the passkey options hold no base64url");
  return bytes;
}

/** Which passkeys. */
export function descriptors(list: unknown): object[] {
  return Array.isArray(list)
    ? (list as Options[]).map((one) => ({ ...one, id: decoded(one["id"]) }))
    : [];
}

/** The PRF input, as bytes; other extensions as they are. */
export function extensions(given: unknown): Options {
  const { prf, ...rest } = (given ?? {}) as Options;
  const first = (prf as { eval?: { first?: unknown } } | undefined)?.eval?.first;
  return first === undefined ? rest : { ...rest, prf: { eval: { first: decoded(first) } } };
}

/** The browser's. */
export function credentials(): CredentialsContainer {
  if (typeof navigator === "undefined" || !("credentials" in navigator)) {
    throw new PasskeyFailed("passkey-unsupported", "this browser has no passkeys");
  }
  return navigator.credentials;
}

/** What the authenticator gave. */
export async function asked(ask: () => Promise<Credential | null>): Promise<PublicKeyCredential> {
  let credential: Credential | null;
  try {
    credential = await ask();
  } catch (cause) {
    if (cause instanceof PasskeyFailed) throw cause;
    throw failure(cause);
  }
  if (!(credential instanceof PublicKeyCredential)) {
    throw new PasskeyFailed("passkey-cancelled", "no passkey was given");
  }
  return credential;
}

function failure(cause: unknown): PasskeyFailed {
  const { name, message } = cause instanceof Error ? cause : { name: "", message: String(cause) };
  const more = { cause };
  if (name === "NotAllowedError" || name === "AbortError") {
    return new PasskeyFailed("passkey-cancelled", "the passkey was not confirmed", more);
  }
  if (name === "InvalidStateError") {
    return new PasskeyFailed(
      "passkey-exists",
      "this device holds a passkey of this account already",
      more,
    );
  }
  if (name === "NotSupportedError" || name === "ConstraintError") {
    return new PasskeyFailed(
      "passkey-unsupported",
      "the authenticator can not do what is needed",
      more,
    );
  }
  return new PasskeyFailed("passkey-failed", `the passkey failed (${name}: ${message})`, more);
}

function prfKey(
  options: Options,
  id: string,
  output: ArrayBuffer | ArrayBufferView | undefined,
): PrfKey | undefined {
  const asked = options["extensions"] as { prf?: { eval?: { first?: string } } } | undefined;
  const salt = asked?.prf?.eval?.first;
  const rpId = options["rpId"] ?? (options["rp"] as Options | undefined)?.["id"];
  if (output === undefined || salt === undefined || typeof rpId !== "string") return undefined;
  return { credentialId: id, output: bytesOf(output), salt, rpId };
}

/** For the daemon, and the PRF output by itself. */
export function answer(
  asked: Options,
  credential: PublicKeyCredential,
  response: Options,
): Ceremony {
  const { prf, credProps } = credential.getClientExtensionResults() as {
    prf?: { enabled?: boolean; results?: { first?: ArrayBuffer | ArrayBufferView } };
    credProps?: { rk?: unknown };
  };
  const rk = credProps?.rk;
  return {
    id: credential.id,
    prf: prfKey(asked, credential.id, prf?.results?.first),
    prfEnabled: prf?.enabled ?? false,
    credential: {
      id: credential.id,
      rawId: text(credential.rawId),
      type: credential.type,
      response,
      // What the daemon reads, and nothing else: others' results, as those of PRF, can be keys of the owner's.
      clientExtensionResults: typeof rk === "boolean" ? { credProps: { rk } } : {},
    },
  };
}

/** Base64url. */
export const text = (buffer: ArrayBuffer): string => toBase64Url(new Uint8Array(buffer));

/** `navigator.credentials.get` with the daemon's options, or with this device's own when offline. */
export async function usePasskey(publicKey: Options, signal?: AbortSignal): Promise<Ceremony> {
  const options = {
    ...publicKey,
    challenge: decoded(publicKey["challenge"]),
    allowCredentials: descriptors(publicKey["allowCredentials"]),
    extensions: extensions(publicKey["extensions"]),
  } as unknown as PublicKeyCredentialRequestOptions;
  const credential = await asked(() =>
    credentials().get({ publicKey: options, ...(signal ? { signal } : {}) }),
  );
  const response = credential.response as AuthenticatorAssertionResponse;
  return answer(publicKey, credential, {
    clientDataJSON: text(response.clientDataJSON),
    authenticatorData: text(response.authenticatorData),
    signature: text(response.signature),
    userHandle: response.userHandle ? text(response.userHandle) : null,
  });
}

/** The PRF output of one of these passkeys, asked for on this device: nobody verifies the assertion. */
export async function usePrf(
  rpId: string,
  salt: string,
  ids: readonly string[],
  signal?: AbortSignal,
): Promise<Ceremony> {
  const options = {
    challenge: toBase64Url(random(32)),
    rpId,
    userVerification: "required",
    allowCredentials: ids.map((id) => ({ type: "public-key", id })),
    extensions: { prf: { eval: { first: salt } } },
  };
  return usePasskey(options, signal);
}
