/**
 * An owner enrols, closes the page and comes back by PIN or passkey; what breaks off goes on, a daemon that is down or not the
 * realm's gives nothing away, and in the end the account goes with its data.
 *
 * docs/FLOWS.md has the messages behind each story. Each device is a browser context of its own.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type * as Sdk from "../sdk/src/index.js";
import { enrolled, type Kept, Stage } from "./support/stage.js";
import { daemon } from "./support/world.js";

declare const sdk: typeof Sdk;
declare const kept: Kept;

let stage: Stage;
before(async () => {
  stage = await Stage.set();
});
after(() => stage.clear());

test("enrolment, a closed page, and the PIN that brings the key back", async () => {
  const phone = await stage.device();
  const { account, key } = await enrolled(phone);
  await stage.reload(phone);
  const seen = await phone.page.evaluate(async () => {
    const { custody } = kept;
    const locked = custody.unlocked === undefined;
    const reading = await sdk.openReadOnly(custody);
    const forbidden = await kept.tried(() => sdk.unlock(custody));
    const signedIn = await sdk.signInWithPin(custody, "830517");
    const data = new TextEncoder().encode("signed");
    const signature = await signedIn.unlocked?.sign(data);
    const view = await sdk.viewAccount(custody);
    const numbers = [];
    for await (const event of sdk.verifiedEvents(custody)) numbers.push(event.number);
    return {
      ...{ locked, scope: reading.scope, forbidden, account: signedIn.account, numbers },
      key: custody.unlocked?.thumbprint,
      signature: signature?.length,
      incomplete: view.recovery_incomplete,
      size: (await sdk.newestCheckpoint(custody))?.size ?? 0,
    };
  });
  assert.ok(seen.locked && seen.size > 0);
  assert.deepEqual(
    [seen.scope, seen.account, seen.key, seen.signature],
    ["read", account, key, 64],
  );
  assert.equal(seen.forbidden?.code, "release-forbidden");
  assert.deepEqual(
    seen.numbers,
    [...seen.numbers].sort((one, other) => other - one),
  );
  assert.equal(seen.numbers.at(-1), 1);
  await phone.context.close();
});

test("the PIN is in no request, unless the app says that the server checks it", async () => {
  const phone = await stage.device();
  const sent: string[] = [];
  phone.page.on("request", (request) => sent.push(request.postData() ?? ""));
  const said = (pin: string) => sent.some((body) => body.includes(pin));
  await enrolled(phone);
  await phone.page.evaluate(() => sdk.signInWithPin(kept.custody, "830517"));
  assert.ok(sent.length > 5 && !said("830517"));
  const other = await phone.page.evaluate(async () => {
    const { custody } = kept;
    const view = await sdk.viewAccount(custody);
    await sdk.setPin(custody, "294061", { onServer: true });
    const refused = await kept.tried(() => sdk.signInWithPin(custody, "294061"));
    return { by: view.pin?.checked_by, refused: refused?.code };
  });
  assert.deepEqual(other, { by: "opaque", refused: "pin-other-way" });
  assert.ok(said("294061"), "the control");
  await phone.page.evaluate(async () => {
    await sdk.signInWithPin(kept.custody, "294061", { onServer: true });
    await sdk.setPin(kept.custody, "830517");
    await sdk.signInWithPin(kept.custody, "830517");
  });
  assert.ok(!said("830517"));
  await phone.context.close();
});

test("a wrong PIN says how many tries are left, and the right one works afterwards", async () => {
  const phone = await stage.device();
  await enrolled(phone);
  const seen = await phone.page.evaluate(async () => {
    const { custody } = kept;
    await sdk.signOut(custody);
    const first = await kept.tried(() => sdk.signInWithPin(custody, "111222"));
    const second = await kept.tried(() => sdk.signInWithPin(custody, "333444"));
    const weak = await kept.tried(async () => {
      await sdk.signInWithPin(custody, "830517");
      await sdk.setPin(custody, "123456");
    });
    await sdk.setPin(custody, "294061");
    await sdk.signOut(custody, "everywhere");
    const old = await kept.tried(() => sdk.signInWithPin(custody, "830517"));
    const again = await sdk.signInWithPin(custody, "294061");
    return { first, second, weak, old, unlocked: again.unlocked !== undefined };
  });
  assert.deepEqual(
    [seen.first?.name, seen.first?.attemptsLeft, seen.second?.attemptsLeft],
    ["WrongGuess", 4, 3],
  );
  assert.deepEqual(
    [seen.weak?.code, seen.old?.code, seen.unlocked],
    ["pin-weak", "pin-wrong", true],
  );
  await phone.context.close();
});

test("a person who does not confirm, and an authenticator without PRF", async () => {
  const phone = await stage.device({ prf: false });
  await enrolled(phone);
  const added = await phone.page.evaluate(async () => {
    const { prf } = await sdk.addPasskey(kept.custody);
    return { prf: prf !== undefined, again: await kept.tried(() => sdk.addPasskey(kept.custody)) };
  });
  assert.deepEqual([added.prf, added.again?.code], [false, "passkey-exists"]);
  await phone.verify(false);
  const seen = await phone.page.evaluate(() =>
    kept.tried(() => sdk.signInWithPasskey(kept.custody)),
  );
  assert.equal(seen?.code, "passkey-cancelled");
  await phone.context.close();
});

test("the PRF output never leaves the browser", async () => {
  const phone = await stage.device();
  await enrolled(phone);
  const bodies: string[] = [];
  phone.page.on("request", (request) => bodies.push(request.postData() ?? ""));
  const output = await phone.page.evaluate(async () => {
    await sdk.addPasskey(kept.custody);
    const { prf } = await sdk.signInWithPasskey(kept.custody);
    return btoa(String.fromCharCode(...(prf?.output ?? [])));
  });
  assert.equal(Buffer.from(output, "base64").length, 32);
  const url = Buffer.from(output, "base64").toString("base64url");
  const credentials = bodies.filter((body) => body.includes("clientExtensionResults"));
  assert.equal(credentials.length, 2);
  for (const body of bodies)
    assert.ok(!body.includes(output.slice(0, 20)) && !body.includes(url.slice(0, 20)));
  await phone.context.close();
});

test("an enrolment that breaks off anywhere goes on where it was", async () => {
  for (const broken of ["/accounts", "/secrets/device-secret", "/secrets/app-key"]) {
    for (const when of ["before", "after"] as const) {
      const phone = await stage.device();
      let failed = false;
      await phone.page.route(`**${broken}`, async (route) => {
        if (failed || route.request().method() === "OPTIONS") return route.continue();
        failed = true;
        // The answer is lost, and in the second case the request was carried out.
        if (when === "after") await route.fetch({ maxRetries: 0 }).catch(() => undefined);
        return route.abort();
      });
      const first = await phone.page.evaluate(() => kept.tried(() => sdk.enrol(kept.custody)));
      assert.equal(first?.code, "unreachable", `${broken} ${when}`);
      await stage.reload(phone);
      const key = await phone.page.evaluate(async () => (await sdk.enrol(kept.custody)).thumbprint);
      const seen = await phone.page.evaluate(async () => {
        await sdk.setPin(kept.custody, "830517");
        await sdk.signOut(kept.custody);
        const signedIn = await sdk.signInWithPin(kept.custody, "830517");
        return {
          key: signedIn.unlocked?.thumbprint,
          pending: await sdk.enrolmentPending(kept.custody),
        };
      });
      assert.deepEqual(seen, { key, pending: false }, `${broken} ${when}`);
      await phone.context.close();
    }
  }
});

test("a realm with other keys gives no session", async () => {
  const phone = await stage.device();
  await enrolled(phone);
  const foreign = await phone.page.evaluate(async () => {
    const { publicKey } = await crypto.subtle.generateKey(
      { name: "ECDSA", namedCurve: "P-256" },
      true,
      ["sign", "verify"],
    );
    const jwk = await crypto.subtle.exportKey("jwk", publicKey);
    const { url } = kept.custody.transport;
    const realm = { name: kept.custody.realm.name, keys: [{ ...jwk, use: "custodyd-checkpoint" }] };
    const custody = await sdk.openCustody({ url, app: kept.custody.app, realm });
    const failure = await kept.tried(() => sdk.signInWithPin(custody, "830517"));
    return {
      failure,
      session: custody.transport.session !== undefined,
      key: custody.unlocked !== undefined,
    };
  });
  assert.deepEqual(
    [foreign.failure?.doubt, foreign.session, foreign.key],
    ["key-unknown", false, false],
  );
  await phone.context.close();
});

test("a daemon that is down, and back", async () => {
  const phone = await stage.device();
  const { key } = await enrolled(phone);
  await daemon("kill");
  const down = await phone.page.evaluate(() =>
    kept.tried(() => sdk.signInWithPin(kept.custody, "830517")),
  );
  assert.equal(down?.name, "Unreachable");
  await stage.reload(phone);
  await daemon("start");
  const back = await phone.page.evaluate(async () => {
    const signedIn = await sdk.signInWithPin(kept.custody, "830517");
    return signedIn.unlocked?.thumbprint;
  });
  assert.equal(back, key);
  await phone.context.close();
});

test("data taken out, and the account erased", async () => {
  const phone = await stage.device();
  await enrolled(phone);
  const seen = await phone.page.evaluate(async () => {
    const { custody } = kept;
    const version = await sdk.putSecret(
      custody,
      "note",
      new TextEncoder().encode("text"),
      undefined,
    );
    const conflict = await kept.tried(() =>
      sdk.putSecret(custody, "note", new Uint8Array([1]), version + 5),
    );
    await sdk.deleteSecret(custody, "note", version);
    const names = (await sdk.listSecrets(custody)).map((one) => one.name);
    const data = await sdk.exportAccount(custody);
    await sdk.eraseAccount(custody);
    const again = await kept.open();
    const gone = await kept.tried(() =>
      sdk.signInWithPin(again, "830517", { account: data.account.account }),
    );
    return {
      conflict: conflict?.name,
      names,
      format: data.format,
      account: again.account,
      gone: gone?.name,
    };
  });
  assert.deepEqual(seen, {
    conflict: "VersionConflict",
    names: ["app-key", "device-secret"],
    format: 1,
    account: undefined,
    gone: "AuthenticationFailed",
  });
  await phone.context.close();
});
