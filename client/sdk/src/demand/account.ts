/** The account as a whole: erased, or with this device bound to it. Called by `../account.ts`. */
import type { Custody } from "../custody.js";
import { t } from "./t.js";

/** Erases it, and forgets this device. */
export async function erase(custody: Custody): Promise<void> {
  // Else what is another account's here would go with it.
  await t.ours(custody, [], () => undefined);
  const body = { confirm: t.accountOf(custody) };
  await custody.transport.request("delete", "/v1/account", { body });
  await t.forgetDevice(custody);
}

/** Binds this device to the account of the session. */
export async function bindThisDevice(custody: Custody, name?: string): Promise<void> {
  const body = name === undefined ? {} : { name };
  const answer = await custody.transport.request("post", "/v1/account/devices", { body });
  const account = t.accountOf(custody);
  const { thumbprint } = custody.device;
  await t.verifyBinding(custody.realm, answer.device.binding, {
    app: custody.app,
    sub: account,
    kind: "device-key",
    device_id: thumbprint,
  });
  custody.transport.session = answer.session;
  await t.keepAccount(custody, { account, boundDevice: thumbprint });
}
