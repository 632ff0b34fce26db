/**
 * One request to the daemon: proof, nonce, session, and its answer as a value or a typed error.
 *
 * The types of bodies and answers are those of `openapi.ts`, so a route that is no more does not
 * compile. It never retries what may have been carried out, but for a nonce that was missing.
 */
import { type Bytes, utf8 } from "./bytes.js";
import { dpopProof, type SigningKey } from "./dpop.js";
import { type Problem, refused, Unreachable } from "./errors.js";
import type { components, paths } from "./openapi.js";

/** The shapes of the REST interface. */
export type Schemas = components["schemas"];
/** A route of the daemon. */
export type Route = keyof paths;
/** How a route is asked. */
export type Method = "get" | "put" | "post" | "delete";
type Operation<R extends Route, M extends Method> = NonNullable<paths[R][M]>;
type Json<C> = C extends { content: { "application/json": infer B } } ? B : undefined;

/** The body of a request to this route. */
export type Body<R extends Route, M extends Method> =
  Operation<R, M> extends { requestBody?: infer B } ? Json<NonNullable<B>> : undefined;
/** The body of its good answer. */
export type Answer<R extends Route, M extends Method> =
  Operation<R, M> extends { responses: infer S }
    ? Json<S[keyof S & (200 | 201 | 202 | 204)]>
    : never;

/** What makes a proof fresh. */
export interface Fresh {
  readonly nonce: string;
  /** Seconds since the Unix epoch. */
  readonly now: number;
}

/** What a request brings beside its route. */
export interface Parts<R extends Route, M extends Method> {
  /** Given as a function where it has to name the nonce and the time of its own proof. */
  readonly body?: Body<R, M> | ((fresh: Fresh) => Promise<Body<R, M>>);
  /** Placeholders of the path. */
  readonly path?: Readonly<Record<string, string>>;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Longer than the daemon's own limit, so that it is the one to say what happened. */
const PATIENCE = 40_000;
/** The daemon takes proofs a minute off. A smaller difference may be the way of an answer. */
const CLOCKS_DIFFER = 10;

interface Prepared {
  readonly method: string;
  readonly url: string;
  readonly headers: Record<string, string>;
  readonly body: Bytes | undefined;
  readonly token: string | undefined;
}

/** The connection of one device to one daemon. */
export class Transport {
  /** The running session's token. */
  session: Schemas["SessionToken"] | undefined;
  #nonce: string | undefined;
  /** Seconds by which the daemon's clock is ahead of this device's. */
  #ahead = 0;

  constructor(
    /** What the daemon's configuration calls `listen.url`; proofs name it byte by byte. */
    readonly url: string,
    readonly app: string,
    private readonly key: SigningKey,
    private readonly fetcher: typeof fetch,
  ) {}

  /** Asks, and returns the body of a good answer. */
  async request<R extends Route, M extends Method>(
    method: M,
    route: R,
    parts: Parts<R, M> = {},
  ): Promise<Answer<R, M>> {
    // Whoever signs in to another account meanwhile has not asked for this.
    const { session } = this;
    if (typeof parts.body === "function" && this.#nonce === undefined) await this.#meet();
    for (let again = true; ; again = false) {
      const assumed = this.#ahead;
      const response = await this.#send(await this.#prepare(method, route, parts, session));
      const body = await read(response);
      if (response.ok) return body as Answer<R, M>;
      const problem = problemOf(response, body);
      // Refused before anything was done: with the nonce, or the time, that it came back with.
      const clock = problem.code === "dpop-invalid" && assumed !== this.#ahead;
      if (!(problem.code === "use-dpop-nonce" || clock) || !again) throw refused(problem);
    }
  }

  /** The daemon's time, as far as it has told it. A device whose clock is wrong works all the same. */
  get now(): number {
    return Math.floor(Date.now() / 1000) + this.#ahead;
  }

  #compareClocks(response: Response): void {
    const told = Date.parse(response.headers.get("Date") ?? "") / 1000;
    if (Number.isNaN(told)) return;
    const ahead = Math.round(told - Date.now() / 1000);
    if (Math.abs(ahead - this.#ahead) > CLOCKS_DIFFER) this.#ahead = ahead;
  }

  /** Learns a nonce. */
  async #meet(): Promise<void> {
    const url = `${this.url}/.well-known/jwks.json`;
    const plain: Prepared = { method: "GET", url, headers: {}, body: undefined, token: undefined };
    await read(await this.#send(plain, false));
  }

  async #prepare<R extends Route, M extends Method>(
    method: M,
    route: R,
    parts: Parts<R, M>,
    session: Transport["session"],
  ): Promise<Prepared> {
    const values: Record<string, string> = { app: this.app, ...parts.path };
    const path = route.replaceAll(/\{(\w+)\}/g, (_, name: string) => {
      return encodeURIComponent(values[name] ?? "");
    });
    const query = parts.query ? `?${new URLSearchParams(parts.query).toString()}` : "";
    const given: unknown = parts.body;
    const content =
      typeof given === "function"
        ? await (given as (fresh: Fresh) => Promise<unknown>)({
            nonce: this.#nonce ?? "",
            now: this.now,
          })
        : given;
    const headers: Record<string, string> = { ...parts.headers };
    if (content !== undefined) headers["Content-Type"] = "application/json";
    const withSession = route.startsWith("/v1/account") || route.startsWith("/v1/session");
    return {
      method: method.toUpperCase(),
      url: this.url + path + query,
      headers,
      body: content === undefined ? undefined : utf8(JSON.stringify(content)),
      token: withSession ? session?.token : undefined,
    };
  }

  async #send(call: Prepared, proven = true): Promise<Response> {
    const headers = { ...call.headers };
    if (proven) {
      const fresh = { nonce: this.#nonce, now: this.now };
      headers["DPoP"] = await dpopProof(this.key, { ...call, ...fresh });
    }
    if (call.token !== undefined) headers["Authorization"] = `DPoP ${call.token}`;
    let response: Response;
    try {
      const fetcher = this.fetcher;
      response = await fetcher(call.url, {
        method: call.method,
        headers,
        ...(call.body === undefined ? {} : { body: call.body }),
        cache: "no-store",
        credentials: "omit",
        redirect: "error",
        signal: AbortSignal.timeout(PATIENCE),
      });
    } catch (cause) {
      throw new Unreachable("the custody service did not answer", { cause });
    }
    this.#nonce = response.headers.get("DPoP-Nonce") ?? this.#nonce;
    this.#compareClocks(response);
    return response;
  }
}

async function read(response: Response): Promise<unknown> {
  let text: string;
  try {
    text = await response.text();
  } catch (cause) {
    throw new Unreachable("the connection broke off inside an answer", { cause });
  }
  if (text === "") return undefined;
  try {
    return JSON.parse(text) as unknown;
  } catch (cause) {
    // A captive portal or a proxy: nobody who speaks for the daemon.
    throw new Unreachable(`an answer (${response.status}) is not the custody service's`, { cause });
  }
}

function problemOf(response: Response, body: unknown): Problem {
  const { code, detail } = (body ?? {}) as Partial<Problem>;
  if (typeof code !== "string" || typeof detail !== "string") {
    // A gateway: nobody who speaks for the daemon either.
    throw new Unreachable(`the answer ${response.status} is no problem document`);
  }
  return { ...(body as Problem), status: response.status };
}
