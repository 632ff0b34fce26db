/**
 * PINs by OPAQUE (RFC 9807): the PIN does not leave this device, and the daemon can not be made to
 * learn it. The library (WebAssembly) is loaded when a PIN is typed, and not before.
 *
 * Two calls each way. The daemon charges a guess at the first one of a login, and its answer shows
 * here whether the PIN was right; a wrong one is not told to the daemon, which counts it already.
 */
import type { Bytes } from "../bytes.js";
import type { Custody } from "../custody.js";
import type { Refused } from "../errors.js";
import type { Brought } from "../session.js";
import type { Schemas } from "../transport.js";
import { along, type Made } from "./along.js";
import type { Rewrapping } from "./rewrap.js";
import { keepMinLength } from "./pin-change.js";
import { t } from "./t.js";

type Cost = Schemas["KeyStretching"];
type Started = Schemas["OpaqueLoginStarted"];

async function library() {
  const opaque = await import("@serenity-kit/opaque");
  await opaque.ready;
  return opaque.client;
}

/** One PIN has one spelling, whatever keyboard it came from. */
function spelt(pin: string): string {
  return pin.normalize("NFC");
}

function bytes(text: string): Bytes {
  const found = t.fromBase64Url(text);
  if (!found) throw new t.Untrusted("shape-wrong", "a message of OPAQUE is no base64url");
  return found;
}

function stretching(cost: Cost) {
  const { memory_kib: memory, passes: iterations, lanes: parallelism } = cost;
  return { "argon2id-custom": { memory, iterations, parallelism } };
}

/** What the daemon can not judge, because it never sees the PIN. */
export function judgePin(pin: string, minLength: number): void {
  const characters = Array.from(spelt(pin).toLowerCase());
  const codes = characters.map((character) => character.codePointAt(0) ?? 0);
  const steps = codes.slice(1).map((code, at) => code - (codes[at] ?? 0));
  const inStep = steps.every((step) => step === steps[0] && Math.abs(step) <= 1);
  const period = characters.findIndex(
    (_, size) => size > 0 && characters.every((c, at) => c === characters[at % size]),
  );
  const repeats = period > 0 && period < minLength;
  if (characters.length < minLength || inStep || repeats) {
    const rule = `a PIN has at least ${String(minLength)} characters, and is no sequence or repetition`;
    throw new t.CanNotOpen("pin-weak", rule);
  }
}

/** What OWASP asks of Argon2id, and the least that a policy of the daemon may. */
const LEAST = { memory_kib: 8_192, memory_times_passes: 2 * 19_456 };

/** A daemon that asks for more stops the page, and with it whoever else could answer. */
const MOST = { memory_kib: 1 << 20, memory_times_passes: 1 << 24, lanes: 16 };

function demandBearable({ memory_kib: memory, passes, lanes }: Cost): void {
  const bearable =
    memory <= MOST.memory_kib && memory * passes <= MOST.memory_times_passes && lanes <= MOST.lanes;
  if (!bearable) {
    throw new t.Untrusted(
      "stretching-excessive",
      "the daemon asks for more stretching than any browser does",
    );
  }
}

/** A daemon that asks for less wants PINs that it can guess. */
function demandStretching({ memory_kib: memory, passes }: Cost): void {
  if (memory < LEAST.memory_kib || memory * passes < LEAST.memory_times_passes) {
    const cost = `${String(memory)} KiB, ${String(passes)} passes`;
    throw new t.Untrusted(
      "stretching-weak",
      `the daemon asks for a PIN that is hardly stretched: ${cost}`,
    );
  }
}

/** The device identifier that a PIN will have. */
export async function pinCredential(salt: Bytes, cost: Cost, record: Bytes): Promise<string> {
  const spent = [cost.memory_kib, cost.passes, cost.lanes].map(t.be32);
  const framed = t.fields("custodyd/opaque-pin-device-id/v1", salt, ...spent, record);
  return t.toBase64Url(await t.sha256(framed));
}

/** A PIN that was registered. */
interface Registered {
  readonly pin: Schemas["Bound"];
  readonly session: Schemas["SessionToken"];
}

/** Registers a PIN in the place of the one that the account has. */
export async function registerPin(
  custody: Custody,
  pin: string,
  rewrap: Rewrapping,
): Promise<[Registered, Made["slot"]]> {
  const client = await library();
  const password = spelt(pin);
  const { clientRegistrationState, registrationRequest } = client.startRegistration({ password });
  const started = await custody.transport.request("post", "/v1/account/opaque/start", {
    body: { request: registrationRequest },
  });
  judgePin(pin, started.min_length);
  await keepMinLength(custody, started.min_length);
  demandStretching(started.key_stretching);
  demandBearable(started.key_stretching);
  const { registrationRecord: record, exportKey } = client.finishRegistration({
    clientRegistrationState,
    registrationResponse: started.response,
    password,
    keyStretching: stretching(started.key_stretching),
  });
  const { registration, key_stretching } = started;
  const credential = await pinCredential(bytes(started.salt), key_stretching, bytes(record));
  const key = { type: "opaque", credential, material: bytes(exportKey) } as const;
  const body = { registration, record, key_stretching };
  // A code replaces a forgotten PIN and may not give it a slot: the next sign-in by a factor that reads does.
  return along(custody, rewrap, key, (secrets) =>
    custody.transport.request("post", "/v1/account/opaque/finish", { body: { ...body, secrets } }),
  );
}

/** What a right PIN gives. */
export interface LoggedIn {
  /** To send. */
  readonly end: { readonly login: string; readonly ke3: string };
  /** What opens slots, and is never sent: the export key. */
  readonly key: Brought;
}

/** The two messages of a login; `begin` sends the first one. Throws where the PIN is wrong. */
export async function login(
  pin: string,
  begin: (ke1: string) => Promise<Started>,
): Promise<LoggedIn> {
  const client = await library();
  const password = spelt(pin);
  const { clientLoginState, startLoginRequest } = client.startLogin({ password });
  const started = await begin(startLoginRequest);
  demandBearable(started.key_stretching);
  const ended = client.finishLogin({
    clientLoginState,
    loginResponse: started.ke2,
    password,
    keyStretching: stretching(started.key_stretching),
  });
  if (!ended) throw wrong(started);
  const end = { login: started.login, ke3: ended.finishLoginRequest };
  return { end, key: { type: "opaque", material: bytes(ended.exportKey) } };
}

/** As the daemon would say it, if it knew. A stranger is told no more here than there. */
function wrong(started: Started): Refused {
  const { attempts_left, wait_until, exhausted } = started;
  const status = 401;
  if (attempts_left === undefined || attempts_left === null) {
    const detail = "the account, the device or the PIN is not right";
    return new t.AuthenticationFailed({ code: "authentication-failed", status, detail });
  }
  const detail = "the PIN is wrong";
  return new t.WrongGuess({
    ...{ code: "pin-wrong", status, detail, attempts_left, exhausted },
    ...(wait_until ? { wait_until } : {}),
  });
}
