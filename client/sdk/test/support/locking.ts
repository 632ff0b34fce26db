/** `lock` at each step of a change: it came about whole or not at all, and nothing lies under zeros. */
import assert from "node:assert/strict";
import { type Bytes, equal, fromBase64Url, hkdf } from "../../src/bytes.js";
import { type Custody, lock } from "../../src/custody.js";
import { CustodyError } from "../../src/errors.js";
import { CODES } from "../../src/factors.js";
import { aesKey, open } from "../../src/keys.js";
import { ROTATION } from "../../src/rotation.js";
import { openContent, openSlot, type SlotKey } from "../../src/slots.js";
import type { Schemas } from "../../src/transport.js";
import { placeOf, Safe } from "./safe.js";
import { atStep } from "./steps.js";

export type Rewrapped = Record<string, Schemas["Rewrapped"]>;
const ZEROS = [32, 64].map((size) => new Uint8Array(size));

/** What opens to somebody who has the database and this device's storage, and knows nothing but that `lock` writes zeros. */
export async function opensToZeros(safe: Safe, custody: Custody): Promise<string[]> {
  const found: string[] = [];
  for (const [name, { sealed, server_slot: server, slots = [] }] of safe.secrets) {
    const [place, content] = [placeOf(name), fromBase64Url(sealed!)!];
    for (const material of ZEROS) {
      if (await openContent(place, material, content)) found.push(`content of ${name}`);
      for (const slot of slots)
        if (await openSlot(place, { ...slot, material }, slot))
          found.push(`${slot.type} of ${name}`);
    }
    const key = server == null ? undefined : fromBase64Url(server)!;
    const whole = key && (await openContent(place, key, content));
    if (whole?.every((byte) => byte === 0)) found.push(`${name} is zeros`);
  }
  for (const [shelf, label] of [
    [CODES, "custodyd/sdk/codes/v1"],
    [ROTATION, "custodyd/sdk/rotation/v2"],
  ] as const)
    for (const one of ((await custody.storage.get(shelf)) ?? []) as {
      sealed: Bytes;
      byCode?: Bytes;
    }[])
      for (const kept of [one.sealed, one.byCode])
        for (const material of ZEROS)
          if (kept && (await open(await aesKey(await hkdf(material, label)), label, kept)))
            found.push(`waiting ${shelf}`);
  return found;
}

/** Whether this factor's slot, where there is one, opens the device secret that its owner has. */
export async function opens(safe: Safe, by: SlotKey, secret: Uint8Array): Promise<boolean> {
  const [place, stored] = [placeOf("device-secret"), safe.secrets.get("device-secret")!];
  const slot = stored.slots!.find((one) => one.credential === by.credential);
  const key = slot && (await openSlot(place, by, slot));
  const content = key && (await openContent(place, key, fromBase64Url(stored.sealed!)!));
  return !!content && equal(content.slice(-secret.length), secret);
}

/** A change, and how it is told afterwards that it happened whole. */
interface Change<T> {
  readonly name: string;
  readonly endToEnd?: boolean;
  /** Of many steps that are alike, only so many. */
  readonly every?: number;
  /** Of those of before, which it takes the place of. */
  readonly gone?: readonly SlotKey["type"][];
  /** It goes on with a copy of all that it needs, wherever it is locked. */
  readonly isNeverStopped?: boolean;
  readonly before?: (safe: Safe, custody: Custody) => Promise<unknown>;
  readonly call: (custody: Custody, safe: Safe) => Promise<T>;
  /** What is the same where nothing has happened. Default: all that the daemon has. */
  readonly state?: (safe: Safe, custody: Custody) => unknown;
  readonly whole: (safe: Safe, custody: Custody, value: T | undefined) => Promise<unknown>;
}

/** `lock` comes at each step of it. */
export async function lockedAnywhere<T>(change: Change<T>): Promise<void> {
  const state =
    change.state ??
    ((safe: Safe) => [
      [...safe.secrets].map(([name, one]) => [name, one.version]),
      safe.sets.length,
    ]);
  let [none, whole] = [0, 0];
  for (let at = 1; ; at += change.every ?? 1) {
    const safe = await Safe.make(change.endToEnd ?? true);
    const custody = await safe.device();
    await safe.opened(custody, safe.pin, safe.passkey);
    await change.before?.(safe, custody);
    const before = JSON.stringify(await state(safe, custody));
    const { reached, value, error } = await atStep(
      custody,
      at,
      () => {
        lock(custody);
      },
      () => change.call(custody, safe),
    );
    const told = `${change.name}, locked at step ${at}: ${String(error)}`;
    const isSame = JSON.stringify(await state(safe, custody)) === before;
    assert.equal(isSame, error !== undefined, told);
    if (error !== undefined)
      assert.equal(error instanceof CustodyError && error.code, "locked", told);
    assert.deepEqual(await opensToZeros(safe, custody), [], told);
    if (reached) {
      const { unlocked, held, slotKeys } = custody;
      assert.deepEqual([unlocked, held, slotKeys], [undefined, undefined, []], told);
    }
    // Those of before open it, whatever came of it, but for what the change takes the place of.
    const { gone = [] } = change;
    for (const by of [safe.pin, safe.passkey].filter(
      ({ type }) => !gone.includes(type) || isSame,
    )) {
      if (!safe.endToEnd) break;
      assert.ok(await opens(safe, by, safe.first.secret), `${by.type}, ${told}`);
      const fresh = await safe.device();
      assert.equal((await safe.opened(fresh, by)).thumbprint, safe.first.thumbprint, told);
    }
    if (!isSame) await change.whole(safe, custody, value);
    if (isSame) none += 1;
    else whole += 1;
    if (!reached) break;
  }
  // Both were seen: locked before it was on its way, and after.
  assert.ok((none > 0 || change.isNeverStopped) && whole > 1, `${change.name}: ${none} ${whole}`);
}

/** As the daemon takes secrets along with a factor. */
export function take(safe: Safe, secrets: Rewrapped = {}): void {
  for (const [name, { content, slots }] of Object.entries(secrets)) {
    const before = safe.secrets.get(name)!;
    safe.write(name, content ?? { ...before, slots: slots! });
  }
}

export const bound = async (safe: Safe, kind: string, device_id: string) => ({
  device_id,
  binding: await safe.realm.binding({ app: "notes", sub: "a-1", kind, device_id }),
});
