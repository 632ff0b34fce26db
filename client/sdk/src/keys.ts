/**
 * The app key and the device secret that wraps it.
 *
 * The private key rests encrypted under a key that is derived from the device secret, and the
 * device secret does not rest on the device at all. `Unlocked` holds both in memory until `lock()`.
 */
import { type Bytes, concat, hkdf, random, utf8 } from "./bytes.js";
import type { SigningKey } from "./dpop.js";
import { CanNotOpen, NotReady } from "./errors.js";
import { ES256, exportPublic, generate, importPrivate, publicJwk, thumbprint } from "./jose.js";
import type { PublicJwk } from "./jose.js";

/** Bytes of a device secret. */
export const SECRET_BYTES = 32;
const VERSION = 1;
const IV_BYTES = 12;

/** An AES-256-GCM key that WebCrypto does not give out. */
export async function aesKey(bytes: Bytes): Promise<CryptoKey> {
  return crypto.subtle.importKey("raw", bytes, "AES-GCM", false, ["encrypt", "decrypt"]);
}

/** Version, a fresh IV, and AES-GCM over `plain`; `label` says what it is and is authenticated. */
export async function seal(key: CryptoKey, label: string, plain: Bytes): Promise<Bytes> {
  const iv = random(IV_BYTES);
  const how = { name: "AES-GCM", iv, additionalData: utf8(label) };
  const sealed = await crypto.subtle.encrypt(how, key, plain);
  return concat(new Uint8Array([VERSION]), iv, new Uint8Array(sealed));
}

/** What `seal` sealed under this key, or one of these, and label; undefined for anything else. */
export async function open(
  keys: CryptoKey | readonly CryptoKey[],
  label: string,
  sealed: Bytes,
): Promise<Bytes | undefined> {
  if (sealed[0] !== VERSION) return undefined;
  const iv = sealed.slice(1, 1 + IV_BYTES);
  const how = { name: "AES-GCM", iv, additionalData: utf8(label) };
  for (const key of [keys].flat()) {
    try {
      return new Uint8Array(await crypto.subtle.decrypt(how, key, sealed.slice(1 + IV_BYTES)));
    } catch {
      // Another key's, perhaps.
    }
  }
  return undefined;
}

export const WRAPPED = "custodyd/sdk/app-key/v1";
const DATA = "custodyd/sdk/data/v1/";

/** The device secrets that an account has had, the newest first: with `rotateSecret` there is one more. Views, wiped with the whole. */
export function each(secret: Bytes): Bytes[] {
  return Array.from({ length: secret.length / SECRET_BYTES }, (_, at) =>
    secret.subarray(at * SECRET_BYTES, (at + 1) * SECRET_BYTES),
  );
}

/** The key that wraps the private key: the newest secret's. */
export async function wrappingKey(secret: Bytes): Promise<CryptoKey> {
  return aesKey(await hkdf(secret.subarray(0, SECRET_BYTES), WRAPPED));
}

/** A key of each, the newest first. */
const keysOf = (secrets: Bytes, label: string): Promise<CryptoKey[]> =>
  Promise.all(each(secrets).map(async (secret) => aesKey(await hkdf(secret, label))));

/** Whether one of these device secrets wraps a key. */
export async function opensKept(secrets: Bytes, wrapped: Bytes): Promise<boolean> {
  return !!(await open(await keysOf(secrets, WRAPPED), WRAPPED, wrapped))?.fill(0);
}

/** The app's private key and the device secret, in memory, until `lock()`. */
export class Unlocked implements SigningKey {
  #secret: Bytes | undefined;
  #privateKey: CryptoKey | undefined;

  private constructor(
    secret: Bytes,
    privateKey: CryptoKey,
    readonly jwk: PublicJwk,
    /** RFC 7638 thumbprint of the app key: its device identifier. */
    readonly thumbprint: string,
    /** The private key, encrypted under the device secret. */
    readonly wrapped: Bytes,
  ) {
    [this.#secret, this.#privateKey] = [secret, privateKey];
  }

  /** A new app key under a new device secret. */
  static async create(): Promise<Unlocked> {
    const secret = random(SECRET_BYTES);
    const pair = await generate(true);
    const pkcs8 = new Uint8Array(await crypto.subtle.exportKey("pkcs8", pair.privateKey));
    const wrapped = await seal(await wrappingKey(secret), WRAPPED, pkcs8);
    pkcs8.fill(0);
    return Unlocked.open(secret, wrapped);
  }

  /** The key that `wrapped` holds. */
  static async open(secret: Bytes, wrapped: Bytes): Promise<Unlocked> {
    const pkcs8 = await open(await wrappingKey(secret), WRAPPED, wrapped);
    if (!pkcs8) {
      throw new CanNotOpen("secret-damaged", "this device secret does not open this private key");
    }
    // WebCrypto has no way from a private key to its public one but through an export.
    const exportable = await importPrivate(pkcs8, true);
    const jwk = publicJwk(await crypto.subtle.exportKey("jwk", exportable));
    const key = await importPrivate(pkcs8, false);
    pkcs8.fill(0);
    if (!jwk) throw new CanNotOpen("secret-damaged", "the private key is none on P-256");
    return new Unlocked(secret.slice(), key, jwk, await thumbprint(jwk), wrapped);
  }

  /** Whether it can still be used. */
  get locked(): boolean {
    return this.#secret === undefined;
  }

  /** The device secret, with those of before behind it: to back it up, or to seal it into a slot. */
  get secret(): Bytes {
    return this.#open(this.#secret);
  }

  /** Signs; WebCrypto does not give it out. */
  get privateKey(): CryptoKey {
    return this.#open(this.#privateKey);
  }

  #open<T>(kept: T | undefined): T {
    if (kept === undefined) throw new NotReady("locked", "this key was locked; unlock it again");
    return kept;
  }

  /** An ECDSA signature (r and s) over SHA-256 of the data. */
  async sign(data: Bytes): Promise<Bytes> {
    return new Uint8Array(await crypto.subtle.sign(ES256, this.privateKey, data));
  }

  /**
   * A key for the app's own data, derived from the device secret: the same on all devices of the
   * account. It is not extractable, and may be kept in IndexedDB where reading shall ask for nothing.
   */
  async dataKey(purpose: string): Promise<CryptoKey> {
    const [newest] = await this.dataKeys(purpose);
    return newest as CryptoKey;
  }

  /** The same, and those of the device secrets of before behind it: they open what was sealed before `rotateSecret`. */
  dataKeys(purpose: string): Promise<CryptoKey[]> {
    return keysOf(this.secret, DATA + purpose);
  }

  /** Wipes the device secret, and lets the private key go. */
  lock(): void {
    this.#secret?.fill(0);
    this.#secret = this.#privateKey = undefined;
  }
}

/** A signing key pair with its public half as a JWK. */
export async function signingKey(
  pair: CryptoKeyPair,
): Promise<SigningKey & { thumbprint: string }> {
  const jwk = await exportPublic(pair.publicKey);
  return { privateKey: pair.privateKey, jwk, thumbprint: await thumbprint(jwk) };
}
