/** What stories of several realms share: one browser, pages with the SDK and examples, and the group opened on them. */
import type { Server } from "node:https";
import type { Browser } from "playwright-core";
import type * as Sdk from "../../sdk/src/index.js";
import type * as Threshold from "../../sdk/src/threshold/index.js";
import { type Device, launch } from "./browser.js";
import { bundled, example } from "./examples.js";
import { sdkPage, serve, type Site } from "./pages.js";
import { realmKeys } from "./stage.js";
import { realms } from "./world.js";

/** What a page keeps between two steps. */
export interface Kept {
  group: Threshold.Group;
  open: () => Promise<Threshold.Group>;
  /** Recovers with the PIN: the key, and each realm's outcome; or the error's code. */
  byPin: () => Promise<{ key?: string; code?: string; outcomes: string[] }>;
}

declare const sdk: typeof Sdk;
declare const threshold: typeof Threshold;

/** A realm, as an app pins it. */
interface Pinned {
  readonly url: string;
  readonly realm: { readonly name: string; readonly keys: object[] };
}

/** The stage of one file of stories. */
export class GroupStage {
  private constructor(
    readonly browser: Browser,
    private readonly server: Server,
    readonly pinned: Pinned[],
  ) {}

  /** With the README's examples of these names, each at its path. */
  static async set(examples: Readonly<Record<string, string>>): Promise<GroupStage> {
    const pinned = await Promise.all(
      realms.map(async ({ url, realm: name }) => ({
        url,
        realm: { name, keys: await realmKeys(url) },
      })),
    );
    const beside = { "./realms.json": pinned, "./realm.json": pinned[0]?.realm };
    const site = new Map(await sdkPage());
    for (const [path, info] of Object.entries(examples)) {
      const body = await bundled(example(info), beside);
      site.set(`${path}.js`, { body, type: "text/javascript" });
      const script = `<script type="module" src="${path}.js"></script>`;
      const page = `<!doctype html><html lang="en"><title>README</title>${script}</html>`;
      site.set(path, { body: page, type: "text/html" });
    }
    const server = await serve(site satisfies Site);
    return new GroupStage(await launch(), server, pinned);
  }

  async clear(): Promise<void> {
    await this.browser.close();
    this.server.close();
  }

  /** Opens the group on a page, as an app does when it is loaded. */
  async opened(device: Device): Promise<void> {
    await device.page.waitForFunction(() => "threshold" in globalThis);
    await device.page.evaluate(async (realms) => {
      const open = () => threshold.openGroup({ app: "notes", threshold: 2, realms });
      const group = await open();
      const byPin: Kept["byPin"] = async () => {
        threshold.lockGroup(group);
        const outcomes = (answers: readonly Threshold.RealmAnswer[]) =>
          answers.map(({ outcome }) => outcome);
        try {
          const found = await threshold.recover(group, (custody, ask) =>
            sdk.signInWithPin(custody, "830517", ask),
          );
          return { key: found.unlocked.thumbprint, outcomes: outcomes(found.answers) };
        } catch (error) {
          if (!(error instanceof threshold.RealmsFailed)) throw error;
          return { code: error.code, outcomes: outcomes(error.answers) };
        }
      };
      Object.assign(globalThis, { kept: { group, open, byPin } });
    }, this.pinned);
  }
}
