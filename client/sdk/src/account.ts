/**
 * The account itself: what it holds, its devices, keys and addresses; taking it out, erasing it.
 */
import type { Custody } from "./custody.js";
import type { Unlocked } from "./keys.js";
import { onDemand } from "./tools.js";
import type { Schemas } from "./transport.js";

/** Everything the owner may see of the account, without its secrets. */
export async function viewAccount(custody: Custody): Promise<Schemas["AccountView"]> {
  return custody.transport.request("get", "/v1/account");
}

/** The owner's data in one document. Secrets that this session's factor may not have are named only. */
export async function exportAccount(custody: Custody): Promise<Schemas["Export"]> {
  return custody.transport.request("get", "/v1/account/export");
}

/** Erases the account for good, and forgets it on this device: all of this device, where it has no other account's records. */
export async function eraseAccount(custody: Custody): Promise<void> {
  await (await onDemand()).erase(custody);
}

/** Binds this device to the account of the session. */
export async function bindThisDevice(custody: Custody, name?: string): Promise<void> {
  await (await onDemand()).bindThisDevice(custody, name);
}

/** Removes another device: its key is a stranger's from now on, and its sessions are over. */
export async function removeDevice(custody: Custody, deviceId: string): Promise<void> {
  const path = { device_id: deviceId };
  await custody.transport.request("delete", "/v1/account/devices/{device_id}", { path });
}

/** Binds a further app key to the account. Returns its binding. */
export async function addAppKey(custody: Custody, key: Unlocked): Promise<string> {
  return (await onDemand()).addAppKey(custody, key);
}

/** Revokes an app key; the last one stays. */
export async function removeAppKey(custody: Custody, deviceId: string): Promise<void> {
  const path = { device_id: deviceId };
  await custody.transport.request("delete", "/v1/account/app-keys/{device_id}", { path });
}

/** An address of the owner's. */
export type Address = { readonly email: string } | { readonly phone: string };

/** An address that was claimed, and waits for the code that was sent to it. */
export interface Claim {
  readonly id: string;
  /** Until when the code is good. */
  readonly expires: Date;
}

/** Claims a contact: codes and notices go there once it is confirmed. */
export async function claimContact(
  custody: Custody,
  address: Address,
  replaces?: string,
): Promise<Claim> {
  const body = replaces === undefined ? { ...address } : { ...address, replaces };
  const claimed = await custody.transport.request("put", "/v1/account/contact", { body });
  return { id: claimed.id, expires: new Date(claimed.expires * 1000) };
}

/** Confirms a contact with the code that came. */
export async function confirmContact(
  custody: Custody,
  claim: { id: string },
  code: string,
): Promise<void> {
  const body = { id: claim.id, code: code.trim() };
  await custody.transport.request("post", "/v1/account/contact/confirm", { body });
}

/** Removes a contact. */
export async function removeContact(custody: Custody, id: string): Promise<void> {
  await custody.transport.request("delete", "/v1/account/contact", { body: { id } });
}

/** Claims an address that says which account is meant, without getting codes. */
export async function claimAlias(custody: Custody, address: Address): Promise<Claim> {
  const body = { ...address };
  const claimed = await custody.transport.request("put", "/v1/account/alias", { body });
  return { id: claimed.id, expires: new Date(claimed.expires * 1000) };
}

/** Confirms an alias with the code that came. */
export async function confirmAlias(
  custody: Custody,
  claim: { id: string },
  code: string,
): Promise<void> {
  const body = { id: claim.id, code: code.trim() };
  await custody.transport.request("post", "/v1/account/alias/confirm", { body });
}

/** Removes an alias. */
export async function removeAlias(custody: Custody, id: string): Promise<void> {
  await custody.transport.request("delete", "/v1/account/alias", { body: { id } });
}
