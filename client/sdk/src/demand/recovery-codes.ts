/**
 * Recovery codes: 16 random bytes, written down as seven groups of four letters and digits.
 *
 * Two parts are derived from a code. The *auth* part is sent; the *slot* part opens what was sealed
 * under it and never leaves the device. `daemon/vectors/recovery_code.json` holds both sides to it. Loaded when a code is
 * typed, or a set is made.
 */
import type { Bytes } from "../bytes.js";
import { t } from "./t.js";

/** Crockford's base 32: a symbol's place is its value. */
const LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const CODE_BYTES = 16;
/** Codes of one set. */
export const RECOVERY_CODES = 10;

/** A code, in its three forms. */
export interface RecoveryCode {
  /** To write down. */
  readonly text: string;
  /** To send. */
  readonly auth: Bytes;
  /** Never to send. */
  readonly slot: Bytes;
}

async function check(code: Bytes): Promise<number> {
  const hash = await t.sha256(t.utf8("custodyd/recovery-code/check/v1"), code);
  return hash[0] ?? 0;
}

/** Base 32 in groups of four; the bits that are left over are zero. */
function encode(bytes: Uint8Array): string {
  let [held, bits, text] = [0, 0, ""];
  for (const byte of t.concat(bytes, new Uint8Array(1))) {
    held = (held << 8) | byte;
    bits += 8;
    while (bits >= 5 && text.length * 5 < bytes.length * 8) {
      text += LETTERS[(held >> (bits - 5)) & 31] ?? "";
      bits -= 5;
    }
    held &= (1 << bits) - 1;
  }
  return text.replaceAll(/(.{4})(?=.)/g, "$1-");
}

function decode(typed: string): Bytes | undefined {
  const text = typed.replaceAll(/[\s-]/g, "").toUpperCase();
  const alike = text.replaceAll(/[IL]/g, "1").replaceAll("O", "0");
  const bytes: number[] = [];
  let [held, bits] = [0, 0];
  for (const letter of alike) {
    const value = LETTERS.indexOf(letter);
    if (value < 0) return undefined;
    held = (held << 5) | value;
    bits += 5;
    if (bits >= 8) {
      bytes.push((held >> (bits - 8)) & 255);
      bits -= 8;
    }
    held &= (1 << bits) - 1;
  }
  // Left over are fewer bits than a symbol has, and they say nothing.
  return bits < 5 && held === 0 ? new Uint8Array(bytes) : undefined;
}

/** The parts of a code's 16 bytes. */
export async function recoveryCode(code: Bytes): Promise<RecoveryCode> {
  return {
    text: encode(t.concat(code, new Uint8Array([await check(code)]))),
    auth: await t.hkdf(code, "custodyd/recovery-code/auth/v1"),
    slot: await t.hkdf(code, "custodyd/recovery-code/slot/v1"),
  };
}

/** A fresh set. */
export async function newRecoveryCodes(): Promise<RecoveryCode[]> {
  const codes = Array.from({ length: RECOVERY_CODES }, () => t.random(CODE_BYTES));
  return Promise.all(codes.map(recoveryCode));
}

/** Reads what was typed; a slip of the pen is noticed here, before an attempt is spent on it. */
export async function parseRecoveryCode(typed: string): Promise<RecoveryCode> {
  const bytes = decode(typed);
  if (bytes?.length !== CODE_BYTES + 1) {
    throw new t.CanNotOpen(
      "code-mistyped",
      "expected 28 letters and digits, in seven groups of four",
    );
  }
  const code = bytes.slice(0, CODE_BYTES);
  if ((await check(code)) !== bytes[CODE_BYTES]) {
    throw new t.CanNotOpen(
      "code-mistyped",
      "the code is mistyped: compare it with what was written down",
    );
  }
  return recoveryCode(code);
}

/** The name of slots under a recovery code. */
export async function codeCredential(auth: Bytes): Promise<string> {
  return t.toBase64Url(await t.sha256(t.fields("custodyd/recovery-code-slot-id/v1", auth)));
}
