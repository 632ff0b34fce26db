// The content policy of the demo's pages: no inline script, no eval; WebAssembly for Argon2id, and daemons to talk to.
// What serves them and what tests them take it from here.

/** @param {readonly string[]} daemons addresses of daemons */
export const contentPolicy = (daemons) =>
  [
    "default-src 'none'",
    "script-src 'self' 'wasm-unsafe-eval'",
    "style-src 'self'",
    "img-src 'self' data:",
    "manifest-src 'self'",
    `connect-src 'self' ${daemons.join(" ")}`,
    "worker-src 'self'",
    "base-uri 'none'",
    "form-action 'self'",
    "frame-ancestors 'none'",
  ].join("; ");

/** Types of what the built demo holds, by extension. */
export const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".svg": "image/svg+xml",
  ".png": "image/png",
  ".json": "application/json",
  ".webmanifest": "application/manifest+json",
};
