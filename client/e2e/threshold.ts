/**
 * Of three daemons with three tokens any two give the key back: with one dead, one that gives a wrong share, a refresh or an
 * enrolment that breaks off, and on a new device.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type * as Sdk from "../sdk/src/index.js";
import type * as Threshold from "../sdk/src/threshold/index.js";
import { Device } from "./support/browser.js";
import { run } from "./support/examples.js";
import { GroupStage, type Kept } from "./support/group.js";
import { daemon, realms } from "./support/world.js";

declare const sdk: typeof Sdk;
declare const threshold: typeof Threshold;
declare const kept: Kept;

let stage: GroupStage;
before(async () => {
  stage = await GroupStage.set({ "/example": "ts threshold" });
});
after(() => stage.clear());

/** A device with accounts at all three, and a PIN. */
async function enrolled(): Promise<[Device, string]> {
  const phone = await Device.make(stage.browser);
  await stage.opened(phone);
  const key = await phone.page.evaluate(async () => {
    const { group } = kept;
    const unlocked = await threshold.enrolAtAll(group, { deviceName: "phone A" });
    await threshold.atEach(group, (custody) => sdk.setPin(custody, "830517"));
    return unlocked.thumbprint;
  });
  return [phone, key];
}

test("any two of three realms give the key back, and no request holds the secret", async () => {
  const phone = await Device.make(stage.browser);
  const sent: string[] = [];
  phone.page.on("request", (request) => sent.push(request.postData() ?? ""));
  await stage.opened(phone);
  const { key, secret, names } = await phone.page.evaluate(async () => {
    const { group } = kept;
    const unlocked = await threshold.enrolAtAll(group);
    const base64 = btoa(String.fromCharCode(...unlocked.secret));
    await threshold.atEach(group, (custody) => sdk.setPin(custody, "830517"));
    const names = await threshold.atEach(group, sdk.listSecrets);
    return {
      key: unlocked.thumbprint,
      secret: base64.slice(0, 40).replaceAll("+", "-").replaceAll("/", "_"),
      names: names.flat().map(({ name }) => name),
    };
  });
  assert.deepEqual(names, ["key-share", "key-share", "key-share"]);
  const bodies = sent.map((body) => {
    const slot = /"server_slot":"([\w-]+)"/.exec(body)?.[1] ?? "";
    return body + Buffer.from(slot, "base64url").toString();
  });
  assert.ok(!bodies.some((body) => body.includes(secret)));
  assert.equal(bodies.filter((body) => body.includes('"share":')).length, 3, "the control");
  await phone.page.reload();
  await stage.opened(phone);
  const all = await phone.page.evaluate(() => kept.byPin());
  assert.deepEqual(all, { key, outcomes: ["done", "done", "done"] });
  await daemon("kill", 1);
  const two = await phone.page.evaluate(() => kept.byPin());
  assert.deepEqual(two, { key, outcomes: ["done", "unreachable", "done"] });
  await daemon("kill", 2);
  const one = await phone.page.evaluate(() => kept.byPin());
  const outcomes = ["done", "unreachable", "unreachable"];
  assert.deepEqual(one, { code: "too-few-shares", outcomes });
  await Promise.all([daemon("start", 1), daemon("start", 2)]);
  assert.equal((await phone.page.evaluate(() => kept.byPin())).key, key);
  await phone.context.close();
});

test("a realm that gives a wrong share is named", async () => {
  const [phone, key] = await enrolled();
  let lying = false;
  await phone.page.route(`${realms[2]!.url}/**/opaque/finish`, async (route) => {
    const response = await route.fetch();
    const text = await response.text();
    if (!text.includes('"key-share"')) return route.fulfill({ response });
    const answer = JSON.parse(text) as { secrets: Record<string, { server_slot: string }> };
    const secret = answer.secrets["key-share"]!;
    const document = JSON.parse(Buffer.from(secret.server_slot, "base64url").toString()) as {
      shares: { share: string }[];
    };
    const [share] = document.shares;
    const value = Buffer.from(share!.share, "base64url");
    if (lying) value[7]! ^= 1;
    share!.share = value.toString("base64url");
    secret.server_slot = Buffer.from(JSON.stringify(document)).toString("base64url");
    return route.fulfill({ response, json: answer });
  });
  // The control: taken apart and put together again as it was, it is believed.
  const honest = await phone.page.evaluate(() => kept.byPin());
  assert.deepEqual(honest, { key, outcomes: ["done", "done", "done"] });
  lying = true;
  const found = await phone.page.evaluate(() => kept.byPin());
  assert.deepEqual(found, { key, outcomes: ["done", "done", "wrong"] });
  await daemon("kill", 0);
  const alone = await phone.page.evaluate(() => kept.byPin());
  assert.deepEqual(alone, { code: "too-few-shares", outcomes: ["unreachable", "done", "wrong"] });
  await daemon("start", 0);
  await phone.context.close();
});

