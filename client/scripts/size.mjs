// Builds the SDK and prints how much of it an app loads that imports everything, minified and
// compressed; what is loaded on demand (Argon2id) is counted by itself.
import { gzipSync } from "node:zlib";
import { rmSync } from "node:fs";
import { build } from "esbuild";
import "./build.mjs";

const made = await build({
  entryPoints: ["sdk/dist/index.js"],
  bundle: true,
  minify: true,
  splitting: true,
  format: "esm",
  target: "es2022",
  outdir: "size",
  write: false,
});
for (const file of made.outputFiles) {
  const name = file.path.endsWith("/index.js") ? "sdk_gzip_bytes" : "on_demand_gzip_bytes";
  console.log(`${name} ${gzipSync(file.contents, { level: 9 }).length}`);
}
rmSync("size", { recursive: true, force: true });
