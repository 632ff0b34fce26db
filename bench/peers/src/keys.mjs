// Keys from a file that only the server's user may read; and what is sealed under one of them.
import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { server } from "@serenity-kit/opaque";

const NONCE = 12;
const TAG = 16;

/** Reads a file, or makes it. */
function kept(path, make) {
  try {
    writeFileSync(path, make(), { mode: 0o600, flag: "wx" });
  } catch (error) {
    if (error.code !== "EEXIST") throw error;
  }
  return readFileSync(path, "utf8");
}

export function readKeys(folder) {
  const root = Buffer.from(
    kept(join(folder, "root.key"), () => randomBytes(32).toString("hex")),
    "hex",
  );
  const derived = (use) => Buffer.from(hkdfSync("sha256", root, "", use, 32));
  return {
    sealing: derived("secrets"),
    pepper: derived("pins"),
    opaque: kept(join(folder, "opaque.key"), () => server.createSetup()),
  };
}

/** AES-256-GCM. `place` is where it belongs, so that nobody can move it to another account. */
export function seal(key, place, plain) {
  const nonce = randomBytes(NONCE);
  const cipher = createCipheriv("aes-256-gcm", key, nonce);
  cipher.setAAD(Buffer.from(place));
  return Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()]);
}

export function open(key, place, sealed) {
  const cipher = createDecipheriv("aes-256-gcm", key, sealed.subarray(0, NONCE));
  cipher.setAAD(Buffer.from(place));
  cipher.setAuthTag(sealed.subarray(sealed.length - TAG));
  return Buffer.concat([
    cipher.update(sealed.subarray(NONCE, sealed.length - TAG)),
    cipher.final(),
  ]);
}
