/**
 * The realm keys that an app pins, and what they sign: checkpoints (C2SP signed notes) and bindings.
 *
 * Pin them in the app's own code or configuration. A key that is fetched from the daemon together
 * with what it verifies proves nothing.
 */
import { type Bytes, concat, fromBase64, fromBase64Url, sha256, toHex, utf8 } from "../bytes.js";
import { Untrusted } from "../errors.js";
import { parseJws, type PublicJwk, publicJwk, thumbprint, verifies } from "../jose.js";

/** A realm and its public keys, as its `/.well-known/jwks.json` lists them. */
export interface RealmTrust {
  /** `realm.name` of the daemon's configuration. */
  readonly name: string;
  /** The `keys` of the JWK set. */
  readonly keys: readonly object[];
}

/** What a checkpoint says, once its signature was verified. */
export interface Checkpoint {
  /** Raised when the realm's database was restored. */
  readonly epoch: number;
  readonly size: number;
  readonly root: Bytes;
  /** The signed note, word for word. */
  readonly note: string;
}

/** The claims of a binding. */
export interface Binding {
  readonly iss: string;
  readonly app: string;
  readonly sub: string;
  readonly device_id: string;
  readonly kind: string;
  readonly iat: number;
}

/** SubjectPublicKeyInfo of a P-256 key, up to the point (RFC 5480). */
const SPKI = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
const SPKI_HEAD = Uint8Array.from(SPKI.match(/../g) ?? [], (pair) => parseInt(pair, 16));

function keysFor(realm: RealmTrust, use: string): PublicJwk[] {
  const meant = realm.keys.filter((key) => (key as { use?: unknown }).use === use);
  return meant.map(publicJwk).filter((key) => key !== undefined);
}

async function noteKeyId(key: PublicJwk): Promise<string> {
  const [x, y] = [fromBase64Url(key.x), fromBase64Url(key.y)];
  if (!x || !y) return "";
  const hash = await sha256(SPKI_HEAD, new Uint8Array([4]), x, y);
  return toHex(hash.subarray(0, 4));
}

/** r and s, 32 bytes each, of an ECDSA signature in DER. */
export function rawSignature(der: Uint8Array): Bytes | undefined {
  const integer = (at: number): Bytes | undefined => {
    const length = der[at + 1] ?? 0;
    if (der[at] !== 2 || length === 0 || length > 33) return undefined;
    const bytes = der.subarray(at + 2, at + 2 + length);
    if (bytes.length !== length || (bytes[0] ?? 0) > 127) return undefined;
    // DER has one way to write a number: a zero in front only before a high bit.
    if (bytes[0] === 0 && length > 1 && (bytes[1] ?? 0) < 128) return undefined;
    const digits = bytes[0] === 0 ? bytes.subarray(1) : bytes;
    return digits.length > 32 ? undefined : concat(new Uint8Array(32 - digits.length), digits);
  };
  if (der[0] !== 0x30 || der[1] !== der.length - 2) return undefined;
  const r = integer(2);
  const at = 4 + (der[3] ?? 0);
  const s = integer(at);
  if (!r || !s || at + 2 + (der[at + 1] ?? 0) !== der.length) return undefined;
  return concat(r, s);
}

/** Verifies a checkpoint under the pinned keys. */
export async function verifyCheckpoint(realm: RealmTrust, note: string): Promise<Checkpoint> {
  const doubt = (message: string): Untrusted => new Untrusted("shape-wrong", message, [note]);
  const at = note.lastIndexOf("\n\n");
  if (at < 0 || !note.endsWith("\n") || note.length > 10_000) throw doubt("not a signed note");
  const text = note.slice(0, at + 1);
  const [origin = "", size = "", root = "", ...more] = text.split("\n");
  const hash = fromBase64(root);
  if (more.join() !== "" || more.length !== 1 || hash?.length !== 32) {
    throw doubt("a checkpoint has three lines: origin, size, root");
  }
  const prefix = `${realm.name}/custodyd/log/`;
  const epoch = origin.startsWith(prefix) ? origin.slice(prefix.length) : "";
  if (!isNumber(epoch) || !isNumber(size)) {
    throw new Untrusted("other-log", `this is not the log of ${realm.name}`, [note]);
  }
  const lines = note.slice(at + 2, -1).split("\n");
  await verifySignatures(realm, origin, text, lines);
  return { epoch: Number(epoch), size: Number(size), root: hash, note };
}

function isNumber(text: string): boolean {
  return /^(0|[1-9][0-9]{0,15})$/.test(text) && Number.isSafeInteger(Number(text));
}

/** One good signature of a pinned key is enough; those of other keys are passed over. */
async function verifySignatures(
  realm: RealmTrust,
  origin: string,
  text: string,
  lines: string[],
): Promise<void> {
  const keys = keysFor(realm, "custodyd-checkpoint");
  const known = new Map(
    await Promise.all(keys.map(async (key) => [await noteKeyId(key), key] as const)),
  );
  let found = false;
  for (const line of lines) {
    const [dash, name, encoded, ...rest] = line.split(" ");
    const bytes = fromBase64(encoded ?? "");
    if (dash !== "\u2014" || rest.length > 0 || !bytes || bytes.length < 5) {
      throw new Untrusted("shape-wrong", "a line of a note is no signature", [text]);
    }
    const key = known.get(toHex(bytes.subarray(0, 4)));
    if (!key || name !== origin) continue;
    const signature = rawSignature(bytes.subarray(4));
    if (!signature || !(await verifies(key, signature, utf8(text)))) {
      throw new Untrusted("signature-wrong", "the signature of a checkpoint is wrong", [
        text,
        line,
      ]);
    }
    found = true;
  }
  if (!found)
    throw new Untrusted("key-unknown", "no pinned key has signed this checkpoint", [text]);
}

/** Verifies a binding under the pinned keys, and that it says what it has to. */
export async function verifyBinding(
  realm: RealmTrust,
  jws: string,
  expected: Partial<Binding>,
): Promise<Binding> {
  const parsed = parseJws(jws);
  if (parsed?.header["alg"] !== "ES256" || parsed.header["typ"] !== "custodyd-binding+jwt") {
    throw new Untrusted("shape-wrong", "not a binding", [jws]);
  }
  const keys = keysFor(realm, "sig");
  const names = await Promise.all(keys.map(thumbprint));
  const key = keys[names.indexOf(String(parsed.header["kid"]))];
  if (!key) throw new Untrusted("key-unknown", "no pinned key has signed this binding", [jws]);
  if (!(await verifies(key, parsed.signature, parsed.input))) {
    throw new Untrusted("signature-wrong", "the signature of a binding is wrong", [jws]);
  }
  const claims = parsed.claims as unknown as Binding;
  for (const [name, value] of Object.entries({ iss: realm.name, ...expected })) {
    if (parsed.claims[name] !== value) {
      throw new Untrusted("statement-differs", `a binding has another ${name} than it should`, [
        jws,
      ]);
    }
  }
  return claims;
}
