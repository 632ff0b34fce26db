/** Debian's Chromium, a device for each context, and an authenticator in software on each page. */
import {
  type Browser,
  type BrowserContext,
  type CDPSession,
  chromium,
  type Page,
} from "playwright-core";
import { certificateKeyHash } from "./pages.js";
import { origin } from "./world.js";

/** The one browser of a run. */
export async function launch(): Promise<Browser> {
  return chromium.launch({
    executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium",
    args: [
      // As root there is no sandbox; the pages are our own.
      "--no-sandbox",
      "--disable-dev-shm-usage",
      "--disable-gpu",
      "--disable-background-networking",
      "--disable-component-update",
      `--ignore-certificate-errors-spki-list=${certificateKeyHash()}`,
    ],
  });
}

/** How an authenticator is made. */
export interface AuthenticatorOptions {
  readonly prf?: boolean;
  readonly verified?: boolean;
}

/** A device: a browser context of its own, a page, and an authenticator. */
export class Device {
  private constructor(
    readonly context: BrowserContext,
    readonly page: Page,
    private readonly cdp: CDPSession,
    private authenticator: string,
  ) {}

  static async make(
    browser: Browser,
    options: AuthenticatorOptions = {},
    viewport?: object,
  ): Promise<Device> {
    const context = await browser.newContext(viewport ?? {});
    const page = await context.newPage();
    const cdp = await context.newCDPSession(page);
    await cdp.send("WebAuthn.enable");
    const device = new Device(context, page, cdp, "");
    await device.plugIn(options);
    await page.goto(origin);
    return device;
  }

  private async plugIn(options: AuthenticatorOptions): Promise<void> {
    const { authenticatorId } = await this.cdp.send("WebAuthn.addVirtualAuthenticator", {
      options: {
        protocol: "ctap2",
        ctap2Version: "ctap2_1",
        transport: "internal",
        hasResidentKey: true,
        hasUserVerification: true,
        hasPrf: options.prf ?? true,
        isUserVerified: options.verified ?? true,
        automaticPresenceSimulation: true,
      },
    });
    this.authenticator = authenticatorId;
  }

  /** Whether the person passes the authenticator's check from now on. */
  async verify(isUserVerified: boolean): Promise<void> {
    const { authenticator: authenticatorId } = this;
    await this.cdp.send("WebAuthn.setUserVerified", { authenticatorId, isUserVerified });
  }

  /** Copies the passkeys of another device, as their provider's synchronisation does. */
  async syncPasskeysFrom(other: Device): Promise<void> {
    const from = { authenticatorId: other.authenticator };
    const { credentials } = await other.cdp.send("WebAuthn.getCredentials", from);
    for (const credential of credentials) {
      await this.cdp.send("WebAuthn.addCredential", {
        authenticatorId: this.authenticator,
        credential,
      });
    }
  }
}
