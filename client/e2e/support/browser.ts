/** Debian's Chromium, a device for each context, and an authenticator in software on each page. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type Browser,
  type BrowserContext,
  type CDPSession,
  chromium,
  type Page,
} from "playwright-core";
import { origin, world } from "./world.js";

/** A home folder whose NSS store, as Chromium reads it, holds these authorities and no others. */
function homeTrusting(authorities: readonly string[]): string {
  const home = mkdtempSync(join(tmpdir(), "chromium-home-"));
  const store = join(home, ".pki/nssdb");
  mkdirSync(store, { recursive: true });
  const certutil = (...more: string[]) =>
    execFileSync("certutil", ["-d", `sql:${store}`, ...more], { stdio: "pipe" });
  certutil("-N", "--empty-password");
  for (const [at, file] of authorities.entries())
    certutil("-A", "-n", `authority ${at}`, "-t", "C,,", "-i", file);
  return home;
}

/**
 * The one browser of a run. It trusts the test's own authority because that is in its store, as an
 * administrator would have it; no error of a certificate is passed over.
 */
export async function launch(
  authorities: readonly string[] = [`${world.folder}/authority.pem`],
): Promise<Browser> {
  const home = homeTrusting(authorities);
  const browser = await chromium.launch({
    env: { ...process.env, HOME: home },
    executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium",
    args: [
      // As root there is no sandbox; the pages are our own.
      "--no-sandbox",
      "--disable-dev-shm-usage",
      "--disable-gpu",
      "--disable-background-networking",
      "--disable-component-update",
    ],
  });
  browser.on("disconnected", () => {
    rmSync(home, { recursive: true, force: true });
  });
  return browser;
}

/** How an authenticator is made. */
export interface AuthenticatorOptions {
  readonly prf?: boolean;
  readonly verified?: boolean;
  /** Whether it can check its owner at all. */
  readonly canVerify?: boolean;
}

/** Milliseconds in which whatever a story waits for has come. */
const PATIENCE = 60_000;

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
    script?: () => void,
  ): Promise<Device> {
    const context = await browser.newContext(viewport ?? {});
    // For machines that do much else meanwhile. Nothing waits for this that is there sooner.
    context.setDefaultTimeout(PATIENCE);
    if (script) await context.addInitScript(script);
    const page = await context.newPage();
    const cdp = await context.newCDPSession(page);
    await cdp.send("WebAuthn.enable");
    const device = new Device(context, page, cdp, "");
    device.authenticator = await device.plugIn(options);
    await page.goto(origin);
    return device;
  }

  private async plugIn(
    options: AuthenticatorOptions,
    transport: "internal" | "usb" = "internal",
  ): Promise<string> {
    const { authenticatorId } = await this.cdp.send("WebAuthn.addVirtualAuthenticator", {
      options: {
        protocol: "ctap2",
        ctap2Version: "ctap2_1",
        transport,
        hasResidentKey: true,
        hasUserVerification: options.canVerify ?? true,
        hasPrf: options.prf ?? true,
        isUserVerified: options.verified ?? true,
        automaticPresenceSimulation: true,
      },
    });
    return authenticatorId;
  }

  /** Whether the person passes the authenticator's check from now on. */
  async verify(isUserVerified: boolean): Promise<void> {
    const { authenticator: authenticatorId } = this;
    await this.cdp.send("WebAuthn.setUserVerified", { authenticatorId, isUserVerified });
  }

  /** Copies the passkeys of another device, as their provider's synchronisation does. */
  async syncPasskeysFrom(other: Device): Promise<void> {
    await this.copy(other, this.authenticator);
  }

  /** A second authenticator, beside this device's own: a security key with the passkeys of another device. */
  async plugInKeyOf(other: Device): Promise<void> {
    await this.copy(other, await this.plugIn({}, "usb"));
  }

  private async copy(other: Device, authenticatorId: string): Promise<void> {
    const from = { authenticatorId: other.authenticator };
    const { credentials } = await other.cdp.send("WebAuthn.getCredentials", from);
    for (const credential of credentials)
      await this.cdp.send("WebAuthn.addCredential", { authenticatorId, credential });
  }
}
