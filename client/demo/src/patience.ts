/**
 * How long a person waits for a service that does not answer: not long, where this device can go on without it. And what came of
 * it, which the page says.
 */
import { CustodyError, Refused, Unreachable } from "@custodyd/sdk";

/** Milliseconds. */
const PATIENCE = 3000;
/** For so long a service that did not answer is not waited for in full again. */
const HURRY = 30_000;

let hurried = 0;

/** What came of the last question: an answer; word that the service can do nothing now, its own or a proxy's; or nothing. */
let heard: "answer" | "word" | "nothing" = "answer";

/** Whether nobody has answered the last question in earnest; `word` where somebody has said so. */
export const isSilent = (): "word" | "nothing" | undefined =>
  heard === "answer" ? undefined : heard;

/** `fetch`, for a custody. */
export const patiently: typeof fetch = async (input, init) => {
  const signal = Date.now() < hurried && { signal: AbortSignal.timeout(PATIENCE) };
  try {
    const response = await fetch(input, { ...init, ...signal });
    heard = response.status < 500 ? "answer" : "word";
    return response;
  } catch (error) {
    heard = "nothing";
    throw error;
  }
};

/** Whether the service is out of reach, or says that it can do nothing now. What it found altered is no such thing. */
export const isAway = (error: unknown): error is CustodyError =>
  error instanceof Unreachable ||
  (error instanceof Refused && error.status >= 500 && !error.code.endsWith("tampered"));

/** The network is another one: it gets its time. */
export function waitAgain(): void {
  hurried = 0;
}

/** Whether the service at this address answers at all. */
export async function answers(url: string): Promise<boolean> {
  waitAgain();
  try {
    const signal = AbortSignal.timeout(PATIENCE);
    await fetch(`${url}/.well-known/jwks.json`, { signal, cache: "no-store", credentials: "omit" });
    return true;
  } catch {
    hurried = Date.now() + HURRY;
    return false;
  }
}
