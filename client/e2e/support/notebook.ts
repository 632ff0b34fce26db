/** The demo as its stories need it: built for this run's daemon, looked at, listened to, written in. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import type { Server } from "node:https";
import { after, before } from "node:test";
import type { Browser, Page } from "playwright-core";
import { TYPES } from "../../scripts/policy.mjs";
import { type AuthenticatorOptions, Device, launch } from "./browser.js";
import { serve, type Served, type Site } from "./pages.js";
import { realmKeys } from "./stage.js";
import { world } from "./world.js";

const AXE = readFileSync(
  createRequire(`${process.cwd()}/package.json`).resolve("axe-core/axe.min.js"),
  "utf8",
);

/** The demo, built with the keys of this run's realm pinned in it. */
export async function notebookSite(): Promise<Site> {
  const folder = mkdtempSync(join(tmpdir(), "notebook-"));
  const { url, app, realm } = world;
  const config = join(folder, "config.json");
  writeFileSync(
    config,
    JSON.stringify({ url, app, realm: { name: realm, keys: await realmKeys() } }),
  );
  const built = join(folder, "dist");
  execFileSync(process.execPath, ["scripts/demo.mjs", config, built]);
  const site: Site = new Map(
    readdirSync(built).map((name) => {
      const type = TYPES[extname(name)] ?? "text/plain";
      return [`/${name}`, { body: readFileSync(join(built, name)), type }];
    }),
  );
  rmSync(folder, { recursive: true });
  return site;
}

/** What the stories of one file share: a browser, and the demo on the origin of its policy. */
export class NotebookStage {
  /** What is served, which a story may replace. */
  readonly site = new Map<string, Served>();
  #browser: Browser | undefined;
  #server: Server | undefined;

  /** Set before the first story of the file, and cleared after the last. */
  static set(): NotebookStage {
    const stage = new NotebookStage();
    before(async () => {
      for (const [path, served] of await notebookSite()) stage.site.set(path, served);
      stage.#server = await serve(stage.site);
      stage.#browser = await launch();
    });
    after(async () => {
      await stage.#browser?.close();
      stage.#server?.close();
    });
    return stage;
  }

