/**
 * A passkey that is confirmed, or added with its slot of the device secret: its device identifier is computed before the daemon has it,
 * so that both are one commit.
 *
 * Loaded by `../factors.ts`.
 */
import type { Bytes } from "../bytes.js";
import type { Custody } from "../custody.js";
import type { SlotKey } from "../slots.js";
import type { PrfKey } from "../webauthn.js";
import { along, type Made } from "./along.js";
import { changing, type Rewrapping } from "./rewrap.js";
import { createPasskey, type Made as Created } from "./create.js";
import { t } from "./t.js";

/** Where a CBOR item ends (RFC 8949): of the kinds that a public key is made of. */
function itemEnd(bytes: Bytes, start: number): number {
  const head = bytes[start] ?? 0;
  let at = start + 1;
  let value = head & 31;
  if (value >= 24) {
    const size = 1 << (value - 24);
    value = bytes.slice(at, at + size).reduce((whole, byte) => whole * 256 + byte, 0);
    at += size;
  }
  const kind = head >> 5;
  if (kind === 2 || kind === 3) return at + value;
  if (kind === 5 && value < 16) for (let n = 0; n < 2 * value; n += 1) at = itemEnd(bytes, at);
  return at;
}

/** The device identifier of a new passkey, from its authenticator data (WebAuthn Level 3, section 6.1). */
export async function passkeyCredential(data: Bytes): Promise<string> {
  const start = 55 + ((data[53] ?? 0) << 8) + (data[54] ?? 0);
  return t.toBase64Url(await t.sha256(data.slice(start, itemEnd(data, start))));
}

/** A passkey that was added. */
export interface AddedPasskey extends Made {
  /** Its device identifier at the daemon. */
  readonly deviceId: string;
  /** For an offline slot, where the authenticator gives its PRF output at creation already. */
  readonly prf: PrfKey | undefined;
}

/** The PRF output of a new passkey. Some authenticators give none when they make it: then it is asked for, where it matters. */
async function prfOf(
  made: Created,
  options: Record<string, unknown>,
  rewrap: Rewrapping,
): Promise<PrfKey | undefined> {
  if (made.prf || !made.prfEnabled || !rewrap.needsSlots) return made.prf;
  const { rp, extensions } = options as {
    rp?: { id?: string };
    extensions?: { prf?: { eval?: { first?: string } } };
  };
  const salt = extensions?.prf?.eval?.first;
  if (rp?.id === undefined || salt === undefined) return undefined;
  return (await t.usePrf(rp.id, salt, [made.id])).prf;
}

/** Confirms one that expires, by using it. */
export async function confirmPasskey(custody: Custody, deviceId: string): Promise<void> {
  const options = await custody.transport.request("post", "/v1/account/passkeys/options", {
    body: { confirm: deviceId },
  });
  const used = await t.usePasskey(options.publicKey);
  await custody.transport.request("post", "/v1/account/passkeys/{device_id}/confirm", {
    path: { device_id: deviceId },
    body: { ceremony: options.ceremony, credential: used.credential as never },
  });
}

type Names = { readonly user?: string; readonly passkey?: string };

/** Creates a passkey and adds it. */
export function addPasskey(custody: Custody, names: Names): Promise<AddedPasskey> {
  return changing(custody, (rewrap) => adding(custody, names, rewrap));
}

async function adding(custody: Custody, names: Names, rewrap: Rewrapping): Promise<AddedPasskey> {
  if (rewrap.hasOnlyPrf) {
    throw new t.NotReady("prf-only-slot", "set a PIN or recovery codes before the first passkey");
  }
  const options = await custody.transport.request("post", "/v1/account/passkeys/options", {
    body: names.user === undefined ? {} : { user_name: names.user },
  });
  const made = await createPasskey(options.publicKey);
  const prf = await prfOf(made, options.publicKey, rewrap);
  const key: SlotKey | undefined = prf && {
    type: "prf",
    credential: await passkeyCredential(made.authenticatorData),
    material: prf.output,
  };
  const body = {
    ceremony: options.ceremony,
    credential: made.credential as never,
    ...(names.passkey === undefined ? {} : { name: names.passkey }),
  };
  const [bound, slot] = await along(custody, rewrap, key, (secrets) =>
    custody.transport.request("post", "/v1/account/passkeys", { body: { ...body, secrets } }),
  );
  await t.demandBound(custody, "passkey", bound);
  await rewrap.done();
  const { device_id: deviceId } = bound;
  return { deviceId, prf: prf && { ...prf, deviceId }, slot };
}
