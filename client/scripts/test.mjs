// Bundles tests and runs them with Node's own runner.
//
//   node scripts/test.mjs                  the SDK's unit tests
//   node scripts/test.mjs e2e/flows.ts     tests in a browser; tests/client starts these, and make bench bench/unlock.ts
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = fileURLToPath(new URL("..", import.meta.url));
const given = process.argv.slice(2);
const unit = readdirSync(join(root, "sdk/test")).filter((name) => name.endsWith(".test.ts"));
const files = given.length > 0 ? given : unit.map((name) => `sdk/test/${name}`);
// Inside node_modules, where packages that are not bundled are found; its own folder for each run.
const out = mkdtempSync(join(root, "node_modules/.run-"));
try {
  await build({
    absWorkingDir: root,
    entryPoints: files,
    outdir: out,
    outExtension: { ".js": ".mjs" },
    entryNames: "[name]",
    bundle: true,
    format: "esm",
    platform: "node",
    target: "node18",
    packages: "external",
    inject: [join(root, "scripts/node.mjs")],
    logLevel: "warning",
  });
  const built = files.map((name) => join(out, basename(name).replace(/\.ts$/, ".mjs")));
  const ran = spawnSync(process.execPath, ["--test", ...built], { cwd: root, stdio: "inherit" });
  process.exitCode = ran.status ?? 1;
} finally {
  rmSync(out, { recursive: true, force: true });
}
