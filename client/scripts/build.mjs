// Builds the SDK into sdk/dist, as it is published: ES modules and their types. The repository's licences go into the package.
import { execFileSync } from "node:child_process";
import { copyFileSync, rmSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
rmSync(`${root}/sdk/dist`, { recursive: true, force: true });
execFileSync(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "sdk/tsconfig.json"], {
  cwd: root,
  stdio: "inherit",
});
for (const name of ["LICENSE-APACHE", "LICENSE-MIT"])
  copyFileSync(`${root}/../${name}`, `${root}/sdk/${name}`);
