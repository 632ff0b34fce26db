/**
 * What is left of the ways to unlock once the service has given up its own: told where a person looks for them, and
 * forgotten once it is mended.
 *
 * The SDK tells it in the sign-in that moved the secrets, or where the secret was renewed; so it is kept on this device, and
 * looked up again at each unlock while there is something to say. It is for the person to read, and decides nothing.
 */
import * as sdk from "@custodyd/sdk";
import { kept, keptAs, model } from "./model.js";

const CLOSED = "closed";

const WORDS: Readonly<Record<sdk.Closed, string>> = {
  pin: "Opens nothing any more. Change it once, and it does.",
  passkey: "One that opens nothing yet does once you use it right after the PIN.",
  "recovery-code": "Those from before open nothing any more. Make new ones.",
  totp: "Does not open the notebook any more.",
};

/** Keeps what was told. */
export async function told(closed: readonly sdk.Closed[]): Promise<void> {
  model.closed = closed;
  await kept(CLOSED, closed);
}

/** What was told before. */
export async function recall(): Promise<void> {
  model.closed = ((await keptAs(CLOSED)) ?? []) as readonly sdk.Closed[];
}

/** What was told may be mended by now: one passkey that was used says nothing of another one. */
async function lookAgain(): Promise<void> {
  if (model.closed.length === 0) return;
  try {
    await told(await sdk.closedWays(model.custody));
  } catch (error) {
    // Said once more than needed, until the next unlock.
    if (!(error instanceof sdk.CustodyError)) throw error;
  }
}

/** After a sign-in, or after secrets were moved; returns what to say of it. */
export async function tended(upkeep: sdk.Upkeep | undefined): Promise<string> {
  model.left = upkeep?.error;
  if (!upkeep || upkeep.moved.length === 0) {
    await lookAgain();
    return "";
  }
  await told(upkeep.closed);
  return upkeep.error ? "" : " From now on nobody but you can open your notebook.";
}

/** After a way was made anew: what waited for it is done. */
export async function mended(way: sdk.Closed): Promise<void> {
  await lookAgain();
  if (!model.left || way === "passkey") return;
  try {
    await tended(await sdk.moveSecrets(model.custody));
  } catch (error) {
    // The way is made all the same, and the next unlock goes on.
    if (!(error instanceof sdk.CustodyError)) throw error;
    model.left = error;
  }
}

/** A line below a way to unlock, where there is something to say. */
export function hintFor(way: sdk.Closed): string | undefined {
  return model.closed.includes(way) ? WORDS[way] : undefined;
}
