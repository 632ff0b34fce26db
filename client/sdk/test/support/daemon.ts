/** A daemon in a few lines: a `fetch` that answers from a table, and remembers what it was asked. */
import { parseJws } from "../../src/jose.js";
import { openCustody, type Custody } from "../../src/custody.js";
import { memoryStorage } from "../../src/storage/memory.js";
import type { Realm } from "./realm.js";

/** What was asked. */
export interface Asked {
  readonly method: string;
  readonly path: string;
  readonly headers: Headers;
  readonly body: string | undefined;
  /** Claims of the proof. */
  readonly claims: Record<string, unknown>;
}

/** What is answered. */
export interface Reply {
  readonly status?: number;
  readonly body?: unknown;
  readonly nonce?: string;
  readonly date?: Date;
}

type Answering = (asked: Asked) => Reply | Promise<Reply>;

/** A `fetch` in front of a function. */
export class FakeDaemon {
  readonly asked: Asked[] = [];
  constructor(private readonly answer: Answering) {}

  readonly fetch = (async (input: unknown, init: RequestInit = {}) => {
    const url = new URL(String(input));
    const headers = new Headers(init.headers);
    const body = init.body instanceof Uint8Array ? new TextDecoder().decode(init.body) : undefined;
    const claims = parseJws(headers.get("DPoP") ?? "")?.claims ?? {};
    const asked = {
      method: init.method ?? "GET",
      path: url.pathname + url.search,
      headers,
      body,
      claims,
    };
    this.asked.push(asked);
    const reply = await this.answer(asked);
    const text = typeof reply.body === "string" ? reply.body : JSON.stringify(reply.body);
    const sent = new Headers(reply.nonce === undefined ? {} : { "DPoP-Nonce": reply.nonce });
    if (reply.date) sent.set("Date", reply.date.toUTCString());
    const status = reply.status ?? 200;
    return new Response(status === 204 ? null : text, { status, headers: sent });
  }) as typeof fetch;

  custody(realm: Realm, checkLog = false): Promise<Custody> {
    const { trust } = realm;
    const options = { url: "https://c.example", app: "notes", realm: trust, checkLog };
    return openCustody({ ...options, storage: memoryStorage(), fetch: this.fetch });
  }
}

/** A problem document. */
export function problem(status: number, code: string, more: object = {}): Reply {
  return {
    status,
    body: {
      type: `urn:custodyd:problem:${code}`,
      title: "no",
      status,
      detail: "why",
      code,
      ...more,
    },
  };
}
