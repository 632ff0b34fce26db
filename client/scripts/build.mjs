// Builds the SDK into sdk/dist, as it is published: ES modules and their types.
import { execFileSync } from "node:child_process";
import { rmSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
rmSync(`${root}/sdk/dist`, { recursive: true, force: true });
execFileSync(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "sdk/tsconfig.json"], {
  cwd: root,
  stdio: "inherit",
});
