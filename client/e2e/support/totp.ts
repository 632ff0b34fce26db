/** An authenticator app (RFC 6238). */
import { createHmac } from "node:crypto";

function base32(text: string): Buffer {
  const bits = Array.from(text, (letter) =>
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".indexOf(letter).toString(2).padStart(5, "0"),
  ).join("");
  const bytes = bits.match(/.{8}/g) ?? [];
  return Buffer.from(bytes.map((byte) => parseInt(byte, 2)));
}

/** The code of an otpauth URI, so many steps from now. */
export function authenticatorCode(uri: string, steps: number): string {
  const parameters = new URL(uri).searchParams;
  const period = Number(parameters.get("period") ?? 30);
  const digits = Number(parameters.get("digits") ?? 6);
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 1000 / period) + steps));
  const tag = createHmac("sha1", base32(parameters.get("secret") ?? ""))
    .update(counter)
    .digest();
  const number = tag.readUInt32BE((tag.at(-1) ?? 0) & 15) & 0x7fffffff;
  return String(number % 10 ** digits).padStart(digits, "0");
}
