// Packs the SDK as it is published, installs it into an empty project without a network, and uses it there: types under both
// ways to resolve modules, the examples of the READMEs, a bundle, and a run in Node. Whoever calls this has built it (build.mjs).
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import assert from "node:assert/strict";
import { build } from "esbuild";

const root = fileURLToPath(new URL("..", import.meta.url));
const project = mkdtempSync(join(tmpdir(), "sdk-consumer-"));
const write = (name, text) => writeFileSync(join(project, name), text);
const npm = (...words) =>
  execFileSync("npm", [...words, "--offline", "--no-audit", "--no-fund", "--ignore-scripts"], {
    cwd: project,
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
  });

/** Packs a folder; returns the archive and what is in it. */
function packed(folder) {
  const [made] = Object.values(JSON.parse(npm("pack", "--json", join(root, folder))));
  return { archive: `./${made.filename}`, files: made.files.map(({ path }) => path) };
}

/** What the compiler has against these files; nothing where they are good. */
function complaints(how, files) {
  const options = {
    ...{ target: "ES2022", lib: ["ES2022", "ESNext.Disposable", "DOM", "DOM.Iterable"], types: [] },
    ...{ strict: true, noEmit: true, resolveJsonModule: true, skipLibCheck: false },
    ...{ exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true },
    ...how,
  };
  write("tsconfig.json", JSON.stringify({ compilerOptions: options, files }));
  try {
    const tsc = join(root, "node_modules/typescript/bin/tsc");
    execFileSync(process.execPath, [tsc, "-p", project], { encoding: "utf8", stdio: "pipe" });
    return "";
  } catch (error) {
    return `${error.stdout}${error.stderr}`;
  }
}

/** The blocks of a README with this info string, as one module. */
function example(readme, info) {
  const blocks = readFileSync(join(root, readme), "utf8").split("```");
  const meant = blocks.filter((text, at) => at % 2 === 1 && text.startsWith(`${info}\n`));
  assert.ok(meant.length > 0, `${readme}: no block ${info}`);
  return meant.map((text) => text.slice(info.length)).join("\n") + "\nexport {};\n";
}

const CONSUMER = `
import * as sdk from "@custodyd/sdk";
import { openGroup, type Group } from "@custodyd/sdk/threshold";
export async function opened(realm: sdk.RealmTrust): Promise<sdk.Custody> {
  const custody = await sdk.openCustody({ url: "https://c.example", app: "notes", realm });
  const { unlocked, undone }: sdk.SignedIn = await sdk.signInWithPin(custody, "830517");
  const key: sdk.Unlocked | undefined = unlocked;
  for (const { what, error } of undone) console.log(what, sdk.advice(error), key?.thumbprint);
  return custody;
}
export const group: typeof openGroup = openGroup;
export type Mine = Group;
`;

/** What opens needs no network, and neither does a slip of the pen, which a part of the package finds that is loaded on demand. */
const SMOKE = `
import { webcrypto } from "node:crypto";
globalThis.crypto ??= webcrypto;
const sdk = await import("@custodyd/sdk");
const { openGroup } = await import("@custodyd/sdk/threshold");
const storage = sdk.memoryStorage();
const asked = [];
const fetch = (url) => { asked.push(url); return Promise.reject(new TypeError("no network")); };
const realm = { name: "r", keys: [] };
const options = { url: "https://c.example", app: "notes", realm, storage, fetch };
const custody = await sdk.openCustody(options);
const again = await sdk.openCustody(options);
if (custody.device.thumbprint !== again.device.thumbprint) throw new Error("the device key was not kept");
const code = async (call) => call().then(() => "none", (error) => error.code);
const found = [
  await code(() => sdk.signInWithRecoveryCode(custody, "ABCD", { account: "a" })),
  await code(() => sdk.signInWithTotp(custody, "123456", { account: "a" })),
  asked.length, typeof openGroup,
];
console.log(JSON.stringify(found));
`;

