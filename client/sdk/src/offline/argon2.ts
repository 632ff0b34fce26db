/** Argon2id (RFC 9106) in WebAssembly: loaded when a PIN is used offline, and not before. */
import { argon2id } from "hash-wasm";
import { type Bytes, utf8 } from "../bytes.js";

/** What one hash costs. */
export interface Argon2Cost {
  readonly memoryKib: number;
  readonly passes: number;
  readonly lanes: number;
}

/** 32 bytes of a PIN. */
export async function hashPin(pin: string, salt: Bytes, cost: Argon2Cost): Promise<Bytes> {
  const hash = await argon2id({
    password: utf8(pin.normalize("NFC")),
    salt,
    memorySize: cost.memoryKib,
    iterations: cost.passes,
    parallelism: cost.lanes,
    hashLength: 32,
    outputType: "binary",
  });
  return new Uint8Array(hash);
}
