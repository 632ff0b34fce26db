/**
 * Factors of the account: PIN, passkeys, TOTP, recovery codes. Adding, changing, removing.
 *
 * Each needs a session whose factor was shown just now and is at least as strong as what is changed
 * (`StepUpRequired` says what is missing), but for a forgotten PIN, which weaker ones may replace.
 * Each new credential's binding is verified before the call returns. A new factor gets its slot of the device secret in
 * the same commit; one that is removed loses it there, and what unlocks offline by it on this device goes, too.
 */
import { toBase64Url } from "./bytes.js";
import type { Custody } from "./custody.js";
import type { Removed, Rewrapping } from "./demand/rewrap.js";
import { NotReady } from "./errors.js";
import { dropOffline, dropOfflinePasskey, renewOfflinePin } from "./offline/slots.js";
import { newRecoveryCodes, type RecoveryCode } from "./recovery-codes.js";
import { verifyBinding } from "./receipts/realm.js";
import { accountOf } from "./session.js";
import { codeCredential, passkeyCredential, type SlotKey } from "./slots.js";
import { onDemand } from "./tools.js";
import type { Schemas } from "./transport.js";
import { forget, making } from "./vault.js";
import { createPasskey, type Made, type PrfKey, usePasskey, usePrf } from "./webauthn.js";

async function demand(custody: Custody, kind: string, bound: Schemas["Bound"]): Promise<void> {
  await verifyBinding(custody.realm, bound.binding, {
    app: custody.app,
    sub: accountOf(custody),
    kind,
    device_id: bound.device_id,
  });
}

export type { Removed } from "./demand/rewrap.js";

/** How a PIN is checked. */
export interface PinOptions {
  /**
   * Sends the PIN to the daemon, which hashes it (Argon2id), in place of OPAQUE. For apps whose policy has
   * no OPAQUE, and for PINs that were set this way. Never done because the daemon says so: whoever
   * runs it could else have the PIN by asking.
   */
  readonly onServer?: boolean;
}

/** Sets the PIN, changes it, or replaces a forgotten one. The session goes on. */
export async function setPin(
  custody: Custody,
  pin: string,
  options: PinOptions = {},
): Promise<void> {
  const { missing, registerPin, rewrapping } = await onDemand();
  const rewrap = await rewrapping(custody);
  // Such a PIN carries no backup, which would wait on this device for as long as there is no other factor.
  if (options.onServer && rewrap.waits) throw missing();
  const { pin: bound, session } = options.onServer
    ? await custody.transport.request("put", "/v1/account/pin", { body: { pin } })
    : await registerPin(custody, pin, rewrap);
  await demand(custody, "pin", bound);
  if (options.onServer) forget(custody, { type: "opaque" });
  else await rewrap.done();
  custody.transport.session = session;
  await renewOfflinePin(custody, pin);
}

/** Removes the PIN. */
export async function removePin(custody: Custody): Promise<Removed> {
  const { removing } = await onDemand();
  const removed = await removing(custody, { type: "opaque" }, (secrets) =>
    custody.transport.request("delete", "/v1/account/pin", { body: { secrets } }),
  );
  await dropOffline(custody, "pin");
  return removed;
}

/** A passkey that was added. */
export interface AddedPasskey {
  /** Its device identifier at the daemon. */
  readonly deviceId: string;
  /** For an offline slot, where the authenticator gives its PRF output at creation already. */
  readonly prf: PrfKey | undefined;
}

/** The PRF output of a new passkey. Some authenticators give none when they make it: then it is asked for, where it matters. */
async function prfOf(
  made: Made,
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
  return (await usePrf(rp.id, salt, [made.id])).prf;
}

/**
 * Creates a passkey and adds it.
 *
 * Where nothing but the owner's factors opens the backup, a PIN or recovery codes come first (`prf-only-slot`): a
 * passkey alone would be lost with its authenticator.
 *
 * @param names the account as authenticators show it, and the passkey in the owner's list
 */
