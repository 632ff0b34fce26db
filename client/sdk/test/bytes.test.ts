/** Texts of bytes, which must be read in one way only. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  be32,
  concat,
  equal,
  fromBase64,
  fromBase64Url,
  hkdf,
  random,
  toBase64Url,
  toHex,
  utf8,
} from "../src/bytes.js";

test("base64url of RFC 4648's examples, without padding", () => {
  const pairs = { "": "", f: "Zg", fo: "Zm8", foo: "Zm9v", foob: "Zm9vYg", fooba: "Zm9vYmE" };
  for (const [plain, text] of Object.entries(pairs)) {
    assert.equal(toBase64Url(utf8(plain)), text);
    assert.deepEqual(fromBase64Url(text), utf8(plain));
  }
});

test("whatever is read is what would be written", () => {
  for (let round = 0; round < 200; round += 1) {
    const bytes = random(round % 40);
    assert.deepEqual(fromBase64Url(toBase64Url(bytes)), bytes);
  }
  for (const text of ["Zg==", "Zh", "Z", "Zm8=", "Zm+v", "Zm 9v", "Zm9v\n", "\u00e4"]) {
    assert.equal(fromBase64Url(text), undefined, JSON.stringify(text));
  }
  for (const text of ["Zg", "Zh==", "Zm9v ", "Zm-v"])
    assert.equal(fromBase64(text), undefined, text);
});

test("HKDF is RFC 5869's (appendix A, test case 3: no salt, no info)", async () => {
  const okm = await hkdf(new Uint8Array(22).fill(0x0b), "");
  assert.equal(toHex(okm), "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d");
});

test("the small ones", () => {
  assert.equal(toHex(be32(0xff000001)), "ff000001");
  assert.equal(toHex(concat(new Uint8Array([1]), new Uint8Array([2, 3]))), "010203");
  assert.ok(
    equal(utf8("a"), utf8("a")) && !equal(utf8("a"), utf8("b")) && !equal(utf8("a"), utf8("ab")),
  );
});