try {
  const own = packed("sdk");
  // What is in it, and no more: sources, tests and their settings stay here.
  const strange = own.files.filter(
    (path) =>
      !/^(dist\/[\w/-]+\.(js|d\.ts)|package\.json|(README|SLOTS)\.md|LICENSE-(APACHE|MIT))$/.test(
        path,
      ),
  );
  assert.deepEqual(strange, []);
  for (const path of ["dist/index.js", "dist/index.d.ts", "dist/threshold/index.js", "SLOTS.md"])
    assert.ok(own.files.includes(path), path);
  const manifest = JSON.parse(readFileSync(join(root, "sdk/package.json"), "utf8"));
  const needed = Object.keys(manifest.dependencies).map((name) => packed(`node_modules/${name}`));
  write("package.json", JSON.stringify({ name: "consumer", private: true, type: "module" }));
  npm("install", own.archive, ...needed.map(({ archive }) => archive));
  // Both licences are the repository's, word by word.
  for (const name of ["LICENSE-APACHE", "LICENSE-MIT"]) {
    const installed = join(project, "node_modules/@custodyd/sdk", name);
    assert.equal(readFileSync(installed, "utf8"), readFileSync(join(root, "..", name), "utf8"));
  }

  write("consumer.ts", CONSUMER);
  write("wrong.ts", CONSUMER.replace("url:", "address:"));
  write("inside.ts", 'import { hkdf } from "@custodyd/sdk/dist/bytes.js";\nvoid hkdf;\n');
  const globals =
    "declare function ask(question: string): Promise<string>;\n" +
    "declare function show(...values: unknown[]): void;\n";
  write("globals.d.ts", globals);
  const pinned = { name: "r", keys: [{ kty: "EC" }] };
  write("realm.json", JSON.stringify(pinned));
  write("realms.json", JSON.stringify([{ url: "https://c.example", realm: pinned }]));
  const examples = [
    ["../README.md", "ts"],
    ...["ts", "ts device=2", "ts threshold", "ts convert"].map((info) => ["sdk/README.md", info]),
  ];
  const named = examples.map(([readme, info], at) => {
    write(`example${at}.ts`, example(readme, info));
    return `example${at}.ts`;
  });
  // Each is a module of its own: one run of the compiler says what is wrong in which. Most of a run is the libraries' types.
  const bundler = { module: "ESNext", moduleResolution: "Bundler" };
  const good = ["consumer.ts", "globals.d.ts", ...named];
  for (const [how, files] of [
    [bundler, good],
    [{ module: "NodeNext", moduleResolution: "NodeNext" }, ["consumer.ts"]],
  ]) {
    assert.equal(complaints(how, files), "", JSON.stringify(examples));
    // The controls: types that are wrong, and what is nobody's but the package's.
    const found = complaints(how, ["wrong.ts", "inside.ts"]);
    assert.match(found, /wrong\.ts.*'address' does not exist/);
    assert.match(found, /inside\.ts.*Cannot find module/);
  }

  const bundle = async (contents) => {
    const stdin = { contents, resolveDir: project };
    const more = { bundle: true, minify: true, format: "esm", splitting: true, write: false };
    const made = await build({ stdin, ...more, target: "es2022", outdir: join(project, "out") });
    return made.outputFiles.find(({ path }) => path.endsWith("stdin.js")).contents.length;
  };
  const whole = await bundle('import * as sdk from "@custodyd/sdk"; globalThis.sdk = sdk;');
  const part = await bundle('import { advice } from "@custodyd/sdk"; globalThis.advice = advice;');
  // Without side effects, what an app does not call is not in it.
  assert.ok(part > 1000 && part < whole / 4, `${part} of ${whole}`);

  write("smoke.mjs", SMOKE);
  mkdirSync(join(project, "out"), { recursive: true });
  const run = { cwd: project, encoding: "utf8" };
  const said = execFileSync(process.execPath, ["smoke.mjs"], run);
  assert.deepEqual(JSON.parse(said), ["code-mistyped", "unreachable", 1, "function"]);
  console.log(`package_files ${own.files.length}`);
} finally {
  rmSync(project, { recursive: true, force: true });
}
