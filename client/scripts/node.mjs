// What Node 18 has and does not show by itself. Injected into bundles that run in Node.
import { webcrypto } from "node:crypto";

globalThis.crypto ??= webcrypto;
