/**
 * Background Sync, where a browser has it: it wakes a page that waits for the network, sooner than the page would notice by
 * itself. What waits is sent by the page: a write needs the key and a session, which no service worker has.
 */
import { AWAKE, SEND } from "./messages.js";

/** Of the Background Synchronization API, which only some browsers have. */
interface SyncManager {
  register(tag: string): Promise<void>;
}

/** Asks to be woken. A browser that refuses leaves things as they are without. */
export async function wakeLater(): Promise<void> {
  try {
    const registration = (await navigator.serviceWorker.ready) as ServiceWorkerRegistration & {
      readonly sync?: SyncManager;
    };
    await registration.sync?.register(SEND);
  } catch {
    // The page sends when it hears of the network itself, and when it is opened.
  }
}

/** Calls `work` when the service worker says that there is a network. */
export function whenAwake(work: () => void): void {
  if (!("serviceWorker" in navigator)) return;
  navigator.serviceWorker.addEventListener("message", ({ data }) => {
    if (data === AWAKE) work();
  });
}
