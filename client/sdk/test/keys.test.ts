/** The wrapped key, and recovery codes against the vectors that the daemon is held to as well. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { fromBase64, random, toHex, utf8 } from "../src/bytes.js";
import { newRecoveryCodes, parseRecoveryCode, recoveryCode } from "../src/demand/recovery-codes.js";
import { use } from "../src/demand/t.js";
import { CanNotOpen, NotReady } from "../src/errors.js";
import { verifies } from "../src/jose.js";
import { aesKey, open, seal, Unlocked } from "../src/keys.js";
import { memoryStorage } from "../src/storage/memory.js";
import { tools } from "../src/tools.js";

use(tools());

test("the key that was wrapped comes back, and can not be taken out", async () => {
  const made = await Unlocked.create();
  const again = await Unlocked.open(made.secret, made.wrapped);
  assert.deepEqual(again.jwk, made.jwk);
  assert.equal(again.thumbprint, made.thumbprint);
  const data = utf8("signed");
  assert.ok(await verifies(made.jwk, await again.sign(data), data));
  assert.equal(again.privateKey.extractable, false);
  await assert.rejects(crypto.subtle.exportKey("pkcs8", again.privateKey));
});

test("another secret, or another byte, opens nothing", async () => {
  const made = await Unlocked.create();
  await assert.rejects(Unlocked.open(random(32), made.wrapped), CanNotOpen);
  for (const at of [0, 1, 20, made.wrapped.length - 1]) {
    const changed = made.wrapped.slice();
    changed[at]! ^= 1;
    await assert.rejects(Unlocked.open(made.secret, changed), CanNotOpen, `byte ${at}`);
  }
  await assert.rejects(Unlocked.open(made.secret, new Uint8Array()), CanNotOpen);
});

test("what is sealed under one label does not open under another", async () => {
  const key = await aesKey(random(32));
  const sealed = await seal(key, "one", utf8("text"));
  assert.deepEqual(await open(key, "one", sealed), utf8("text"));
  assert.equal(await open(key, "other", sealed), undefined);
  assert.notDeepEqual(await seal(key, "one", utf8("text")), sealed);
});

test("a locked key is of no use, and its secret is wiped", async () => {
  const made = await Unlocked.create();
  const secret = made.secret;
  made.lock();
  assert.ok(made.locked && secret.every((byte) => byte === 0));
  await assert.rejects(made.sign(utf8("x")), NotReady);
  await assert.rejects(made.dataKey("notes"), NotReady);
});

test("data keys are the account's, one for each purpose", async () => {
  const made = await Unlocked.create();
  const again = await Unlocked.open(made.secret, made.wrapped);
  const sealed = await seal(await made.dataKey("notes"), "n", utf8("text"));
  assert.deepEqual(await open(await again.dataKey("notes"), "n", sealed), utf8("text"));
  assert.equal(await open(await again.dataKey("other"), "n", sealed), undefined);
});

interface Vector {
  readonly code: string;
  readonly text: string;
  readonly auth: string;
  readonly slot: string;
}

test("recovery codes are those of daemon/vectors/recovery_code.json", async () => {
  const { codes } = JSON.parse(readFileSync("../daemon/vectors/recovery_code.json", "utf8")) as {
    codes: Vector[];
  };
  assert.ok(codes.length >= 10);
  for (const vector of codes) {
    const bytes = Uint8Array.from(vector.code.match(/../g)!, (pair) => parseInt(pair, 16));
    const made = await recoveryCode(bytes);
    assert.deepEqual(
      [made.text, toHex(made.auth), toHex(made.slot)],
      [vector.text, vector.auth, vector.slot],
    );
    assert.deepEqual(await parseRecoveryCode(vector.text.toLowerCase().replaceAll("-", " ")), made);
  }
});

test("a slip of the pen is noticed", async () => {
  const codes = await newRecoveryCodes();
  assert.equal(new Set(codes.map((code) => code.text)).size, 10);
  const { text } = codes[0]!;
  let noticed = 0;
  for (let at = 0; at < text.length; at += 1) {
    if (text[at] === "-") continue;
    const slip = text.slice(0, at) + (text[at] === "7" ? "8" : "7") + text.slice(at + 1);
    noticed += await parseRecoveryCode(slip).then(
      () => 0,
      () => 1,
    );
  }
  assert.ok(noticed >= 26, `${noticed} of 28`); // A check byte passes one in 256 by chance.
  for (const bad of [
    "",
    text.slice(1),
    `${text}0`,
    text.replace(/.$/, "U"),
    text.replace(/.$/, "1"),
  ]) {
    await assert.rejects(parseRecoveryCode(bad), { code: "code-mistyped" }, bad);
  }
});

test("a storage's update is whole or not at all", async () => {
  const storage = memoryStorage();
  await storage.update([], (update) => {
    update.set("a/1", 1);
    update.set("a/2", fromBase64("AA=="));
  });
  await assert.rejects(
    storage.update(["a/1"], (update) => {
      update.set("a/1", 2);
      throw new Error("stop");
    }),
  );
  assert.equal(await storage.get("a/1"), 1);
  await assert.rejects(
    storage.update([], (update) => update.get("a/1")),
    TypeError,
  );
  assert.deepEqual(await storage.list("a/"), [
    ["a/1", 1],
    ["a/2", new Uint8Array(1)],
  ]);
  await storage.clear();
  assert.deepEqual(await storage.list(""), []);
});
