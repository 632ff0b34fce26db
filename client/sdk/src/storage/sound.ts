/**
 * Records as they were kept. A browser that crashed, or a profile that was copied, may leave half of one: that is an error
 * with a name.
 */
import { StorageFailed } from "../errors.js";

/** What each kind of record has at least, by the first part of its name. */
const HAS: Readonly<Record<string, readonly string[]>> = {
  "app-key": ["wrapped"],
  offline: ["passkeys"],
  log: ["waiting", "receipts"],
  queue: ["id", "content"],
  copy: ["content"],
  lost: ["content"],
};

/** Whether a record is whole. */
export const isSound = (key: string, value: unknown): boolean =>
  (HAS[key.split("/", 1)[0] ?? ""] ?? []).every(
    (name) => (value as Record<string, unknown> | null)?.[name] != null,
  );

/** A record, or undefined where there is none. */
export function kept(key: string, value: unknown): unknown {
  if (value === undefined || isSound(key, value)) return value;
  throw new StorageFailed("storage-damaged", `${key} is damaged`);
}
