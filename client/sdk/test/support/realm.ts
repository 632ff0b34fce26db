/** A realm of a test's own: keys, and notes, bindings and receipts that they sign. */
import {
  type Bytes,
  concat,
  fromBase64Url,
  sha256,
  toBase64,
  toBase64Url,
  toHex,
  utf8,
} from "../../src/bytes.js";
import { ES256, generate, type PublicJwk, signJws } from "../../src/jose.js";
import { signingKey } from "../../src/keys.js";
import type { RealmTrust } from "../../src/receipts/realm.js";
import { path, root } from "./tree.js";

type Key = Awaited<ReturnType<typeof signingKey>>;

function der(raw: Uint8Array): Bytes {
  const integer = (digits: Uint8Array): Bytes => {
    const first = digits.findIndex((byte) => byte !== 0);
    const short = digits.slice(first);
    const bytes = short[0]! > 127 ? concat(new Uint8Array(1), short) : short;
    return concat(new Uint8Array([2, bytes.length]), bytes);
  };
  const both = concat(integer(raw.slice(0, 32)), integer(raw.slice(32)));
  return concat(new Uint8Array([0x30, both.length]), both);
}

async function keyId(jwk: PublicJwk): Promise<Bytes> {
  const key = await crypto.subtle.importKey(
    "jwk",
    { ...jwk },
    { name: "ECDSA", namedCurve: "P-256" },
    true,
    [],
  );
  const spki = new Uint8Array(await crypto.subtle.exportKey("spki", key));
  return (await sha256(spki)).slice(0, 4);
}

/** A realm that tests speak for. */
export class Realm {
  private constructor(
    readonly name: string,
    readonly bind: Key,
    readonly checkpointKey: Key,
    readonly trust: RealmTrust,
  ) {}

  static async make(name = "test.example"): Promise<Realm> {
    const [bind, checkpoint] = [
      await signingKey(await generate(false)),
      await signingKey(await generate(false)),
    ];
    const note_key_id = toHex(await keyId(checkpoint.jwk));
    const keys = [
      { ...bind.jwk, use: "sig", kid: bind.thumbprint },
      { ...checkpoint.jwk, use: "custodyd-checkpoint", note_key_id },
    ];
    return new Realm(name, bind, checkpoint, { name, keys });
  }

  /** A signed checkpoint over these leaves. */
  async note(leaves: readonly Bytes[], epoch = 1): Promise<string> {
    const origin = `${this.name}/custodyd/log/${epoch}`;
    return this.sign(origin, `${origin}\n${leaves.length}\n${toBase64(await root(leaves))}\n`);
  }

  /** Any text, signed as a note. */
  async sign(origin: string, text: string): Promise<string> {
    const { privateKey, jwk } = this.checkpointKey;
    const signature = new Uint8Array(await crypto.subtle.sign(ES256, privateKey, utf8(text)));
    return `${text}\n\u2014 ${origin} ${toBase64(concat(await keyId(jwk), der(signature)))}\n`;
  }

  /** The receipt of a leaf. */
  async receipt(
    index: number,
    leaves: readonly Bytes[],
  ): Promise<{ index: number; leaf: string; proof: string }> {
    const hashes = (await path(index, leaves)).map(toBase64);
    const lines = [
      "c2sp.org/tlog-proof@v1",
      `extra ${toBase64(leaves[index]!)}`,
      `index ${index}`,
      ...hashes,
    ];
    const proof = `${lines.join("\n")}\n\n${await this.note(leaves)}`;
    return { index, leaf: toBase64Url(leaves[index]!), proof };
  }

  async binding(claims: object, typ = "custodyd-binding+jwt"): Promise<string> {
    const header = { alg: "ES256", typ, kid: this.bind.thumbprint };
    return signJws(this.bind.privateKey, header, { iss: this.name, ...claims });
  }
}

/** So many leaves, each of its own. */
export function leaves(count: number): Bytes[] {
  return Array.from({ length: count }, (_, at) => utf8(`leaf ${at}`));
}

/** A leaf as the daemon makes one of an event. */
export async function eventLeaf(salt: string, body: string): Promise<Bytes> {
  const field = (bytes: Bytes): Bytes => concat(new Uint8Array([0, 0, 0, bytes.length]), bytes);
  const parts = [utf8("custodyd/event/v1"), fromBase64Url(salt)!, fromBase64Url(body)!].map(field);
  return concat(new Uint8Array([1]), await sha256(...parts));
}
