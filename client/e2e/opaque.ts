/**
 * `@serenity-kit/opaque` as npm has it registers and logs in at the daemon, message by message, without the SDK's own use of
 * it. Run by Node: nothing here needs a browser.
 */
import assert from "node:assert/strict";
import { before, test } from "node:test";
import { client, ready } from "@serenity-kit/opaque";
import * as sdk from "../sdk/src/index.js";
import { realmKeys } from "./support/stage.js";
import { world } from "./support/world.js";

const PASSWORD = "830517";
/** What the library does where it is told nothing: RFC 9106's second recommendation. */
const LIBRARY_DEFAULT = { memory_kib: 65536, passes: 3, lanes: 4 };

let custody: sdk.Custody;
before(async () => {
  await ready;
  const { url, app } = world;
  const realm = { name: world.realm, keys: await realmKeys() };
  custody = await sdk.openCustody({ url, app, realm, storage: sdk.memoryStorage() });
  await sdk.enrol(custody, { deviceName: "node" });
});

const start = "/v1/apps/{app}/sessions/opaque/start";
const finish = "/v1/apps/{app}/sessions/opaque/finish";

async function register(password: string, spent: typeof LIBRARY_DEFAULT, say?: object) {
  const { clientRegistrationState, registrationRequest } = client.startRegistration({ password });
  const started = await custody.transport.request("post", "/v1/account/opaque/start", {
    body: { request: registrationRequest },
  });
  const made = client.finishRegistration({
    clientRegistrationState,
    registrationResponse: started.response,
    password,
    ...say,
  });
  const { registration } = started;
  const body = { registration, record: made.registrationRecord, key_stretching: spent };
  const { session } = await custody.transport.request("post", "/v1/account/opaque/finish", {
    body,
  });
  custody.transport.session = session;
  return made;
}

async function begin(password: string) {
  const account = custody.account?.account ?? "";
  const { clientLoginState, startLoginRequest: ke1 } = client.startLogin({ password });
  const started = await custody.transport.request("post", start, { body: { account, ke1 } });
  const { memory_kib: memory, passes: iterations, lanes: parallelism } = started.key_stretching;
  const ended = client.finishLogin({
    clientLoginState,
    loginResponse: started.ke2,
    password,
    keyStretching: { "argon2id-custom": { memory, iterations, parallelism } },
  });
  return { started, ended };
}

for (const [name, spent, say] of [
  ["with the library's own key stretching", LIBRARY_DEFAULT, undefined],
  [
    "with the least that the policy asks for",
    { memory_kib: 19456, passes: 2, lanes: 1 },
    { keyStretching: { "argon2id-custom": { memory: 19456, iterations: 2, parallelism: 1 } } },
  ],
] as const) {
  test(`registration and login ${name}`, async () => {
    const made = await register(PASSWORD, spent, say);
    const { started, ended } = await begin(PASSWORD);
    assert.deepEqual(started.key_stretching, spent);
    assert.ok(ended);
    assert.equal(ended.exportKey, made.exportKey);
    assert.equal(ended.serverStaticPublicKey, made.serverStaticPublicKey);
    const body = { login: started.login, ke3: ended.finishLoginRequest, release: [] };
    const signedIn = await custody.transport.request("post", finish, { body });
    assert.equal(signedIn.session.factor, "pin");
    custody.transport.session = signedIn.session;
    // Once.
    await assert.rejects(custody.transport.request("post", finish, { body }), {
      code: "ceremony-consumed",
    });
  });
}

test("a wrong password is seen by the library, and was paid for", async () => {
  const { started, ended } = await begin("830518");
  assert.equal(ended, undefined);
  const next = await begin("830518");
  assert.equal(next.started.attempts_left, (started.attempts_left ?? 0) - 1);
});

test("the SDK and the library agree", async () => {
  await sdk.signInWithPin(custody, PASSWORD, { release: [] });
  await sdk.setPin(custody, "294061");
  const { ended } = await begin("294061");
  assert.ok(ended);
});
