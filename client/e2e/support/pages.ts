/** Serves pages over TLS, with the daemon's own test certificate and a strict content policy. */
import { readFileSync } from "node:fs";
import { createServer, type Server } from "node:https";
import { build } from "esbuild";
import { contentPolicy } from "../../scripts/policy.mjs";
import { realms, world } from "./world.js";

/** What is served at one path. */
export interface Served {
  readonly body: string | Buffer;
  readonly type: string;
  /** `false` for controls: without the content policy. */
  readonly policy?: false;
}

/** By path. */
export type Site = ReadonlyMap<string, Served>;

/** As what serves the demo has it, for the daemons of this run. */
export const POLICY = contentPolicy([world.url, ...realms.slice(1).map(({ url }) => url)]);

/** A server on the origin of the app's policy. */
export async function serve(site: Site): Promise<Server> {
  const cert = readFileSync(`${world.folder}/certificate.pem`);
  const key = readFileSync(`${world.folder}/private-key.pem`);
  const server = createServer({ cert, key }, (request, response) => {
    const path = new URL(request.url ?? "/", "https://localhost").pathname;
    const found = site.get(path) ?? (path === "/" ? site.get("/index.html") : undefined);
    if (found?.policy !== false) response.setHeader("Content-Security-Policy", POLICY);
    response.setHeader("X-Content-Type-Options", "nosniff");
    response.setHeader("Content-Type", found?.type ?? "text/plain");
    response.statusCode = found ? 200 : 404;
    response.end(found?.body ?? "not found");
  });
  await new Promise<void>((resolve) => server.listen(world.pages, "127.0.0.1", resolve));
  return server;
}

/** An empty page with the whole SDK as `sdk` and `threshold`, from its sources. */
export async function sdkPage(): Promise<Site> {
  const made = await build({
    stdin: {
      contents: `
        import * as sdk from "./sdk/src/index.ts";
        import * as threshold from "./sdk/src/threshold/index.ts";
        Object.assign(globalThis, { sdk, threshold });`,
      resolveDir: process.cwd(),
    },
    bundle: true,
    format: "esm",
    target: "es2022",
    write: false,
  });
  const script = made.outputFiles[0]?.text ?? "";
  const html =
    '<!doctype html><html lang="en"><title>SDK</title><script type="module" src="/sdk.js"></script></html>';
  return new Map([
    ["/index.html", { body: html, type: "text/html" }],
    ["/sdk.js", { body: script, type: "text/javascript" }],
  ]);
}
