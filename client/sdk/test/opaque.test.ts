/** What the daemon can not judge any more: which PINs may be set. And a login that is not answered in earnest. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { client, ready, server } from "@serenity-kit/opaque";
import { AuthenticationFailed, CanNotOpen, WrongGuess } from "../src/errors.js";
import { judgePin, login, registerPin } from "../src/demand/opaque.js";
import { use } from "../src/demand/t.js";
import { tools } from "../src/tools.js";
import type { Rewrapping } from "../src/demand/rewrap.js";
import { FakeDaemon, problem } from "./support/daemon.js";
import { Realm } from "./support/realm.js";

test("PINs that are too short, in sequence or repeated are refused", () => {
  for (const pin of [
    "83051",
    "123456",
    "987654",
    "aaaaaa",
    "AaAaAa",
    "121212",
    "123123",
    "abcdef",
  ]) {
    assert.throws(() => {
      judgePin(pin, 6);
    }, CanNotOpen);
  }
  for (const pin of ["830517", "correct horse", "135792", "äöüßéè"]) judgePin(pin, 6);
});

use(tools());

/** No secret to rewrap. */
const nothing: Rewrapping = {
  needsSlots: false,
  hasOnlyPrf: false,
  waits: false,
  with: () => Promise.resolve({}),
  without: () => Promise.resolve({ secrets: {}, needs: [] }),
  contentKey: () => undefined,
  remember: () => undefined,
  done: () => Promise.resolve(),
  end: () => undefined,
};

const cost = { memory_kib: 8192, passes: 1, lanes: 1 };
const stretching = { "argon2id-custom": { memory: 8192, iterations: 1, parallelism: 1 } };

/** A daemon's side of the protocol, by the same library. */
async function enrolled(password: string) {
  await ready;
  const serverSetup = server.createSetup();
  const userIdentifier = "ann";
  const { clientRegistrationState, registrationRequest } = client.startRegistration({ password });
  const { registrationResponse } = server.createRegistrationResponse({
    ...{ serverSetup, userIdentifier, registrationRequest },
  });
  const { registrationRecord } = client.finishRegistration({
    ...{ clientRegistrationState, registrationResponse, password, keyStretching: stretching },
  });
  return (startLoginRequest: string, told: object) => {
    const answered = server.startLogin({
      ...{ serverSetup, userIdentifier, registrationRecord, startLoginRequest },
    });
    const { loginResponse: ke2, serverLoginState } = answered;
    const started = { login: "cc1", ke2, key_stretching: cost, expires: 1, ...told };
    return { started, serverLoginState };
  };
}

test("a right PIN ends a login as the other side expects it", async () => {
  const answer = await enrolled("830517");
  let state = "";
  const ended = await login("830517", (ke1) => {
    const { started, serverLoginState } = answer(ke1, { attempts_left: 4, exhausted: false });
    state = serverLoginState;
    return Promise.resolve(started);
  });
  const { sessionKey } = server.finishLogin({
    ...{ serverLoginState: state, finishLoginRequest: ended.end.ke3 },
  });
  assert.ok(sessionKey);
  // The export key: 64 bytes that stay here.
  assert.deepEqual([ended.key.type, ended.key.material.length], ["opaque", 64]);
});

test("a wrong PIN is told as the daemon would tell it", async () => {
  const answer = await enrolled("830517");
  const told = { attempts_left: 3, exhausted: false, wait_until: null };
  const tried = login("830518", (ke1) => Promise.resolve(answer(ke1, told).started));
  await assert.rejects(tried, (error) => {
    assert.ok(error instanceof WrongGuess);
    return error.attemptsLeft === 3 && !error.exhausted && error.code === "pin-wrong";
  });
  const stranger = login("830518", (ke1) => Promise.resolve(answer(ke1, {}).started));
  await assert.rejects(stranger, AuthenticationFailed);
});

test("a daemon that asks for no stretching gets no record", async () => {
  await ready;
  const asked: string[] = [];
  const weak = [
    { memory_kib: 8192, passes: 1, lanes: 1 },
    { memory_kib: 4096, passes: 64, lanes: 1 },
  ];
  for (const key_stretching of weak) {
    const daemon = new FakeDaemon(({ path, body }) => {
      asked.push(path);
      const { request } = JSON.parse(body!) as { request: string };
      const { registrationResponse: response } = server.createRegistrationResponse({
        ...{
          serverSetup: server.createSetup(),
          userIdentifier: "ann",
          registrationRequest: request,
        },
      });
      return { body: { registration: "r", response, key_stretching, min_length: 6, expires: 1 } };
    });
    const custody = await daemon.custody(await Realm.make());
    await assert.rejects(registerPin(custody, "830517", nothing), { doubt: "stretching-weak" });
  }
  assert.deepEqual(asked, ["/v1/account/opaque/start", "/v1/account/opaque/start"]);
});

test("a forgotten PIN is replaced without a slot where the session may not read the secret, and for no other reason", async () => {
  await ready;
  const cost = { memory_kib: 19456, passes: 2, lanes: 1 };
  for (const [lacks, along] of [
    [{ need_one_of: ["passkey"], secret: "device-secret" }, [true, false]],
    [{}, [true]],
  ] as const) {
    const asked: boolean[] = [];
    const daemon = new FakeDaemon(({ path, body }) => {
      const sent = JSON.parse(body!) as { request: string; secrets?: object };
      if (path.endsWith("/finish")) {
        asked.push(Object.keys(sent.secrets ?? {}).length > 0);
        const needs = { need_at_least: "passkey", need_fresh: false, ...lacks };
        return asked.at(-1) ? problem(403, "step-up-required", needs) : { body: { pin: {} } };
      }
      const { registrationResponse: response } = server.createRegistrationResponse({
        ...{ serverSetup: server.createSetup(), userIdentifier: "ann" },
        registrationRequest: sent.request,
      });
      const told = { registration: "r", response, key_stretching: cost, salt: "AAAA" };
      return { body: { ...told, min_length: 6, expires: 1 } };
    });
    const custody = await daemon.custody(await Realm.make());
    const rewrap: Rewrapping = {
      ...nothing,
      with: (added) => Promise.resolve(added.length > 0 ? { "device-secret": { slots: [] } } : {}),
    };
    const set = registerPin(custody, "830517", rewrap);
    if (along.length > 1) assert.equal((await set)[1], "missing");
    else await assert.rejects(set, { code: "step-up-required" });
    assert.deepEqual(asked, along);
  }
});
