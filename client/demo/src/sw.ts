/**
 * The service worker: keeps the app itself, so that it opens without a network. It never sees what
 * goes to the daemon, which is on another origin.
 *
 * Each version has a cache of its own. A page loads parts of its version as it needs them, so that an older cache stays
 * for as long as there may be a page of it: a new version takes over where nobody has the old one open, or where a page
 * asks for it, and then answers the other pages from theirs.
 */
/// <reference lib="webworker" />
import { AWAKE, SEND, TAKE_OVER } from "./messages.js";

declare const self: ServiceWorkerGlobalScope;
/** Set by the build: a hash over all files, and their paths. */
declare const VERSION: string;
declare const FILES: readonly string[];

/** Caches of other apps on this origin are not ours. */
const OURS = "notebook/";
const CACHE = OURS + VERSION;

self.addEventListener("install", (event) => {
  const fill = async (): Promise<void> => {
    const cache = await caches.open(CACHE);
    await cache.addAll(FILES.map((path) => new Request(path, { cache: "reload" })));
  };
  event.waitUntil(fill());
});

self.addEventListener("message", (event) => {
  if (event.data === TAKE_OVER) event.waitUntil(self.skipWaiting());
});

/** Wakes the pages: they have what it takes to send. Where none is open, the next one sends when it is opened. */
async function wake(): Promise<void> {
  for (const page of await self.clients.matchAll({ type: "window", includeUncontrolled: true }))
    page.postMessage(AWAKE);
}

addEventListener("sync", (event) => {
  const asked = event as ExtendableEvent & { readonly tag: string };
  if (asked.tag === SEND) asked.waitUntil(wake());
});

/** Older versions, newest first. */
async function older(): Promise<string[]> {
  const names = await caches.keys();
  return names.filter((name) => name.startsWith(OURS) && name !== CACHE).reverse();
}

/** Deletes older versions where no page is open that could be of one. */
async function clean(): Promise<void> {
  const pages = await self.clients.matchAll({ type: "window", includeUncontrolled: true });
  if (pages.length > 0) return;
  for (const name of await older()) await caches.delete(name);
}

self.addEventListener("activate", (event) => {
  event.waitUntil(clean().then(() => self.clients.claim()));
});

async function answer(request: Request, path: string): Promise<Response> {
  for (const name of [CACHE, ...(await older())]) {
    const found = await caches.match(path, { cacheName: name });
    if (found) return found;
  }
  return fetch(request);
}

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (event.request.method !== "GET" || url.origin !== location.origin) return;
  const path = url.pathname === "/" ? "/index.html" : url.pathname;
  event.respondWith(answer(event.request, path));
  // The page that is coming is not among those that are open yet.
  if (event.request.mode === "navigate") event.waitUntil(clean());
});
