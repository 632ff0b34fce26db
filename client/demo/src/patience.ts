/** How long a person waits for a service that does not answer: not long, where this device can go on without it. */

/** Milliseconds. */
const PATIENCE = 3000;
/** For so long a service that did not answer is not waited for in full again. */
const HURRY = 30_000;

let hurried = 0;

/** `fetch`, for a custody. */
export const patiently: typeof fetch = (input, init) =>
  fetch(input, { ...init, ...(Date.now() < hurried && { signal: AbortSignal.timeout(PATIENCE) }) });

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
