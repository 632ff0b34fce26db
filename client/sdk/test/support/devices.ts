/** Secrets at a daemon, and devices with networks of their own: for tests of what is changed offline. */
import { fromBase64Url, fromUtf8 } from "../../src/bytes.js";
import type { Custody } from "../../src/custody.js";
import { loadSecret } from "../../src/offline/queue.js";
import { openContent } from "../../src/slots.js";
import type { Storage } from "../../src/storage/storage.js";
import { FakeDaemon, problem, type Reply } from "./daemon.js";
import { Realm } from "./realm.js";

/** What is sent. */
export interface Sealed {
  readonly sealed: string;
  readonly slots: [];
  readonly server_slot: string;
}

const place = { realm: "test.example", app: "notes", account: "a-1", name: "notes" };

/** The daemon's secrets: versions, and preconditions on them. */
export class Secrets {
  stored: { version: number; body: Sealed } | undefined;
  /** Every content that was ever accepted. */
  readonly accepted = new Set<string>();
  updated = 0;
  /** What is stored now. */
  text = "";
  #next = 1;

  async answer(method: string, headers: Headers, body: string | undefined): Promise<Reply> {
    if (method === "GET") {
      const { stored } = this;
      if (!stored) return problem(404, "not-found");
      return { body: { version: stored.version, updated: this.updated, ...stored.body } };
    }
    const expected = headers.get("If-None-Match") === "*" ? undefined : headers.get("If-Match");
    const current = this.stored ? `"${this.stored.version}"` : undefined;
    if (expected !== current) {
      return problem(412, "precondition-failed", { current_version: this.stored?.version ?? null });
    }
    const sent = JSON.parse(body ?? "{}") as Sealed;
    const version = this.#next;
    this.stored = { version, body: sent };
    this.#next += 1;
    const [key, sealed] = [fromBase64Url(sent.server_slot)!, fromBase64Url(sent.sealed)!];
    this.text = fromUtf8((await openContent(place, key, sealed))!);
    this.accepted.add(this.text);
    return { body: { version } };
  }
}

/** What becomes of a request. */
export type Network = "good" | "down" | "answer-lost";

/** A device with a network of its own; with the storage of another, a second tab of that. */
export async function device(
  secrets: Secrets,
  network: () => Network,
  storage?: Storage,
): Promise<Custody> {
  const daemon = new FakeDaemon(async ({ method, headers, body }) => {
    const now = network();
    if (now === "down") throw new TypeError("Failed to fetch");
    const reply = await secrets.answer(method, headers, body);
    if (now === "answer-lost") throw new TypeError("Failed to fetch");
    return reply;
  });
  const custody = await daemon.custody(await Realm.make());
  custody.transport.session = { token: "t", scope: "full" } as never;
  custody.account = { account: "a-1" };
  custody.serverSlot = true;
  return storage ? { ...custody, storage } : custody;
}

/** What is read, without what it is based on. */
export async function read(custody: Custody, name = "notes") {
  const { content, from } = (await loadSecret(custody, name))!;
  return { content, from };
}

/** The notes. */
export async function text(custody: Custody): Promise<string | undefined> {
  const known = await loadSecret(custody, "notes");
  return known && fromUtf8(known.content);
}
