/** The format of key slots, held to the vectors that tests/e2e/slots.rs computes too. */
import assert from "node:assert/strict";
import { opensWithoutPrf } from "../src/demand/rewrap.js";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { be64, type Bytes, fields, toBase64Url, toHex } from "../src/bytes.js";
import {
  isFor,
  openContent,
  openSlot,
  revisionOf,
  sealContent,
  sealSlot,
  type Slot,
} from "../src/slots.js";
import { pinCredential } from "../src/demand/opaque.js";
import { passkeyCredential } from "../src/demand/passkey.js";
import { codeCredential } from "../src/demand/recovery-codes.js";
import { use } from "../src/demand/t.js";
import { tools } from "../src/tools.js";

use(tools());

interface Vectors {
  readonly realm: string;
  readonly app: string;
  readonly account: string;
  readonly content: Readonly<
    Record<"name" | "content_key" | "info" | "content" | "sealed", string>
  >;
  readonly content_v2: Readonly<
    Record<"name" | "content_key" | "info" | "content" | "sealed", string>
  > & { readonly revision: number };
  readonly slots: readonly (Readonly<Record<"name" | "credential" | "material", string>> & {
    readonly info: string;
    readonly ciphertext: string;
    readonly type: Slot["type"];
  })[];
  readonly credentials: {
    readonly passkey: Readonly<Record<"authenticator_data" | "credential", string>>;
    readonly pin: Readonly<Record<"salt" | "record" | "credential", string>> &
      Readonly<Record<"memory_kib" | "passes" | "lanes", number>>;
    readonly recovery_code: Readonly<Record<"auth" | "credential", string>>;
  };
}

const text = readFileSync("../daemon/vectors/key_slots.json", "utf8");
const vectors = JSON.parse(text) as Vectors;
const unhex = (hex: string): Bytes => new Uint8Array(Buffer.from(hex, "hex"));
const { realm, app, account, content } = vectors;
const at = (name: string) => ({ realm, app, account, name });
const key = unhex(content.content_key);

test("content and slots open as the vectors say, and what is sealed here opens again", async () => {
  const place = at(content.name);
  const opened = await openContent(place, key, unhex(content.sealed));
  assert.equal(toHex(opened!), content.content);
  const sealed = await sealContent(place, key, opened!, 3);
  assert.deepEqual(await openContent(place, key, sealed), opened);
  assert.deepEqual([revisionOf(unhex(content.sealed)), revisionOf(sealed)], [0, 3]);
  const { info } = content;
  assert.equal(toHex(fields("custodyd/secret-content/v1", realm, app, account, place.name)), info);
  for (const vector of vectors.slots) {
    const { type, credential, name } = vector;
    const by = { type, credential, material: unhex(vector.material) };
    const slot = { type, credential, ciphertext: toBase64Url(unhex(vector.ciphertext)) };
    assert.ok(isFor(by, slot));
    assert.deepEqual(await openSlot(at(name), by, slot), key);
    const again = await sealSlot(at(name), by, key);
    assert.notEqual(again.ciphertext, slot.ciphertext);
    assert.deepEqual(await openSlot(at(name), by, again), key);
  }
});

test("content says which revision it is, and opens as no other", async () => {
  const { name, content_key, info, revision, content: plain, sealed } = vectors.content_v2;
  const [place, key, bytes] = [at(name), unhex(content_key), unhex(sealed)];
  const domain = "custodyd/secret-content/v2";
  assert.equal(toHex(fields(domain, realm, app, account, name, be64(revision))), info);
  assert.equal(revisionOf(bytes), revision);
  assert.equal(toHex((await openContent(place, key, bytes))!), plain);
  for (let byte = 0; byte < bytes.length; byte += 1) {
    const bent = bytes.slice();
    bent[byte]! ^= 1;
    assert.equal(await openContent(place, key, bent), undefined, String(byte));
  }
  for (const far of [1, 2 ** 32 - 1, 2 ** 32, Number.MAX_SAFE_INTEGER]) {
    assert.equal(revisionOf(await sealContent(place, key, unhex(plain), far)), far);
  }
});

test("a slot opens in its own place, for its own credential, and nowhere else", async () => {
  const [vector] = vectors.slots;
  const { type, credential, name } = vector!;
  const by = { type, credential, material: unhex(vector!.material) };
  const slot = { type, credential, ciphertext: toBase64Url(unhex(vector!.ciphertext)) };
  const place = at(name);
  for (const other of [
    { ...place, realm: "other.example" },
    { ...place, app: "wallet" },
    { ...place, account: "0b54c1b1-6b7c-4a0e-9d0f-3a5d0f9f2a12" },
    { ...place, name: "app-key" },
  ]) {
    assert.equal(await openSlot(other, by, slot), undefined);
    assert.equal(await openContent(other, key, unhex(content.sealed)), undefined);
  }
  for (const other of [
    { ...by, type: "opaque" as const },
    { ...by, credential: "another" },
    { ...by, material: unhex(vector!.material).reverse() },
  ]) {
    assert.equal(await openSlot(place, other, slot), undefined);
  }
  // Fields can not be shifted into each other.
  assert.notDeepEqual(fields("ab", "c"), fields("a", "bc"));
});

test("credentials are computed as the daemon computes them", async () => {
  const { passkey, pin, recovery_code: code } = vectors.credentials;
  // With extensions after the key, as an authenticator with PRF sends them.
  assert.equal(await passkeyCredential(unhex(passkey.authenticator_data)), passkey.credential);
  assert.equal(await pinCredential(unhex(pin.salt), pin, unhex(pin.record)), pin.credential);
  assert.equal(await codeCredential(unhex(code.auth)), code.credential);
});

test("authenticator data of any kind gives some name, and no error", async () => {
  const whole = unhex(vectors.credentials.passkey.authenticator_data);
  for (let length = 0; length < whole.length; length += 1) {
    assert.equal((await passkeyCredential(whole.slice(0, length))).length, 43);
  }
  for (const head of [0xbf, 0xff, 0x5b, 0xbb]) {
    const bent = whole.slice();
    bent[60] = head;
    assert.equal((await passkeyCredential(bent)).length, 43);
  }
});

test("PRF alone opens nothing for good", () => {
  const slot = (type: Slot["type"]) => ({ type, credential: "c", ciphertext: "AAAA" });
  assert.equal(opensWithoutPrf([], false), false);
  assert.equal(opensWithoutPrf([slot("prf"), slot("prf")], false), false);
  assert.equal(opensWithoutPrf([slot("prf")], true), true);
  assert.equal(opensWithoutPrf([slot("prf"), slot("opaque")], false), true);
});
