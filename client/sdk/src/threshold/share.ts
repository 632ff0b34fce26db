/**
 * A secret split for several realms at one time (a *set*), and one realm's share of it.
 *
 * The manifest says whose the shares are, how many are needed, and commits to each of them, so that a
 * wrong share is known before it is used. Its tag is made with the secret: once enough shares gave
 * one, it shows whether the owner's device wrote this manifest. Only shares with the same manifest and
 * tag are ever combined. Called by `recover.ts` and `refresh.ts`; it asks nobody anything.
 */
import { combine, split } from "shamir-secret-sharing";
import { be32, type Bytes, concat, equal, fromBase64Url, random, sha256 } from "../bytes.js";
import { hkdf, toBase64Url, utf8 } from "../bytes.js";

const FORMAT = "custodyd/sdk/threshold/v1";
const COMMITMENT = "custodyd/sdk/threshold/share/v1";
const MANIFEST = "custodyd/sdk/threshold/manifest/v1";
/** More would not fit into what a policy lets one secret have. */
export const MOST_REALMS = 16;

/** What everybody may know of a set. */
export interface Manifest {
  /** Sixteen random bytes, base64url: no two sets have the same. */
  readonly set: string;
  /** Each set has a higher one than those that its device knew. */
  readonly version: number;
  /** So many shares give the secret, and fewer say nothing of it. */
  readonly threshold: number;
  /** The realm of each share, by its place. */
  readonly realms: readonly string[];
  /** A commitment to each share, base64url. */
  readonly commitments: readonly string[];
  /** The app's private key, encrypted under the secret: what it is all for. */
  readonly wrapped: string;
}

/** One realm's share, as it was read and found to be what its manifest says. */
export interface Share {
  readonly manifest: Manifest;
  /** The manifest as it was written: these bytes are tagged. */
  readonly text: string;
  readonly tag: Bytes;
  /** Place of the realm, from 0. */
  readonly index: number;
  /** Without it, a commitment would let who has all other shares try secrets. */
  readonly salt: Bytes;
  readonly value: Bytes;
}

/** What a set is made of. */
export interface Plan {
  readonly version: number;
  readonly threshold: number;
  readonly realms: readonly string[];
}

/** Whether so many shares of so many realms can be asked for. */
export function isPossible(threshold: number, realms: number): boolean {
  const whole = Number.isSafeInteger(threshold) && Number.isSafeInteger(realms);
  return whole && threshold >= 2 && threshold <= realms && realms <= MOST_REALMS;
}

async function commitment(set: string, index: number, salt: Bytes, value: Bytes): Promise<string> {
  const fields = [utf8(COMMITMENT), utf8(set), be32(index), salt, value];
  return toBase64Url(await sha256(...fields.map((field) => concat(be32(field.length), field))));
}

async function tagKey(secret: Bytes): Promise<CryptoKey> {
  const how = { name: "HMAC", hash: "SHA-256" };
  const key = await hkdf(secret, MANIFEST);
  return crypto.subtle.importKey("raw", key, how, false, ["sign", "verify"]);
}

/** Splits a secret: a fresh polynomial each time, so that shares of two sets have nothing in common. */
export async function splitSecret(secret: Bytes, wrapped: Bytes, plan: Plan): Promise<Share[]> {
  const { threshold, realms, version } = plan;
  if (!isPossible(threshold, realms.length)) throw new RangeError("so it can not be split");
  const values = (await split(secret, realms.length, threshold)).map((one) => new Uint8Array(one));
  const set = toBase64Url(random(16));
  const salts = values.map(() => random(32));
  const made = values.map((value, at) => commitment(set, at, salts[at] ?? random(32), value));
  const commitments = await Promise.all(made);
  const manifest = { set, version, threshold, realms, commitments, wrapped: toBase64Url(wrapped) };
  const text = JSON.stringify({ format: FORMAT, ...manifest });
  const tag = new Uint8Array(await crypto.subtle.sign("HMAC", await tagKey(secret), utf8(text)));
  return values.map((value, index) => {
    return { manifest, text, tag, index, salt: salts[index] ?? random(32), value };
  });
}

/** Whether the owner's device wrote the share's manifest, when it held this secret. */
export async function isOf(secret: Bytes, share: Share): Promise<boolean> {
  return crypto.subtle.verify("HMAC", await tagKey(secret), share.tag, utf8(share.text));
}

