/** Proofs and thumbprints against the RFCs' own examples. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fromBase64Url, sha256, toBase64Url, utf8 } from "../src/bytes.js";
import { appKeyProof } from "../src/demand/app-key.js";
import { use } from "../src/demand/t.js";
import { dpopProof } from "../src/dpop.js";
import {
  generate,
  parseJws,
  publicJwk,
  signJws,
  thumbprint,
  thumbprintOf,
  verifies,
} from "../src/jose.js";
import { signingKey } from "../src/keys.js";
import { tools } from "../src/tools.js";

use(tools());

/** RFC 7638, section 3.1. */
const RSA = {
  kty: "RSA",
  n: "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
  e: "AQAB",
};
/** RFC 9449, section 4.1 (the key, and figure 2's proof), and section 6.1 (its thumbprint). */
const KEY = {
  kty: "EC",
  x: "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs",
  y: "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA",
  crv: "P-256",
};
const JKT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
const PROOF =
  "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg";
/** RFC 9449, section 7.1. */
const TOKEN = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
const ATH = "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo";

test("thumbprints are RFC 7638's and RFC 9449's", async () => {
  assert.equal(await thumbprintOf(RSA), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
  const jwk = publicJwk({ ...KEY, alg: "ES256", d: "secret" })!;
  assert.deepEqual(Object.keys(jwk), ["kty", "crv", "x", "y"]);
  assert.equal(await thumbprint(jwk), JKT);
});

test("RFC 9449's proof verifies, and no other", async () => {
  const parsed = parseJws(PROOF)!;
  const jwk = publicJwk(parsed.header["jwk"])!;
  assert.deepEqual(parsed.claims, {
    jti: "-BwC3ESc6acc2lTc",
    htm: "POST",
    htu: "https://server.example.com/token",
    iat: 1562262616,
  });
  assert.ok(await verifies(jwk, parsed.signature, parsed.input));
  parsed.input[10]! ^= 1;
  assert.ok(!(await verifies(jwk, parsed.signature, parsed.input)));
});

test("a proof says what RFC 9449 wants, and what was sent", async () => {
  const key = await signingKey(await generate(false));
  const body = utf8('{"pin":"830517"}');
  const about = {
    method: "PUT",
    url: "https://c.example/v1/account/pin?x=1#y",
    nonce: "n-1",
    token: TOKEN,
    body,
    now: 1_700_000_000,
  };
  const { header, claims, input, signature } = parseJws(await dpopProof(key, about))!;
  assert.deepEqual(header, { typ: "dpop+jwt", alg: "ES256", jwk: { ...key.jwk } });
  assert.ok(await verifies(key.jwk, signature, input));
  const { jti, ...rest } = claims;
  assert.equal(fromBase64Url(String(jti))?.length, 16);
  assert.deepEqual(rest, {
    htm: "PUT",
    htu: "https://c.example/v1/account/pin",
    iat: 1_700_000_000,
    nonce: "n-1",
    ath: ATH,
    body_sha256: toBase64Url(await sha256(body)),
  });
});

test("a GET names no body, an empty POST names an empty one", async () => {
  const key = await signingKey(await generate(false));
  const about = {
    url: "https://c.example/",
    nonce: undefined,
    token: undefined,
    body: undefined,
    now: 0,
  };
  const get = parseJws(await dpopProof(key, { ...about, method: "GET" }))!.claims;
  const post = parseJws(await dpopProof(key, { ...about, method: "POST" }))!.claims;
  assert.deepEqual(Object.keys(get).sort(), ["htm", "htu", "iat", "jti"]);
  assert.equal(post["body_sha256"], "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU");
});

test("an app key says which device it goes with", async () => {
  const [app, device] = [
    await signingKey(await generate(true)),
    await signingKey(await generate(false)),
  ];
  const fresh = { nonce: "n", now: 1_700_000_000 };
  const proof = parseJws(await appKeyProof(app, "realm.example/notes", device.jwk, fresh))!;
  assert.equal(proof.header["typ"], "custodyd-app-key+jwt");
  assert.equal(proof.claims["aud"], "realm.example/notes");
  assert.equal(proof.claims["jkt"], device.thumbprint);
  assert.ok(await verifies(app.jwk, proof.signature, proof.input));
});

test("what is no compact JWS is none", async () => {
  const key = await signingKey(await generate(false));
  const good = await signJws(key.privateKey, { alg: "ES256" }, { a: 1 });
  assert.ok(parseJws(good));
  const array = `${good.split(".")[0]!}.${toBase64Url(utf8("[1]"))}.${good.split(".")[2]!}`;
  for (const bad of [
    "",
    "a",
    "a.b",
    `${good}.x`,
    `${good}=`,
    good.slice(0, -4),
    array,
    ` ${good}`,
  ]) {
    assert.equal(parseJws(bad), undefined, bad);
  }
  for (const jwk of [undefined, null, 7, {}, { ...KEY, crv: "P-384" }, { ...KEY, x: "AA" }, RSA]) {
    assert.equal(publicJwk(jwk), undefined);
  }
});
