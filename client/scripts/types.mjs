// Writes sdk/src/openapi.ts from the daemon's description, or says that it is out of date.
//
//   node scripts/types.mjs openapi.json           writes
//   node scripts/types.mjs openapi.json --check   exits with 1 where the committed file is another
import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import openapiTS, { astToString } from "openapi-typescript";

const [from, mode] = process.argv.slice(2);
if (!from || (mode && mode !== "--check")) {
  console.error("usage: node scripts/types.mjs openapi.json [--check]");
  process.exit(2);
}
const target = fileURLToPath(new URL("../sdk/src/openapi.ts", import.meta.url));
const head = `/**
 * The shapes of the daemon's REST interface, generated from its \`/openapi.json\` by
 * scripts/types.mjs. Never edited by hand; a test holds it against the daemon.
 */
`;
const description = JSON.parse(await readFile(from, "utf8"));
// Every refusal has the one shape `Problem`, and src/errors.ts knows the codes.
for (const item of Object.values(description.paths)) {
  for (const operation of Object.values(item)) {
    for (const status of Object.keys(operation.responses)) {
      if (status >= "300") delete operation.responses[status];
    }
  }
}
const text = head + astToString(await openapiTS(description));
if (mode === "--check") {
  const committed = await readFile(target, "utf8").catch(() => "");
  // Other words in a comment are no other interface.
  const shapes = (typescript) =>
    typescript.replaceAll(/\/\*\*[^]*?\*\//g, "").replaceAll(/\s+/g, " ");
  if (shapes(committed) !== shapes(text)) {
    console.error(
      "sdk/src/openapi.ts is not what the daemon describes now; run: scripts/client-types",
    );
    process.exit(1);
  }
} else {
  await writeFile(target, text);
}
