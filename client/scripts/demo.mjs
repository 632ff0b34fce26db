// Builds the demo into a folder that any web server can serve.
//
//   node scripts/demo.mjs CONFIG.json [FOLDER]
//
// CONFIG.json is { url, app, realm: { name, keys } }: the daemon, and the realm's keys that the page pins.
import { createHash } from "node:crypto";
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = fileURLToPath(new URL("..", import.meta.url));
const [config, folder = join(root, "demo/dist")] = process.argv.slice(2);
if (!config) {
  console.error("usage: node scripts/demo.mjs CONFIG.json [FOLDER]");
  process.exit(2);
}
rmSync(folder, { recursive: true, force: true });
mkdirSync(folder, { recursive: true });
cpSync(join(root, "demo/static"), folder, { recursive: true });
cpSync(config, join(folder, "config.json"));
const shared = {
  absWorkingDir: root,
  alias: { "@custodyd/sdk": join(root, "sdk/src/index.ts") },
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  outdir: folder,
  logLevel: "warning",
};
await build({ ...shared, entryPoints: ["demo/src/main.ts"], splitting: true });
const files = readdirSync(folder).map((name) => `/${name}`);
const hash = createHash("sha256");
for (const name of files) hash.update(name).update(readFileSync(join(folder, name)));
const define = {
  VERSION: JSON.stringify(hash.digest("hex").slice(0, 16)),
  FILES: JSON.stringify(files),
};
await build({ ...shared, entryPoints: ["demo/src/sw.ts"], define });
writeFileSync(join(folder, ".built"), "");
