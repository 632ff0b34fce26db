/**
 * A new set of recovery codes, with slots of the device secret in the same commit.
 *
 * Loaded by `../factors.ts`; `rotate.ts` sends them with another device secret.
 */
import type { Custody } from "../custody.js";
import type { SlotKey } from "../slots.js";
import type { Schemas } from "../transport.js";
import { along } from "./along.js";
import { codeCredential, newRecoveryCodes, type RecoveryCode } from "./recovery-codes.js";
import { rewrapping } from "./rewrap.js";
import { t } from "./t.js";

/** Makes codes in place of all earlier ones. */
export async function setCodes(custody: Custody): Promise<RecoveryCode[]> {
  const rewrap = await rewrapping(custody);
  const { codes, keys } = await freshCodes();
  await along(custody, rewrap, keys, (secrets) => sendCodes(custody, codes, secrets));
  await rewrap.done();
  // Those of a rotation that wait to be seen are void.
  await t.rotationSeen(custody);
  return codes;
}

/** Codes, and what makes their slots. */
export async function freshCodes(): Promise<{ codes: RecoveryCode[]; keys: SlotKey[] }> {
  const codes = await newRecoveryCodes();
  const keys = codes.map(async ({ auth, slot: material }): Promise<SlotKey> => {
    return { type: "recovery-code", credential: await codeCredential(auth), material };
  });
  return { codes, keys: await Promise.all(keys) };
}

/** One commit: the codes, and the secrets that go along. The session goes on. */
export async function sendCodes(
  custody: Custody,
  codes: readonly RecoveryCode[],
  secrets: Record<string, Schemas["Rewrapped"]>,
): Promise<void> {
  const body = { codes: codes.map(({ auth }) => t.toBase64Url(auth)), secrets };
  const answer = await custody.transport.request("post", "/v1/account/recovery-codes", { body });
  await t.demandBound(custody, "recovery-codes", answer.recovery_codes);
  custody.transport.session = answer.session;
}
