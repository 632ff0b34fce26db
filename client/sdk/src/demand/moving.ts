/**
 * The secrets that hang on the device secret, moved after it: each is sealed anew, under the device secret and under
 * nothing that the daemon has.
 *
 * Loaded by `upkeep.ts` while an app's server slots end. Where it breaks off, the next sign-in finds what is left.
 */
import type { Custody } from "../custody.js";
import type { CustodyError } from "../errors.js";
import type { Slot } from "../slots.js";
import type { Closed, Upkeep } from "../upkeep.js";
import { reread } from "./reread.js";
import { t } from "./t.js";

/** Another device may be at it, too. */
const TRIES = 4;

/** Moves the rest, once the device secret is moved. */
export async function moveRest(
  custody: Custody,
  first: boolean,
  why: CustodyError | undefined,
): Promise<Upkeep | undefined> {
  const moved = first ? [t.DEVICE_SECRET] : [];
  const left: string[] = [];
  let error = why;
  try {
    const { secrets } = await custody.transport.request("get", "/v1/account/secrets");
    const names = secrets.filter((entry) => entry.server_slot).map(({ name }) => name);
    // Under a device secret that the daemon can open they would be no better kept.
    if (names.includes(t.DEVICE_SECRET)) left.push(...names);
    else {
      for (const name of names) {
        const failed = await tried(() => moveOne(custody, name));
        (failed ? left : moved).push(name);
        error ??= failed;
      }
    }
    if (moved.length + left.length === 0 && !error) return undefined;
    return { moved, left, closed: await closedTo(custody), error };
  } catch (failed) {
    if (!(failed instanceof t.CustodyError)) throw failed;
    return { moved, left, closed: [], error: error ?? failed };
  }
}

async function tried(step: () => Promise<void>): Promise<CustodyError | undefined> {
  try {
    await step();
    return undefined;
  } catch (error) {
    if (!(error instanceof t.CustodyError)) throw error;
    return error;
  }
}

async function moveOne(custody: Custody, name: string): Promise<void> {
  for (let tries = 1; ; tries += 1) {
    const route = "/v1/account/secrets/{name}";
    const secret = await custody.transport.request("get", route, { path: { name } });
    if (!t.opensToDaemon(secret)) return;
    const { content } = await t.openWith(custody, name, secret);
    try {
      await t.put(custody, name, secret.version, await t.sealedSecret(custody, name, content));
      return;
    } catch (error) {
      if (!(error instanceof t.VersionConflict) || tries === TRIES) throw error;
    }
  }
}

/** The same as it is stored now. */
export async function closedWays(custody: Custody): Promise<Closed[]> {
  await reread(custody);
  return closedTo(custody);
}

/** The factors that bring nothing back now that the daemon does not. */
export async function closedTo(
  custody: Custody,
  slots: readonly Slot[] | undefined = custody.held?.slots,
): Promise<Closed[]> {
  const { held } = custody;
  if (!held || !slots || held.leaves || held.server) return [];
  const view = await custody.transport.request("get", "/v1/account");
  const has = (type: string, credential?: string) =>
    slots.some(
      (slot) => slot.type === type && (credential === undefined || slot.credential === credential),
    );
  const closed: Closed[] = [];
  if (view.passkeys.some((passkey) => !has("prf", passkey.device_id))) closed.push("passkey");
  if (view.pin && !has("opaque")) closed.push("pin");
  if (view.recovery_codes && !has("recovery-code")) closed.push("recovery-code");
  if (view.totp) closed.push("totp");
  return closed;
}
