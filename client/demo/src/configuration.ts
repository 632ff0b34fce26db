/** What was deployed beside the page: the service, and the realm's keys that this app pins. */
import type { CustodyOptions } from "@custodyd/sdk";

/** Asked for once in a page's life; the service worker keeps it. */
export async function configured(): Promise<CustodyOptions> {
  return (await (await fetch("/config.json")).json()) as CustodyOptions;
}