test("a refresh that breaks off loses nothing, and is done once it is called again", async () => {
  const [phone, key] = await enrolled();
  const versions = () =>
    phone.page.evaluate(async () => {
      const stored = await threshold.atEach(kept.group, (custody) =>
        sdk.getSecret(custody, threshold.SHARE),
      );
      return stored.map((one) => {
        const text = new TextDecoder().decode(one?.content);
        const { shares } = JSON.parse(text) as { shares: { manifest: string }[] };
        return shares.map(({ manifest }) => (JSON.parse(manifest) as { version: number }).version);
      });
    });
  assert.deepEqual(await versions(), [[1], [1], [1]]);
  for (const [at, carriedOut] of [
    [1, false],
    [1, true],
  ] as const) {
    // The second realm's answer, or the request itself, is lost.
    await phone.page.route(`${realms[at]!.url}/**/secrets/key-share`, async (route) => {
      if (route.request().method() !== "PUT") return route.continue();
      if (carriedOut) await route.fetch().catch(() => undefined);
      return route.abort();
    });
    const failure = await phone.page.evaluate(async () => {
      try {
        await threshold.refreshShares(kept.group);
        return undefined;
      } catch (error) {
        if (!(error instanceof threshold.RealmsFailed)) throw error;
        return [error.code, ...error.answers.map(({ outcome }) => outcome)];
      }
    });
    assert.deepEqual(failure, ["refresh-unfinished", "done", "unreachable", "not-asked"]);
    await phone.page.unrouteAll();
    const found = await versions();
    assert.deepEqual(found[2], [1]);
    assert.equal(found[1]!.length, carriedOut ? 2 : 1);
    for (const dead of [0, 1, 2]) {
      await daemon("kill", dead);
      const back = await phone.page.evaluate(() => kept.byPin());
      assert.equal(back.key, key, `without ${dead}`);
      await daemon("start", dead);
    }
    assert.equal((await phone.page.evaluate(() => kept.byPin())).key, key);
  }
  const { version } = await phone.page.evaluate(() => threshold.refreshShares(kept.group));
  assert.deepEqual(await versions(), [[version], [version], [version]]);
  assert.equal((await phone.page.evaluate(() => kept.byPin())).key, key);
  await phone.context.close();
});

test("an enrolment that breaks off at any realm goes on where it was", async () => {
  for (const [at, path] of [
    [1, "accounts"],
    [2, "secrets/key-share"],
  ] as const) {
    const phone = await Device.make(stage.browser);
    await stage.opened(phone);
    // Carried out, and the answer is lost.
    await phone.page.route(`${realms[at]!.url}/**/${path}`, async (route) => {
      if (route.request().method() === "OPTIONS") return route.continue();
      await route.fetch().catch(() => undefined);
      return route.abort();
    });
    const code = await phone.page.evaluate(async () => {
      try {
        await threshold.enrolAtAll(kept.group);
        return undefined;
      } catch (error) {
        if (!(error instanceof threshold.RealmsFailed)) throw error;
        return error.realms("unreachable");
      }
    });
    assert.deepEqual(code, [realms[at]!.realm], path);
    await phone.page.unrouteAll();
    await phone.page.reload();
    await stage.opened(phone);
    const key = await phone.page.evaluate(async () => {
      const waiting = await threshold.groupEnrolmentPending(kept.group);
      const unlocked = await threshold.enrolAtAll(kept.group);
      await threshold.atEach(kept.group, (custody) => sdk.setPin(custody, "830517"));
      return waiting && unlocked.thumbprint;
    });
    const back = await phone.page.evaluate(() => kept.byPin());
    assert.deepEqual(back, { key, outcomes: ["done", "done", "done"] }, path);
    await phone.context.close();
  }
});

test("a new device, with recovery codes of two realms", async () => {
  const [phone, key] = await enrolled();
  const sheet = await phone.page.evaluate(() =>
    threshold.atEach(kept.group, async (custody) => ({
      realm: custody.realm.name,
      account: custody.account?.account ?? "",
      code: (await sdk.setRecoveryCodes(custody))[0]?.text ?? "",
    })),
  );
  const laptop = await Device.make(stage.browser);
  await stage.opened(laptop);
  const seen = await laptop.page.evaluate(async (sheet) => {
    const found = await threshold.recover(
      kept.group,
      (custody, ask) => {
        const own = sheet.find(({ realm }) => realm === custody.realm.name);
        if (!own) throw new sdk.NotReady("no-account", "this page of the sheet is lost");
        const { account, code } = own;
        return sdk.signInWithRecoveryCode(custody, code, { ...ask, account, bindDevice: "B" });
      },
      { oneByOne: true },
    );
    const offline = kept.group.custodies.find(({ account }) => account)!;
    await sdk.keepOfflineByPin(offline, "294061");
    threshold.lockGroup(kept.group);
    const again = await sdk.unlockOfflineByPin(offline, "294061");
    const { answers, unlocked } = found;
    return {
      outcomes: answers.map(({ outcome }) => outcome),
      keys: [unlocked.thumbprint, again.thumbprint],
    };
  }, sheet.slice(1));
  assert.deepEqual(seen, { outcomes: ["failed", "done", "done"], keys: [key, key] });
  await Promise.all([phone.context.close(), laptop.context.close()]);
});

test("the example of the README does what it says", async () => {
  const device = await Device.make(stage.browser);
  const shown = await run(device, "/example", { "Choose a PIN": "830517", PIN: "830517" });
  const [before, back, version] = shown;
  assert.equal(back, before);
  assert.match(String(back), /^[\w-]{43}$/);
  assert.equal(version, 2);
  await device.context.close();
});
