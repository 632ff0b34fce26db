/**
 * What tests/client (Rust) hands to a test in a browser: a real daemon and how to reach it.
 *
 * Everything comes in environment variables; a missing one fails the run.
 */
import { readFileSync } from "node:fs";
import { connect } from "node:net";

function given(name: string): string {
  const value = process.env[name];
  if (value === undefined)
    throw new Error(`${name} is not set; run: cargo nextest run --test client`);
  return value;
}

/** The daemon of this run. */
export const world = {
  /** `listen.url` */
  url: given("CUSTODYD_URL"),
  app: given("CUSTODYD_APP"),
  realm: given("CUSTODYD_REALM"),
  /** Folder with certificate.pem, private-key.pem and the outbox. */
  folder: given("CUSTODYD_FOLDER"),
  /** Port of the pages: the one origin of the app's policy. */
  pages: Number(given("CUSTODYD_PAGES")),
  /** Where screenshots go. */
  artefacts: given("CUSTODYD_ARTEFACTS"),
};

/** Where there are several daemons: all of them, the one above first. */
export const realms = JSON.parse(process.env["CUSTODYD_REALMS"] ?? "[]") as {
  readonly url: string;
  readonly realm: string;
}[];

/** The origin of the pages. */
export const origin = `https://localhost:${world.pages}`;

/** A message that the daemon sent. */
export interface Message {
  readonly kind: string;
  readonly to: string;
  readonly body: string;
}

/** Every message so far. */
export function outbox(): Message[] {
  const text = readFileSync(`${world.folder}/outbox.jsonl`, "utf8");
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Message);
}

/** The newest code that was sent to an address after `before` messages; waits for it. */
export async function codeFor(to: string, before: number): Promise<string> {
  for (let tries = 0; tries < 1200; tries += 1) {
    const sent = outboxOrNone().slice(before).reverse();
    const message = sent.find((one) => one.to === to);
    // In groups of four for strangers, digits for a device that is bound.
    const code = /[0-9A-Z]{4}(-[0-9A-Z]{4})+|[0-9]{6,10}/.exec(message?.body ?? "")?.[0];
    if (code !== undefined) return code;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`no code came for ${to}`);
}

/** As `outbox`, before there is one. */
export function outboxOrNone(): Message[] {
  try {
    return outbox();
  } catch {
    return [];
  }
}

async function told(words: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(Number(given("CUSTODYD_CONTROL")), "127.0.0.1");
    socket.setEncoding("utf8");
    socket.on("error", reject);
    socket.on("close", () => {
      reject(new Error(`no answer to "${words}"`));
    });
    socket.on("data", (said: string) => {
      socket.end();
      if (said.startsWith("ok")) resolve(said.slice(2).trim());
      else reject(new Error(said));
    });
    socket.write(`${words}\n`);
  });
}

/** Has the daemon killed or started, or one of several; returns when that is done. */
export async function daemon(what: "kill" | "start", which = 0): Promise<void> {
  await told(`${what} ${which}`);
}

/** Has the operator make a backup. */
export async function backedUp(): Promise<void> {
  await told("keep 0");
}

/** The database is lost, and the operator goes through the restore ceremony with the backup: the log is another one afterwards. */
export async function restored(): Promise<void> {
  await told("restore 0");
}

/** Has the operator let what a weak factor asks for wait, as `1h`. */
export async function recoveryWaits(delay: string): Promise<void> {
  await told(`delay ${delay}`);
}

/** Has the operator change what the policy says of server slots. */
export async function serverSlots(word: "allowed" | "ending" | "forbidden"): Promise<void> {
  await told(`policy ${word}`);
}

/** How many accounts have server slots, as the operator is told. */
export async function accountsLeft(): Promise<number> {
  return Number(await told("left notes"));
}