export async function addPasskey(
  custody: Custody,
  names: { readonly user?: string; readonly passkey?: string } = {},
): Promise<AddedPasskey> {
  const rewrap = await (await onDemand()).rewrapping(custody);
  if (rewrap.hasOnlyPrf) {
    throw new NotReady("prf-only-slot", "set a PIN or recovery codes before the first passkey");
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
    secrets: await rewrap.with(key ? [key] : []),
  };
  const bound = await making(custody, key, () =>
    custody.transport.request("post", "/v1/account/passkeys", { body }),
  );
  await demand(custody, "passkey", bound);
  if (key) await rewrap.done();
  const { device_id: deviceId } = bound;
  return { deviceId, prf: prf && { ...prf, deviceId } };
}

/** Confirms a passkey that expires, by using it. */
export async function confirmPasskey(custody: Custody, deviceId: string): Promise<void> {
  const options = await custody.transport.request("post", "/v1/account/passkeys/options", {
    body: { confirm: deviceId },
  });
  const used = await usePasskey(options.publicKey);
  await custody.transport.request("post", "/v1/account/passkeys/{device_id}/confirm", {
    path: { device_id: deviceId },
    body: { ceremony: options.ceremony, credential: used.credential as never },
  });
}

/** Removes a passkey. */
export async function removePasskey(custody: Custody, deviceId: string): Promise<Removed> {
  const path = { device_id: deviceId };
  const route = "/v1/account/passkeys/{device_id}";
  const { removing } = await onDemand();
  const removed = await removing(custody, { type: "prf", credential: deviceId }, (secrets) =>
    custody.transport.request("delete", route, { path, body: { secrets } }),
  );
  await dropOfflinePasskey(custody, deviceId);
  return removed;
}

/** Begins with an authenticator app: its secret as a URI and as pictures to scan. */
export async function enrolTotp(
  custody: Custody,
  label?: string,
): Promise<Schemas["TotpEnrolment"]> {
  const body = label === undefined ? {} : { label };
  const enrolment = await custody.transport.request("post", "/v1/account/totp", { body });
  await demand(custody, "totp", enrolment.totp);
  return enrolment;
}

/** Confirms the authenticator app with its first code. The session goes on. */
export async function confirmTotp(custody: Custody, code: string): Promise<void> {
  const body = { code };
  const answer = await custody.transport.request("post", "/v1/account/totp/confirm", { body });
  await demand(custody, "totp", answer.totp);
  custody.transport.session = answer.session;
}

/** Removes the authenticator app. */
export async function removeTotp(custody: Custody): Promise<void> {
  await custody.transport.request("delete", "/v1/account/totp");
}

/** Makes ten recovery codes in place of all earlier ones. Show their `text` once; it is kept nowhere. */
export async function setRecoveryCodes(custody: Custody): Promise<RecoveryCode[]> {
  const rewrap = await (await onDemand()).rewrapping(custody);
  const codes = await newRecoveryCodes();
  const keys = codes.map(async ({ auth, slot: material }): Promise<SlotKey> => {
    return { type: "recovery-code", credential: await codeCredential(auth), material };
  });
  const body = {
    codes: codes.map((code) => toBase64Url(code.auth)),
    secrets: await rewrap.with(await Promise.all(keys), "recovery-code"),
  };
  const answer = await custody.transport.request("post", "/v1/account/recovery-codes", { body });
  await demand(custody, "recovery-codes", answer.recovery_codes);
  await rewrap.done();
  custody.transport.session = answer.session;
  return codes;
}

/** Makes all recovery codes void. */
export async function removeRecoveryCodes(custody: Custody): Promise<Removed> {
  const { removing } = await onDemand();
  return removing(custody, { type: "recovery-code" }, (secrets) =>
    custody.transport.request("delete", "/v1/account/recovery-codes", { body: { secrets } }),
  );
}

/** Cancels a change that waits because a weak factor asked for it. */
export async function cancelRecovery(custody: Custody): Promise<void> {
  await custody.transport.request("delete", "/v1/account/recovery");
}
