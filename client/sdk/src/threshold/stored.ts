/**
 * A realm's share at its daemon: a secret with a server slot and nothing else. Key slots would be of no use to it, for
 * what could open them is what the shares give.
 */
import { type Bytes, fromBase64Url, toBase64Url } from "../bytes.js";
import type { Custody } from "../custody.js";
import { Refused } from "../errors.js";
import type { Schemas } from "../transport.js";

/** The secret's name at each realm. The policy's `[release]` has to give it to the factors that unlock. */
export const SHARE = "key-share";

const ROUTE = "/v1/account/secrets/{name}";
const path = { name: SHARE };

/** What a realm has stored. */
export interface Stored {
  /** The daemon's version of it, which the next write names. */
  readonly version: number;
  readonly content: Bytes;
}

/** The content of a secret that was released; undefined where there is none. */
export function contentOf(secret: Schemas["Secret"] | undefined): Bytes | undefined {
  return secret?.server_slot == null ? undefined : fromBase64Url(secret.server_slot);
}

/** Reads what a realm keeps; undefined where that is nothing. */
export async function readStored(custody: Custody): Promise<Stored | undefined> {
  try {
    const secret = await custody.transport.request("get", ROUTE, { path });
    // Without a content it is nothing that an owner's device wrote, and is written over.
    return { version: secret.version, content: contentOf(secret) ?? new Uint8Array() };
  } catch (error) {
    if (error instanceof Refused && error.code === "not-found") return undefined;
    throw error;
  }
}

/** Stores it in the place of the version given, or where there is none; returns the new version. */
export async function writeStored(
  custody: Custody,
  content: Bytes,
  replaces: number | undefined,
): Promise<number> {
  const headers: Record<string, string> =
    replaces === undefined ? { "If-None-Match": "*" } : { "If-Match": `"${replaces}"` };
  const body = { server_slot: toBase64Url(content) };
  const stored = await custody.transport.request("put", ROUTE, { path, headers, body });
  return stored.version;
}
