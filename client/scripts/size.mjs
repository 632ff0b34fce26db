// Builds the SDK and prints how much of it an app loads that imports everything, minified and
// compressed; what is loaded on demand (OPAQUE, Argon2id) and threshold mode, an entry of its own,
// are counted by themselves.
import { gzipSync } from "node:zlib";
import { rmSync } from "node:fs";
import { basename } from "node:path";
import { build } from "esbuild";
import "./build.mjs";

const size = (file) => gzipSync(file.contents, { level: 9 }).length;
const shared = {
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  outdir: "size",
  write: false,
};
const whole = await build({ ...shared, entryPoints: ["sdk/dist/index.js"], splitting: true });
let demanded = 0;
for (const file of whole.outputFiles) {
  if (basename(file.path) === "index.js") console.log(`sdk_gzip_bytes ${size(file)}`);
  else demanded += size(file);
}
console.log(`sdk_on_demand_gzip_bytes ${demanded}`);
// An app that imports both has the shared modules once: what threshold mode adds.
const both = "import * as sdk from './sdk/dist/index.js';" + "globalThis.sdk = sdk;";
const more =
  "import * as threshold from './sdk/dist/threshold/index.js'; globalThis.t = threshold;";
const [without, added] = await Promise.all(
  [both, both + more].map(async (contents) => {
    const stdin = { contents, resolveDir: process.cwd() };
    const made = await build({ ...shared, stdin, splitting: true });
    return size(made.outputFiles.find(({ path }) => basename(path) === "stdin.js"));
  }),
);
console.log(`sdk_threshold_gzip_bytes ${added - without}`);
rmSync("size", { recursive: true, force: true });
