/** An authenticator app. Called by `../factors.ts`. */
import type { Custody } from "../custody.js";
import type { Schemas } from "../transport.js";
import { nothingWaits, waitsForWay } from "./enrol.js";
import { goingOn } from "./going-on.js";
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
  const goOn = goingOn(custody);
  const [waits, body] = [await waitsForWay(custody), { code }];
  const answer = await custody.transport.request("post", "/v1/account/totp/confirm", { body });
  await t.demandBound(custody, "totp", answer.totp);
  goOn(answer.session);
  if (waits) await nothingWaits(custody);
}
