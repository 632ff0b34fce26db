/**
 * DPoP proofs (RFC 9449), with the claim `body_sha256` that custodyd adds, and app key proofs.
 *
 * Called by `transport.ts` for each request and by enrolment. The key is the device's own, which
 * WebCrypto does not give out.
 */
import { random, sha256, toBase64Url, utf8 } from "./bytes.js";
import { type PublicJwk, signJws } from "./jose.js";

/** A key pair that signs, and the public half that goes into headers. */
export interface SigningKey {
  readonly privateKey: CryptoKey;
  readonly jwk: PublicJwk;
}

/** What one proof is about. */
export interface ProofInput {
  readonly method: string;
  /** Absolute; query and fragment are left out of the claim. */
  readonly url: string;
  readonly nonce: string | undefined;
  /** The session token of the request. */
  readonly token: string | undefined;
  /** Exactly the bytes that are sent; undefined for a GET. */
  readonly body: Uint8Array | undefined;
  /** Seconds since the Unix epoch, by the daemon's clock as far as it is known. */
  readonly now: number;
}

async function hash(bytes: Uint8Array): Promise<string> {
  return toBase64Url(await sha256(bytes));
}

/** A proof for one request. It is good once. */
export async function dpopProof(key: SigningKey, about: ProofInput): Promise<string> {
  const url = about.url.split(/[?#]/, 1)[0];
  const claims: Record<string, unknown> = {
    jti: toBase64Url(random(16)),
    htm: about.method,
    htu: url,
    iat: about.now,
  };
  if (about.nonce !== undefined) claims["nonce"] = about.nonce;
  if (about.token !== undefined) claims["ath"] = await hash(utf8(about.token));
  if (about.method !== "GET") claims["body_sha256"] = await hash(about.body ?? new Uint8Array());
  return signJws(key.privateKey, { typ: "dpop+jwt", alg: "ES256", jwk: key.jwk }, claims);
}
