/**
 * Records as they were kept. A browser that crashed, or a profile that was copied, may leave half of one: that is an error
 * with a name.
 */
import { StorageFailed } from "../errors.js";

/** The device key, a pair that WebCrypto has made. */
export const DEVICE_KEY = "device-key";

/** What each kind of record has at least, by the first part of its name. */
const HAS: Readonly<Record<string, readonly string[]>> = {
  [DEVICE_KEY]: ["privateKey", "publicKey"],
  account: ["account"],
  "app-key": ["wrapped"],
  offline: ["passkeys"],
  enrolment: ["key", "sealed", "wrapped"],
  log: ["waiting", "receipts"],
  queue: ["id", "content"],
  copy: ["content"],
  lost: ["content"],
};

/** Whether a record is whole. Decided at once, so that an update can look again at what it is about to replace. */
export const isSound = (key: string, value: unknown): boolean =>
  (HAS[key.split("/", 1)[0] ?? ""] ?? []).every((name) => {
    const part = (value as Record<string, unknown> | null)?.[name];
    return key === DEVICE_KEY
      ? (part as Partial<CryptoKey> | null | undefined)?.algorithm?.name === "ECDSA"
      : part != null;
  });

/** A record, or undefined where there is none. */
export function kept(key: string, value: unknown): unknown {
  if (value === undefined || isSound(key, value)) return value;
  throw new StorageFailed("storage-damaged", `${key} is damaged`);
}
