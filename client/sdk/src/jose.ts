/**
 * JSON Web Keys and Signatures on P-256: RFC 7515, 7517, 7638, all ES256.
 *
 * Used by proofs (`dpop.ts`), keys (`keys.ts`) and receipts. It never sees a private key's bytes.
 */
import { type Bytes, fromBase64Url, fromUtf8, sha256, toBase64Url, utf8 } from "./bytes.js";

/** A public P-256 key. */
export interface PublicJwk {
  readonly kty: "EC";
  readonly crv: "P-256";
  readonly x: string;
  readonly y: string;
}

const CURVE = { name: "ECDSA", namedCurve: "P-256" } as const;
/** How WebCrypto signs and verifies ES256. */
export const ES256 = { name: "ECDSA", hash: "SHA-256" } as const;

/** The public members of a JWK, in the order of RFC 7638; undefined where it is no P-256 key. */
export function publicJwk(jwk: unknown): PublicJwk | undefined {
  const { kty, crv, x, y } = (jwk ?? {}) as Record<string, unknown>;
  const coordinate = (value: unknown): value is string =>
    typeof value === "string" && fromBase64Url(value)?.length === 32;
  if (kty !== "EC" || crv !== "P-256" || !coordinate(x) || !coordinate(y)) return undefined;
  return { kty, crv, x, y };
}

/** RFC 7638 thumbprint of exactly these members, base64url. */
export async function thumbprintOf(members: Readonly<Record<string, string>>): Promise<string> {
  // In lexicographic order and without a blank: exactly these bytes are hashed.
  const sorted = Object.entries(members).sort(([one], [other]) => (one < other ? -1 : 1));
  return toBase64Url(await sha256(utf8(JSON.stringify(Object.fromEntries(sorted)))));
}

/** RFC 7638 thumbprint of a P-256 key, base64url. */
export async function thumbprint(jwk: PublicJwk): Promise<string> {
  const { crv, kty, x, y } = jwk;
  return thumbprintOf({ crv, kty, x, y });
}

/** The public half of a WebCrypto key. */
export async function exportPublic(key: CryptoKey): Promise<PublicJwk> {
  const jwk = publicJwk(await crypto.subtle.exportKey("jwk", key));
  if (!jwk) throw new TypeError("not a P-256 public key");
  return jwk;
}

/** A key that verifies. */
export async function importPublic(jwk: PublicJwk): Promise<CryptoKey> {
  const { kty, crv, x, y } = jwk;
  return crypto.subtle.importKey("jwk", { kty, crv, x, y }, CURVE, true, ["verify"]);
}

/** A fresh key pair. The private half leaves the browser only where `extractable`. */
export async function generate(extractable: boolean): Promise<CryptoKeyPair> {
  return crypto.subtle.generateKey(CURVE, extractable, ["sign", "verify"]);
}

/** A private key from PKCS#8. */
export async function importPrivate(pkcs8: Bytes, extractable: boolean): Promise<CryptoKey> {
  return crypto.subtle.importKey("pkcs8", pkcs8, CURVE, extractable, ["sign"]);
}

/** A compact JWS; WebCrypto's ECDSA signature is r and s, as JWS wants it. */
export async function signJws(key: CryptoKey, header: object, claims: object): Promise<string> {
  const encode = (part: object): string => toBase64Url(utf8(JSON.stringify(part)));
  const input = `${encode(header)}.${encode(claims)}`;
  const signature = await crypto.subtle.sign(ES256, key, utf8(input));
  return `${input}.${toBase64Url(new Uint8Array(signature))}`;
}

/** A JWS in its parts, of which nothing was verified. */
export interface ParsedJws {
  readonly header: Record<string, unknown>;
  readonly claims: Record<string, unknown>;
  readonly input: Bytes;
  readonly signature: Bytes;
}

/** Takes a compact JWS apart; undefined where it is none. */
export function parseJws(text: string): ParsedJws | undefined {
  const parts = text.split(".");
  const [header, claims, signature] = parts.map(fromBase64Url);
  if (parts.length !== 3 || !header || !claims || signature?.length !== 64) return undefined;
  try {
    return {
      header: object(JSON.parse(fromUtf8(header))),
      claims: object(JSON.parse(fromUtf8(claims))),
      input: utf8(text.slice(0, text.lastIndexOf("."))),
      signature,
    };
  } catch {
    return undefined;
  }
}

/** Whether the signature is this key's. */
export async function verifies(jwk: PublicJwk, signature: Bytes, input: Bytes): Promise<boolean> {
  try {
    return await crypto.subtle.verify(ES256, await importPublic(jwk), signature, input);
  } catch {
    return false; // Not a point of the curve.
  }
}

function object(value: unknown): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new TypeError();
  return value as Record<string, unknown>;
}
