// Serves the built demo on http://localhost, where browsers allow passkeys without a certificate.
//
//   node scripts/serve.mjs FOLDER PORT DAEMON-URL
//
// Says where, once it does. Port 0 is one that is free.
import { createReadStream, existsSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join } from "node:path";
import { contentPolicy, TYPES } from "./policy.mjs";

const [folder, port, daemon] = process.argv.slice(2);
if (!folder || !port || !daemon) {
  console.error("usage: node scripts/serve.mjs FOLDER PORT DAEMON-URL");
  process.exit(2);
}
const policy = contentPolicy([daemon]);

createServer((request, response) => {
  const { pathname } = new URL(request.url ?? "/", "http://localhost");
  const name = pathname === "/" ? "/index.html" : pathname;
  // Flat: one folder, plain names.
  const file = /^\/[\w.-]+$/.test(name) && !name.startsWith("/.") ? join(folder, name) : "";
  response.setHeader("Content-Security-Policy", policy);
  response.setHeader("X-Content-Type-Options", "nosniff");
  response.setHeader("Cache-Control", "no-cache");
  if (file === "" || !existsSync(file)) {
    response.writeHead(404).end("not found");
    return;
  }
  response.setHeader("Content-Type", TYPES[extname(file)] ?? "application/octet-stream");
  createReadStream(file).pipe(response);
}).listen(Number(port), "127.0.0.1", function () {
  console.log(`http://localhost:${this.address().port}`);
});
