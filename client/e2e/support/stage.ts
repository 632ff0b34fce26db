/**
 * What the stories share: one browser, one page server, and the SDK opened on each device's page.
 */
import { readFileSync } from "node:fs";
import type { Server } from "node:https";
import { request } from "node:https";
import type { Browser } from "playwright-core";
import type * as Sdk from "../../sdk/src/index.js";
import { type AuthenticatorOptions, Device, launch } from "./browser.js";
import { sdkPage, serve, type Served } from "./pages.js";
import { world } from "./world.js";

/** What a page keeps between two steps. */
export interface Kept {
  custody: Sdk.Custody;
  /** Opens the custody once more, as another load of the page would. */
  open: () => Promise<Sdk.Custody>;
  /** How often the app was told that its key was replaced, and by one that is open. */
  replaced: { times: number; open: boolean };
  /** What became of a call: undefined, or what is known of its error. */
  tried: (call: () => Promise<unknown>) => Promise<Failure | undefined>;
}

/** An error, as far as it comes out of a page. */
export interface Failure {
  readonly code: string;
  readonly name: string;
  readonly attemptsLeft: number | undefined;
  readonly doubt: string | undefined;
}

declare const sdk: typeof Sdk;

/** The realm's public keys, as an app pins them. */
export async function realmKeys(url = world.url): Promise<object[]> {
  const ca = readFileSync(`${world.folder}/authority.pem`);
  return new Promise((resolve, reject) => {
    const asked = request(`${url}/.well-known/jwks.json`, { ca }, (response) => {
      let text = "";
      response.on("data", (part: Buffer) => (text += part.toString()));
      response.on("end", () => {
        resolve((JSON.parse(text) as { keys: object[] }).keys);
      });
    });
    asked.on("error", reject);
    asked.end();
  });
}

/** The stage of one file of stories. */
export class Stage {
  private constructor(
    readonly browser: Browser,
    private readonly server: Server,
    private readonly keys: object[],
  ) {}

  /** `more` is served beside the page that has the SDK. */
  static async set(more: Iterable<readonly [string, Served]> = []): Promise<Stage> {
    const site = new Map([...(await sdkPage()), ...more]);
    const [server, keys] = [await serve(site), await realmKeys()];
    return new Stage(await launch(), server, keys);
  }

  async clear(): Promise<void> {
    await this.browser.close();
    this.server.close();
  }

  /** A device with the SDK opened. */
  async device(options: AuthenticatorOptions = {}): Promise<Device> {
    const made = await Device.make(this.browser, options);
    await this.opened(made);
    return made;
  }

  /** Loads the page again: what was only in memory is gone. */
  async reload(at: Device): Promise<void> {
    await at.page.reload();
    await this.opened(at);
  }

  /** Opens the SDK on a page, as an app does when it is loaded. */
  private async opened(at: Device): Promise<void> {
    const { url, app, realm } = world;
    await at.page.waitForFunction(() => "sdk" in globalThis);
    await at.page.evaluate(
      async ({ url, app, realm, keys }) => {
        const open = () => sdk.openCustody({ url, app, realm: { name: realm, keys } });
        const tried: Kept["tried"] = async (call) => {
          try {
            await call();
            return undefined;
          } catch (error) {
            if (!(error instanceof sdk.CustodyError)) throw error;
            return {
              code: error.code,
              name: error.name,
              attemptsLeft: error instanceof sdk.WrongGuess ? error.attemptsLeft : undefined,
              doubt: error instanceof sdk.Untrusted ? error.doubt : undefined,
            };
          }
        };
        const replaced = { times: 0, open: false };
        Object.assign(globalThis, { kept: { open, tried, replaced, custody: await open() } });
      },
      { url, app, realm, keys: this.keys },
    );
  }
}

declare const kept: Kept;

/** Opens the SDK for the app without server slots, where the owner's factors are all that opens, as its pages would. */
export async function openSealed(at: Device): Promise<void> {
  await at.page.evaluate(async () => {
    const { realm, transport } = kept.custody;
    const { url } = transport;
    kept.custody = await sdk.openCustody({
      ...{ url, app: "sealed", realm, endToEnd: true },
      onReplaced: (now) => {
        kept.replaced = { times: kept.replaced.times + 1, open: now === kept.custody.unlocked };
      },
    });
  });
}

/** Enrols with a PIN; returns the account and the app key's thumbprint. */
export async function enrolled(at: Device): Promise<{ account: string; key: string }> {
  return at.page.evaluate(async () => {
    const unlocked = await sdk.enrol(kept.custody, { deviceName: "phone A" });
    await sdk.setPin(kept.custody, "830517");
    return { account: kept.custody.account?.account ?? "", key: unlocked.thumbprint };
  });
}
