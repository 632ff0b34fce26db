/** The account as a whole: erased, or with this device bound to it. Called by `../account.ts`. */
import type { Custody } from "../custody.js";
import { goingOn } from "./going-on.js";
import { t } from "./t.js";

/** Records that have their account's name in theirs. */
const NAMED = /^(?:of|copy|queue|lost|seen)\/([^/]*)\//;

/**
 * Erases it, and forgets it here: the whole device, where no other account was signed in to on it. What another one has here, an
 * enrolment with its only key perhaps, stays with the device key, which that one is bound to.
 */
export async function erase(custody: Custody): Promise<void> {
  // What is another account's by now is not this one's to erase.
  await t.ours(custody, [], () => undefined);
  const account = t.accountOf(custody);
  await custody.transport.request("delete", "/v1/account", { body: { confirm: account } });
  const keys = (await custody.storage.list("")).map(([key]) => key);
  const isTheirs = (key: string) => (NAMED.exec(key)?.[1] ?? account) !== account;
  if (!keys.some(isTheirs)) {
    await t.forgetDevice(custody);
    return;
  }
  t.lock(custody);
  await t.ours(custody, [t.LOG], (update) => {
    const log = t.remembered(update.get(t.LOG));
    const receipts = log.receipts.filter((one) => one.account !== account);
    for (const key of keys) if (key !== t.KEPT.device && !isTheirs(key)) update.delete(key);
    update.delete(t.KEPT.account);
    // The log is the realm's, and what was seen of it is to go on.
    update.set(t.LOG, { ...log, receipts });
  });
  custody.account = undefined;
  custody.transport.session = undefined;
}

/** Binds this device to the account of the session. */
export async function bindThisDevice(custody: Custody, name?: string): Promise<void> {
  const goOn = goingOn(custody);
  const account = t.accountOf(custody);
  const body = name === undefined ? {} : { name };
  const answer = await custody.transport.request("post", "/v1/account/devices", { body });
  const { thumbprint } = custody.device;
  await t.verifyBinding(custody.realm, answer.device.binding, {
    app: custody.app,
    sub: account,
    kind: "device-key",
    device_id: thumbprint,
  });
  goOn(answer.session);
  // Signed in to another one meanwhile, this device is that one's, and learns at the next sign-in that it is this one's, too.
  if (custody.account?.account !== account) return;
  await t.keepAccount(custody, { account, boundDevice: thumbprint });
}
