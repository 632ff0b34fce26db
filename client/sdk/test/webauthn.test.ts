/** What an authenticator answers, and how much of it is sent: an authenticator that gives all it can think of. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { random, toBase64Url } from "../src/bytes.js";
import { keepAccount } from "../src/custody.js";
import { confirmPasskey, addPasskey } from "../src/factors.js";
import { signInWithPasskey } from "../src/sign-in.js";
import { FakeDaemon, problem } from "./support/daemon.js";
import { Realm } from "./support/realm.js";

const secret = random(32);
/** Of the extensions, one that the daemon reads; one member more than it reads; and keys of the owner's. */
const results = {
  credProps: { rk: true, authenticatorDisplayName: "Ann's phone" },
  prf: { enabled: true, results: { first: secret.buffer, second: secret.buffer } },
  largeBlob: { supported: true, blob: secret.buffer },
  hmacGetSecret: { output1: secret.buffer },
  appid: true,
  unknown: { key: toBase64Url(secret) },
};

class FakeCredential {
  readonly id = toBase64Url(new Uint8Array(16));
  readonly rawId = new Uint8Array(16).buffer;
  readonly type = "public-key";
  readonly authenticatorAttachment = "platform";
  readonly response = {
    clientDataJSON: new ArrayBuffer(1),
    attestationObject: new ArrayBuffer(1),
    authenticatorData: new ArrayBuffer(1),
    signature: new ArrayBuffer(1),
    userHandle: null,
    getTransports: () => ["internal"],
    getAuthenticatorData: () => new ArrayBuffer(64),
  };
  constructor(private readonly given: object) {}
  readonly getClientExtensionResults = () => this.given;
}

/** Makes, confirms and uses a passkey; returns the credentials as they were sent. */
async function sent(given: object): Promise<Record<string, unknown>[]> {
  const container = {
    create: () => Promise.resolve(new FakeCredential(given)),
    get: () => Promise.resolve(new FakeCredential(given)),
  };
  const navigator = { credentials: container };
  Object.defineProperty(globalThis, "navigator", { configurable: true, value: navigator });
  Object.assign(globalThis, { PublicKeyCredential: FakeCredential });
  const challenge = toBase64Url(random(32));
  const extensions = { prf: { eval: { first: toBase64Url(random(32)) } }, credProps: true };
  const rp = { id: "localhost", name: "Notes" };
  const user = { id: challenge, name: "Ann", displayName: "Ann" };
  const publicKey = { challenge, rpId: rp.id, rp, user, extensions };
  const bodies: Record<string, unknown>[] = [];
  const daemon = new FakeDaemon(({ path, body = "{}" }) => {
    if (path.endsWith("/options")) return { body: { ceremony: "c", publicKey } };
    bodies.push((JSON.parse(body) as { credential: Record<string, unknown> }).credential);
    return problem(400, "passkey-invalid");
  });
  const custody = await daemon.custody(await Realm.make());
  custody.account = { account: "a-1" };
  custody.transport.session = { token: "t", scope: "pin-only" } as never;
  for (const call of [
    () => addPasskey(custody),
    () => confirmPasskey(custody, "key-1"),
    () => signInWithPasskey(custody),
  ]) {
    await assert.rejects(call, { code: "passkey-invalid" });
  }
  return bodies;
}

test("of what an authenticator gives, what the daemon reads is sent, and nothing else", async () => {
  const bodies = await sent(results);
  assert.equal(bodies.length, 3);
  for (const { clientExtensionResults, ...credential } of bodies) {
    assert.deepEqual(clientExtensionResults, { credProps: { rk: true } });
    assert.deepEqual(Object.keys(credential).sort(), ["id", "rawId", "response", "type"]);
    const { response } = credential as { response: object };
    const members = Object.keys(response).sort().join();
    assert.match(
      members,
      /^(attestationObject,clientDataJSON,transports|authenticatorData,clientDataJSON,signature,userHandle)$/,
    );
  }
  assert.ok(!JSON.stringify(bodies).includes(toBase64Url(secret)));
  // The control: in what was given, it is.
  assert.ok(JSON.stringify(results).includes(toBase64Url(secret)));
});

test("a result of another shape than it should have is not sent either", async () => {
  const odd = [
    {},
    { credProps: {} },
    { credProps: { rk: toBase64Url(secret) } },
    { credProps: null },
  ];
  for (const given of odd) {
    for (const { clientExtensionResults } of await sent(given)) {
      assert.deepEqual(clientExtensionResults, {});
    }
  }
});

test("a bound device asks for passkeys of its account, and for any where it is told to", async () => {
  const asked: unknown[] = [];
  const daemon = new FakeDaemon(({ body = "{}" }) => {
    asked.push(JSON.parse(body));
    return problem(503, "busy");
  });
  const custody = await daemon.custody(await Realm.make());
  await keepAccount(custody, { account: "a-1", boundDevice: custody.device.thumbprint });
  for (const options of [{}, { anyAccount: true }, { anyAccount: false }])
    await assert.rejects(signInWithPasskey(custody, options), { code: "busy" });
  assert.deepEqual(asked, [{ account: "a-1" }, {}, { account: "a-1" }]);
});
