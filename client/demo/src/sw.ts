/**
 * The service worker: keeps the app itself, so that it opens without a network. It never sees what
 * goes to the daemon, which is on another origin.
 */
/// <reference lib="webworker" />
declare const self: ServiceWorkerGlobalScope;
/** Set by the build: a hash over all files, and their paths. */
declare const VERSION: string;
declare const FILES: readonly string[];

self.addEventListener("install", (event) => {
  const fill = async (): Promise<void> => {
    const cache = await caches.open(VERSION);
    await cache.addAll(FILES.map((path) => new Request(path, { cache: "reload" })));
    await self.skipWaiting();
  };
  event.waitUntil(fill());
});

self.addEventListener("activate", (event) => {
  const clean = async (): Promise<void> => {
    const names = await caches.keys();
    await Promise.all(names.filter((name) => name !== VERSION).map((name) => caches.delete(name)));
    await self.clients.claim();
  };
  event.waitUntil(clean());
});

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (event.request.method !== "GET" || url.origin !== location.origin) return;
  const path = url.pathname === "/" ? "/index.html" : url.pathname;
  const answer = async (): Promise<Response> => {
    const cache = await caches.open(VERSION);
    return (await cache.match(path)) ?? fetch(event.request);
  };
  event.respondWith(answer());
});
