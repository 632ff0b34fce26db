// Builds the SDK and prints how much of it an app loads that imports everything, minified and
// compressed; what is loaded on demand (OPAQUE, Argon2id) and threshold mode, an entry of its own,
// are counted by themselves.
import { gzipSync } from "node:zlib";
import { rmSync } from "node:fs";
import { basename } from "node:path";
import { build } from "esbuild";
import "./build.mjs";

const size = (file) => gzipSync(file.contents, { level: 9 }).length;
// What is loaded with this file at once: itself, and chunks that it shares with what is loaded on demand.
const atOnce = ({ metafile }, name) => {
  const found = new Set();
  const add = (path) => {
    if (found.has(path)) return;
    found.add(path);
    const imports = metafile.outputs[path]?.imports ?? [];
    for (const { path, kind } of imports) if (kind === "import-statement") add(path);
  };
  add(Object.keys(metafile.outputs).find((path) => basename(path) === name));
  return new Set([...found].map((path) => basename(path)));
};
const shared = {
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  outdir: "size",
  write: false,
  metafile: true,
};
const whole = await build({ ...shared, entryPoints: ["sdk/dist/index.js"], splitting: true });
const first = atOnce(whole, "index.js");
let [loaded, demanded] = [0, 0];
for (const file of whole.outputFiles) {
  if (first.has(basename(file.path))) loaded += size(file);
  else demanded += size(file);
}
console.log(`sdk_gzip_bytes ${loaded}`);
console.log(`sdk_on_demand_gzip_bytes ${demanded}`);
// An app that imports both has the shared modules once: what threshold mode adds.
const both = "import * as sdk from './sdk/dist/index.js';" + "globalThis.sdk = sdk;";
const more =
  "import * as threshold from './sdk/dist/threshold/index.js'; globalThis.t = threshold;";
const [without, added] = await Promise.all(
  [both, both + more].map(async (contents) => {
    const stdin = { contents, resolveDir: process.cwd() };
    const made = await build({ ...shared, stdin, splitting: true });
    const first = atOnce(made, "stdin.js");
    const files = made.outputFiles.filter(({ path }) => first.has(basename(path)));
    return files.reduce((sum, file) => sum + size(file), 0);
  }),
);
console.log(`sdk_threshold_gzip_bytes ${added - without}`);
rmSync("size", { recursive: true, force: true });