  get browser(): Browser {
    assert.ok(this.#browser);
    return this.#browser;
  }

  /** A device with the demo open on it. */
  device(screen: object, authenticator: AuthenticatorOptions = {}): Promise<Device> {
    return Device.make(this.browser, authenticator, screen, hearing);
  }
}

/** What a page has kept of what was said to its owner. */
interface Hearing {
  readonly heard: string[];
}

/** Runs in each page before its own scripts: what is said goes after a while, and a test may look too late. */
function hearing(): void {
  const heard: string[] = [];
  Object.assign(globalThis, { heard } satisfies Hearing);
  const listener = new MutationObserver((changes) => {
    for (const { target, addedNodes } of changes) {
      if (!(target instanceof Element) || !target.matches(".status")) continue;
      for (const { textContent } of addedNodes)
        if (textContent && heard.at(-1) !== textContent) heard.push(textContent);
    }
  });
  listener.observe(document, { childList: true, subtree: true });
}

/** Waits until something was said, since what was waited for so before, and returns it; whether or not it is there still. */
export async function said(page: Page, text: string | RegExp): Promise<string> {
  const meant = typeof text === "string" ? { text } : { pattern: text.source };
  const heard = await page.waitForFunction((meant: { text?: string; pattern?: string }) => {
    const { heard } = globalThis as unknown as Hearing;
    const at = heard.findIndex((one) =>
      meant.pattern === undefined ? one === meant.text : new RegExp(meant.pattern).test(one),
    );
    return heard.splice(0, at + 1).at(-1);
  }, meant);
  return (await heard.jsonValue()) ?? "";
}

/** Waits until the page shows what the service has to say, or that it can not be asked. */
export async function settled(page: Page): Promise<void> {
  await page.locator("html:not([data-drawing]) main").waitFor();
}

/** Two screens. */
export const PHONE = {
  viewport: { width: 390, height: 844 },
  deviceScaleFactor: 2,
  hasTouch: true,
};
export const DESKTOP = { viewport: { width: 1280, height: 820 } };

/** Pictures for people, by day and by night, and no serious problem for those who do not see them. */
export async function look(page: Page, name: string): Promise<void> {
  for (const colorScheme of ["dark", "light"] as const) {
    // Colours that change over a while would be looked at half way.
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    await seen(page, colorScheme === "dark" ? `${name}-dark` : name);
  }
}

async function seen(page: Page, name: string): Promise<void> {
  await page.screenshot({ path: `${world.artefacts}/${name}.png` });
  await page.evaluate(AXE);
  const found = await page.evaluate(async () => {
    const { axe } = globalThis as unknown as {
      axe: {
        run(): Promise<{ violations: { id: string; impact: string; nodes: { html: string }[] }[] }>;
      };
    };
    const { violations } = await axe.run();
    return violations.map(({ id, impact, nodes }) => `${impact} ${id}: ${nodes[0]?.html ?? ""}`);
  });
  assert.deepEqual(
    found.filter((line) => /^(serious|critical)/.test(line)),
    [],
    name,
  );
}

/** Fails a test one of whose pages has said something is wrong: a broken content policy, an exception. */
export function listen(...pages: Page[]): string[] {
  const wrong: string[] = [];
  for (const page of pages) {
    page.on("pageerror", (error) => wrong.push(error.message));
    page.on("console", (message) => {
      if (message.type() === "error" && message.text().includes("Content Security Policy"))
        wrong.push(message.text());
    });
  }
  return wrong;
}

/** Writes a note. */
export async function write(page: Page, text: string): Promise<void> {
  await page.getByRole("button", { name: "New note" }).click();
  await page.getByLabel("Text").fill(text);
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByRole("dialog").waitFor({ state: "detached" });
}

/** The PIN of new notebooks. */
export const PIN = "830517";

/** A notebook that is new; returns its recovery codes. */
export async function created(page: Page, passkey = true): Promise<string[]> {
  await page.getByRole("button", { name: "Create a notebook" }).click();
  await page.getByLabel(/Choose a PIN/).fill(PIN);
  if (!passkey) await page.getByLabel(/Add a passkey too/).uncheck();
  await page.getByRole("button", { name: "Create", exact: true }).click();
  return written(page);
}

/** Writes down the recovery codes that are shown. */
export async function written(page: Page): Promise<string[]> {
  await page.getByRole("heading", { name: "Your recovery codes" }).waitFor();
  const codes = await page.locator(".codes li").allInnerTexts();
  await page.getByRole("button", { name: "I have written them down" }).click();
  return codes;
}

/** Removes what a button of the settings is named after, and says that it is meant. */
export async function remove(page: Page, name: string | RegExp): Promise<void> {
  const exact = typeof name === "string" ? { exact: true } : {};
  await page
    .getByRole("button", { name, ...exact })
    .first()
    .click();
  await page.getByRole("button", { name: "Remove it" }).click();
  await page.getByRole("dialog").waitFor({ state: "detached" });
}

/** Unlocks with a passkey. */
export async function unlockByPasskey(page: Page): Promise<void> {
  await page.getByRole("banner").getByRole("button", { name: "Unlock", exact: true }).click();
  await page.getByRole("button", { name: "Use a passkey" }).click();
  await page.getByRole("button", { name: "Lock", exact: true }).waitFor();
}

/** To the settings. */
export async function settings(page: Page): Promise<void> {
  await page.getByRole("link", { name: "Settings" }).click();
  await page.getByRole("heading", { name: "Devices" }).waitFor();
}

/** Unlocks by PIN. */
export async function unlock(page: Page, pin: string): Promise<void> {
  await page.getByRole("banner").getByRole("button", { name: "Unlock", exact: true }).click();
  await page.getByLabel("PIN").fill(pin);
  await page.getByRole("dialog").getByRole("button", { name: "Unlock", exact: true }).click();
}

/** Waits for a text. */
export const toBe = (page: Page, text: string | RegExp) =>
  page.getByText(text, typeof text === "string" ? { exact: true } : {}).waitFor();

/** Half of each record of these kinds is left. */
export async function damage(page: Page, kinds: readonly string[]): Promise<void> {
  await page.evaluate(async (kinds) => {
    const asked = <T>(request: IDBRequest<T>) =>
      new Promise<T>((resolve, reject) => {
        request.onsuccess = () => {
          resolve(request.result);
        };
        request.onerror = () => {
          reject(new Error("no database"));
        };
      });
    const database = await asked(indexedDB.open("custodyd:notes"));
    const store = database.transaction("kept", "readwrite").objectStore("kept");
    for (const key of (await asked(store.getAllKeys())) as string[])
      if (kinds.includes(key.split("/", 1)[0] ?? "")) await asked(store.put({ half: true }, key));
    database.close();
  }, kinds);
}
