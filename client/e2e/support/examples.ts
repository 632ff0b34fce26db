/** Examples of the READMEs, made to modules of pages and run as they stand there. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { build, type Plugin } from "esbuild";
import type { Device } from "./browser.js";
import { origin, world } from "./world.js";

/** The blocks of sdk/README.md, or of another page, with this info string, as one module. */
export function example(info: string, page = "sdk/README.md"): string {
  const blocks = readFileSync(page, "utf8")
    .split("```")
    .filter((_, at) => at % 2 === 1);
  const meant = blocks.filter((block) => block.startsWith(`${info}\n`));
  assert.ok(meant.length > 0, info);
  const code = meant.map((block) => block.slice(info.length)).join("\n");
  return code.replaceAll("https://custody.example", world.url) + "\nglobalThis.done = true;";
}

/** Files that an app would have beside its code. */
function beside(files: Readonly<Record<string, unknown>>): Plugin {
  return {
    name: "beside",
    setup: (bundler) => {
      bundler.onResolve({ filter: /^\.\/.*\.json$/ }, ({ path }) => ({
        path,
        namespace: "beside",
      }));
      bundler.onLoad({ filter: /.*/, namespace: "beside" }, ({ path }) => {
        return { contents: JSON.stringify(files[path]), loader: "json" };
      });
    },
  };
}

export async function bundled(
  code: string,
  files: Readonly<Record<string, unknown>>,
): Promise<string> {
  const made = await build({
    stdin: { contents: code, resolveDir: process.cwd(), loader: "ts" },
    alias: {
      "@custodyd/sdk/threshold": `${process.cwd()}/sdk/src/threshold/index.ts`,
      "@custodyd/sdk": `${process.cwd()}/sdk/src/index.ts`,
    },
    plugins: [beside(files)],
    bundle: true,
    format: "esm",
    target: "es2022",
    write: false,
  });
  return made.outputFiles[0]?.text ?? "";
}

/** Opens a page, answers its questions, and returns what it has shown. */
export async function run(
  device: Device,
  path: string,
  answers: Record<string, string>,
): Promise<unknown[]> {
  const { page } = device;
  const failures: string[] = [];
  page.on("pageerror", (error) => failures.push(error.message));
  await page.addInitScript((answers) => {
    const shown: unknown[] = [];
    Object.assign(globalThis, {
      shown,
      ask: (question: string) => Promise.resolve(answers[question]),
      show: (...values: unknown[]) => shown.push(...values),
    });
  }, answers);
  await page.goto(origin + path);
  const ended = () => "done" in globalThis;
  for (let tries = 0; tries < 2400; tries += 1) {
    if (failures.length > 0 || (await page.evaluate(ended))) break;
    await page.waitForTimeout(50);
  }
  assert.deepEqual(failures, []);
  assert.ok(await page.evaluate(ended), "the example has not ended");
  return page.evaluate(() => (globalThis as unknown as { shown: unknown[] }).shown);
}
