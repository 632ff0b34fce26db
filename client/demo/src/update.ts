/**
 * A new version of the app itself: it waits until the tabs of the old one are gone, or until somebody asks for it here.
 * What is typed in a page is its owner's, so no page is loaded again by itself.
 */
import { button, h } from "./dom.js";
import { TAKE_OVER } from "./messages.js";

function offer(waiting: ServiceWorker): void {
  if (document.querySelector(".update")) return;
  const load = button("Load it", () => {
    navigator.serviceWorker.addEventListener("controllerchange", () => {
      location.reload();
    });
    waiting.postMessage(TAKE_OVER);
  });
  const text = "There is a new version of this app.";
  document.body.prepend(h("aside", { class: "banner update", role: "status" }, text, load));
}

/** Registers the service worker, and offers what it brings. Waits for nothing: the page works without it. */
export function offerUpdates(): void {
  if (!("serviceWorker" in navigator)) return;
  const { serviceWorker } = navigator;
  const follow = (registration: ServiceWorkerRegistration): void => {
    const look = (): void => {
      // Without a controller it is the first one, which nobody waits for.
      if (registration.waiting && serviceWorker.controller) offer(registration.waiting);
    };
    look();
    registration.addEventListener("updatefound", () => {
      registration.installing?.addEventListener("statechange", look);
    });
  };
  serviceWorker.register("/sw.js").then(follow, () => undefined);
}