/** Whether two shares are of one set. */
export function together(one: Share, other: Share): boolean {
  return one.text === other.text && equal(one.tag, other.tag);
}

/** The secret of enough shares of one set; undefined where it is not the one that was split. */
export async function combineShares(shares: readonly Share[]): Promise<Bytes | undefined> {
  const [first] = shares;
  if (!first || shares.some((share) => !together(first, share))) return undefined;
  if (new Set(shares.map(({ index }) => index)).size < first.manifest.threshold) return undefined;
  let secret: Bytes;
  try {
    secret = new Uint8Array(await combine(shares.map(({ value }) => value)));
  } catch {
    return undefined; // Points of one place, or of two lengths: no device of the owner's made these.
  }
  if (await isOf(secret, first)) return secret;
  secret.fill(0);
  return undefined;
}

/** What a realm keeps: its share, and beside it the one that is being replaced. */
export function writeDocument(shares: readonly Share[]): Bytes {
  const entries = shares.map(({ text, tag, index, salt, value }) => {
    const [t, s, v] = [tag, salt, value].map(toBase64Url);
    return { manifest: text, tag: t, index, salt: s, share: v };
  });
  return utf8(JSON.stringify({ format: FORMAT, shares: entries }));
}

/** What was read of a realm. */
export interface Read {
  /** Those that are what their manifest says, and this realm's. */
  readonly shares: readonly Share[];
  /** Something is not: the realm at fault is the one that gave it. */
  readonly wrong: boolean;
}

/** Of one realm; a refresh that was interrupted leaves two, and several of them a few more. */
const MOST_SHARES = 8;

/** Reads what a realm gave. Whatever it is, this does not throw. */
export async function readDocument(bytes: Bytes, realm: string): Promise<Read> {
  const document = parsed(new TextDecoder().decode(bytes));
  const entries = document?.["shares"];
  if (document?.["format"] !== FORMAT || !Array.isArray(entries) || entries.length === 0) {
    return { shares: [], wrong: true };
  }
  const read = await Promise.all(
    entries.slice(0, MOST_SHARES).map((entry: unknown) => readShare(entry, realm)),
  );
  // One of each set: a share that is shown twice is still one.
  const shares = read
    .filter((share) => share !== undefined)
    .filter((share, at, all) => all.findIndex((other) => together(share, other)) === at);
  return { shares, wrong: shares.length < entries.length };
}

function parsed(text: unknown): Record<string, unknown> | undefined {
  if (typeof text !== "string") return undefined;
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}

async function readShare(entry: unknown, realm: string): Promise<Share | undefined> {
  const {
    manifest: text,
    tag: t,
    index,
    salt: s,
    share: v,
  } = (entry ?? {}) as Record<string, unknown>;
  const [tag, salt, value] = [bytes(t), bytes(s), bytes(v)];
  const manifest = readManifest(text);
  if (!manifest || tag?.length !== 32 || salt?.length !== 32 || !value) return undefined;
  if (typeof index !== "number" || manifest.realms[index] !== realm) return undefined;
  const made = await commitment(manifest.set, index, salt, value);
  if (manifest.commitments[index] !== made) return undefined;
  return { manifest, text: text as string, tag, index, salt, value };
}

function bytes(text: unknown): Bytes | undefined {
  return typeof text === "string" ? fromBase64Url(text) : undefined;
}

function readManifest(text: unknown): Manifest | undefined {
  const { format, ...said } = parsed(text) ?? {};
  const { set, version, threshold, realms, commitments, wrapped } = said;
  const texts = (list: unknown): list is string[] =>
    Array.isArray(list) && list.every((one) => typeof one === "string");
  if (format !== FORMAT || typeof set !== "string" || typeof wrapped !== "string") return undefined;
  if (typeof version !== "number" || !Number.isSafeInteger(version) || version < 1)
    return undefined;
  if (typeof threshold !== "number" || !texts(realms) || !texts(commitments)) return undefined;
  if (!isPossible(threshold, realms.length) || commitments.length !== realms.length)
    return undefined;
  if (new Set(realms).size !== realms.length) return undefined;
  return { set, version, threshold, realms, commitments, wrapped };
}
