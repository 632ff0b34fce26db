/**
 * Byte strings, their texts, and the hashes that everything else is made of.
 *
 * Used by all modules. It never logs and never keeps what it is given.
 */

/** Bytes in a buffer of their own, as WebCrypto and IndexedDB want them. */
export type Bytes = Uint8Array<ArrayBuffer>;

/** UTF-8 of a text. */
export function utf8(text: string): Bytes {
  return new Uint8Array(new TextEncoder().encode(text));
}

/** The text of UTF-8 bytes; throws where they are none. */
export function fromUtf8(bytes: Uint8Array): string {
  return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
}

/** A copy with a buffer of its own, whatever kind of view it was. */
export function bytesOf(source: ArrayBuffer | ArrayBufferView): Bytes {
  return source instanceof ArrayBuffer
    ? new Uint8Array(source.slice(0))
    : new Uint8Array(new Uint8Array(source.buffer, source.byteOffset, source.byteLength));
}

/** Base64 with padding (RFC 4648, section 4). */
export function toBase64(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}

/** The bytes of a base64 text, or undefined for anything that `toBase64` would not write. */
export function fromBase64(text: string): Bytes | undefined {
  try {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return toBase64(bytes) === text ? bytes : undefined;
  } catch {
    return undefined;
  }
}

/** Base64url without padding (RFC 4648, section 5). */
export function toBase64Url(bytes: Uint8Array): string {
  return toBase64(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** The bytes of a base64url text, or undefined for anything that `toBase64Url` would not write. */
export function fromBase64Url(text: string): Bytes | undefined {
  if (/[^A-Za-z0-9_-]/.test(text)) return undefined;
  const padded = text.replaceAll("-", "+").replaceAll("_", "/");
  return fromBase64(padded + "=".repeat((4 - (padded.length % 4)) % 4));
}

/** One after another. */
export function concat(...parts: Uint8Array[]): Bytes {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Whether two byte strings are the same. For public values: it takes no constant time. */
export function equal(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, at) => byte === other[at]);
}

/** One after another, each with its length before it: no two lists have the same bytes. */
export function fields(...parts: readonly (string | Uint8Array)[]): Bytes {
  const whole = parts.map((part) => (typeof part === "string" ? utf8(part) : part));
  return concat(...whole.flatMap((part) => [be32(part.length), part]));
}

/** A number as four bytes, the highest first. */
export function be32(number: number): Bytes {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, number);
  return bytes;
}

/** A whole number as eight bytes, the highest first. */
export function be64(number: number): Bytes {
  return concat(be32(Math.floor(number / 2 ** 32)), be32(number % 2 ** 32));
}

/** Lower-case hexadecimal. */
export function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Random bytes of the platform. */
export function random(length: number): Bytes {
  return crypto.getRandomValues(new Uint8Array(length));
}

/** SHA-256. */
export async function sha256(...parts: Uint8Array[]): Promise<Bytes> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", concat(...parts)));
}

/** HKDF-SHA-256 (RFC 5869) of 32 bytes, without a salt unless one is given. */
export async function hkdf(
  secret: Bytes,
  info: string | Bytes,
  salt: Bytes = new Uint8Array(),
): Promise<Bytes> {
  const key = await crypto.subtle.importKey("raw", secret, "HKDF", false, ["deriveBits"]);
  const how = {
    name: "HKDF",
    hash: "SHA-256",
    salt,
    info: typeof info === "string" ? utf8(info) : info,
  };
  return new Uint8Array(await crypto.subtle.deriveBits(how, key, 256));
}
