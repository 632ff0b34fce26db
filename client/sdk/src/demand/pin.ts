/**
 * A PIN that is set. Loaded by `../factors.ts`, which says what it does.
 */
import type { Custody } from "../custody.js";
import type { PinMade, PinOptions } from "../factors.js";
import type { Made } from "./along.js";
import { renewOfflinePin } from "./ended.js";
import { goingOn } from "./going-on.js";
import { registerPin } from "./opaque.js";
import { changing, type Rewrapping } from "./rewrap.js";
import { t } from "./t.js";
import { missing } from "./upkeep.js";

/** Sets it, changes it, or replaces a forgotten one. */
export async function setPin(
  custody: Custody,
  pin: string,
  { onServer = false }: PinOptions,
): Promise<PinMade> {
  const slot = await changing(custody, (rewrap) =>
    onServer ? sent(custody, pin, rewrap) : registered(custody, pin, rewrap),
  );
  return { slot, undone: await t.afterwards("offline", () => renewOfflinePin(custody, pin)) };
}

/** For the daemon to hash. */
async function sent(custody: Custody, pin: string, rewrap: Rewrapping): Promise<Made["slot"]> {
  // Such a PIN carries no backup, which would wait on this device for as long as there is no other factor.
  if (rewrap.waits) throw missing();
  const goOn = goingOn(custody);
  const made = await custody.transport.request("put", "/v1/account/pin", { body: { pin } });
  await t.demandBound(custody, "pin", made.pin);
  t.forget(custody, { type: "opaque" });
  await rewrap.done();
  custody.pin = made.pin.device_id;
  goOn(made.session);
  return "missing";
}

/** By OPAQUE. */
async function registered(
  custody: Custody,
  pin: string,
  rewrap: Rewrapping,
): Promise<Made["slot"]> {
  const goOn = goingOn(custody);
  const [made, slot] = await registerPin(custody, pin, rewrap);
  await t.demandBound(custody, "pin", made.pin);
  await rewrap.done();
  custody.pin = made.pin.device_id;
  goOn(made.session);
  return slot;
}
