// HTTPS: from a request to a call of a route, and back. A route has the name `METHOD /path` and is either `open`, which
// takes the parsed body, or `signedIn`, which takes the account whose session asks as well.
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import { join } from "node:path";

const MOST_BYTES = 64 * 1024;

/** What a caller is told. Everything else that is thrown becomes a 500 without a word. */
export class Refusal extends Error {
  constructor(status, code) {
    super(code);
    this.status = status;
  }
}

/** A member of the body that has to be a text. */
export function text(body, name) {
  const value = body[name];
  if (typeof value !== "string" || value.length > MOST_BYTES) {
    throw new Refusal(400, `${name}-missing`);
  }
  return value;
}

function read(request) {
  return new Promise((resolve, reject) => {
    const chunks = [];
    let length = 0;
    request.on("data", (chunk) => {
      length += chunk.length;
      if (length <= MOST_BYTES) chunks.push(chunk);
    });
    request.on("end", () => {
      if (length > MOST_BYTES) reject(new Refusal(413, "too-large"));
      else resolve(chunks.length === 1 ? chunks[0] : Buffer.concat(chunks));
    });
    request.on("error", () => reject(new Refusal(400, "cut-off")));
  });
}

function parse(bytes) {
  let body;
  try {
    body = JSON.parse(bytes.toString());
  } catch {
    throw new Refusal(400, "not-json");
  }
  if (typeof body !== "object" || body === null) throw new Refusal(400, "not-an-object");
  return body;
}

function answer(response, status, body) {
  const bytes = Buffer.from(JSON.stringify(body));
  response.writeHead(status, {
    "Content-Type": "application/json",
    "Content-Length": bytes.length,
    "Cache-Control": "no-store",
  });
  response.end(bytes);
}

async function handle(request, response, routes, accountOf) {
  try {
    const route = routes[`${request.method} ${request.url}`];
    if (!route) throw new Refusal(404, "no-such-route");
    const body = parse(await read(request));
    if (route.open) {
      answer(response, 200, await route.open(body));
      return;
    }
    const bearer = /^Bearer ([\w-]{43})$/.exec(request.headers.authorization ?? "");
    const account = bearer && accountOf(bearer[1]);
    if (!account) throw new Refusal(401, "session-missing");
    answer(response, 200, await route.signedIn(account, body));
  } catch (error) {
    if (!(error instanceof Refusal)) console.error(error);
    const status = error instanceof Refusal ? error.status : 500;
    answer(response, status, { error: error instanceof Refusal ? error.message : "internal" });
  }
}

export function serve(folder, port, routes, accountOf) {
  const options = {
    cert: readFileSync(join(folder, "certificate.pem")),
    key: readFileSync(join(folder, "private-key.pem")),
    minVersion: "TLSv1.3",
    keepAliveTimeout: 60_000,
  };
  const server = createServer(options, (request, response) => {
    void handle(request, response, routes, accountOf);
  });
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", () => resolve(server));
  });
}
