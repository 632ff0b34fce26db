/** An authenticator app. Called by `../factors.ts`. */
import type { Custody } from "../custody.js";
import type { Schemas } from "../transport.js";
import { t } from "./t.js";

/** Begins with one. */
export async function enrolTotp(
  custody: Custody,
  label?: string,
): Promise<Schemas["TotpEnrolment"]> {
  const body = label === undefined ? {} : { label };
  const enrolment = await custody.transport.request("post", "/v1/account/totp", { body });
  await t.demandBound(custody, "totp", enrolment.totp);
  return enrolment;
}

/** Proves that it works. */
export async function confirmTotp(custody: Custody, code: string): Promise<void> {
  const body = { code };
  const answer = await custody.transport.request("post", "/v1/account/totp/confirm", { body });
  await t.demandBound(custody, "totp", answer.totp);
  custody.transport.session = answer.session;
}
