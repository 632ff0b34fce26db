/**
 * The browser itself has a say: it trusts the page's authority and no other, runs nothing that was injected, has authenticators
 * that can more or less, and clears its storage; the owner comes to the key all the same, and nobody else does.
 */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type * as Sdk from "../sdk/src/index.js";
import { launch } from "./support/browser.js";
import { enrolled, type Kept, Stage } from "./support/stage.js";
import { origin } from "./support/world.js";

declare const sdk: typeof Sdk;
declare const kept: Kept;

/** What somebody who can write into a page would try. It runs as a script of the page's own. */
const INJECTION = `
const ran = [], blocked = [];
addEventListener("securitypolicyviolation", ({ effectiveDirective }) => blocked.push(effectiveDirective));
Object.assign(globalThis, { ran, blocked });
const script = document.createElement("script");
script.textContent = "ran.push('inline script')";
document.body.append(script);
const image = document.createElement("div");
image.innerHTML = '<img src="data:," onerror="ran.push(\\'attribute\\')">';
// After the attribute, where that runs: it was there first.
const failed = new Promise((resolve) => image.firstChild.addEventListener("error", resolve));
document.body.append(image);
try { eval("ran.push('eval')"); } catch { /* blocked */ }
const foreign = document.createElement("script");
foreign.src = "data:text/javascript,ran.push('foreign')";
const decided = ["load", "error"].map((name) => new Promise((resolve) => foreign.addEventListener(name, resolve)));
document.body.append(foreign);
const empty = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]);
const ended = WebAssembly.instantiate(empty).then(() => ran.push("wasm"));
Promise.allSettled([ended, failed, Promise.race(decided)])
  .then(() => { globalThis.over = true; });
`;

let stage: Stage;
before(async () => {
  const page = (policy?: false) => ({
    body: '<!doctype html><html lang="en"><title>page</title><body><script type="module" src="/injection.js"></script></body></html>',
    type: "text/html",
    ...(policy === false ? { policy } : {}),
  });
  stage = await Stage.set([
    ["/strict", page()],
    ["/bare", page(false)],
    ["/injection.js", { body: INJECTION, type: "text/javascript" }],
  ]);
});
after(() => stage.clear());

test("a page is trusted because its authority is in the browser's store, and for nothing else", async () => {
  const stranger = await launch([]);
  const page = await stranger.newPage();
  await assert.rejects(page.goto(origin), /ERR_CERT_AUTHORITY_INVALID/);
  await stranger.close();
  const phone = await stage.device();
  assert.equal(await phone.page.title(), "SDK", "the control");
  await phone.context.close();
});

test("what is injected into a page does not run, and WebAssembly does", async () => {
  const { page, context } = await stage.device();
  const tried = async (path: string, runs: number, blocks: number) => {
    await page.goto(origin + path);
    // All of it was decided by then, and what was blocked is told as soon as the page gets to it.
    await page.waitForFunction(
      ([runs, blocks]) => {
        const { ran, blocked } = globalThis as unknown as Record<"ran" | "blocked", string[]>;
        return "over" in globalThis && ran.length >= runs && new Set(blocked).size >= blocks;
      },
      [runs, blocks] as const,
    );
    return page.evaluate(() => {
      const { ran, blocked } = globalThis as unknown as Record<"ran" | "blocked", string[]>;
      return { ran: ran.sort(), blocked: [...new Set(blocked)].sort() };
    });
  };
  const strict = await tried("/strict", 1, 3);
  assert.deepEqual(strict.ran, ["wasm"]);
  assert.deepEqual(strict.blocked, ["script-src", "script-src-attr", "script-src-elem"]);
  // The control: where there is no policy, all of it runs.
  const bare = await tried("/bare", 5, 0);
  assert.deepEqual(bare.ran, ["attribute", "eval", "foreign", "inline script", "wasm"]);
  await context.close();
});

test("two passkeys of one account, on one device and on two; one is removed", async () => {
  const [phone, laptop] = [await stage.device(), await stage.device()];
  const { account, key } = await enrolled(phone);
  const code = await phone.page.evaluate(async () => {
    const { prf } = await sdk.addPasskey(kept.custody, { user: "Ann", passkey: "phone" });
    await sdk.keepOfflineByPasskey(kept.custody, prf);
    return (await sdk.setRecoveryCodes(kept.custody))[0]?.text ?? "";
  });
  await laptop.page.evaluate(
    async ({ account, code }) => {
      const { custody } = kept;
      await sdk.signInWithRecoveryCode(custody, code, { account, bindDevice: "laptop" });
      await sdk.addPasskey(custody, { user: "Ann", passkey: "laptop" });
    },
    { account, code },
  );
  // Each is asked for either, and has its own.
  for (const { page } of [phone, laptop]) {
    const seen = await page.evaluate(async () => {
      const { unlocked } = await sdk.signInWithPasskey(kept.custody);
      const { passkeys } = await sdk.viewAccount(kept.custody);
      return [unlocked?.thumbprint, ...passkeys.map(({ name }) => name).sort()];
    });
    assert.deepEqual(seen, [key, "laptop", "phone"]);
  }
  const offline = await phone.page.evaluate(async () => {
    sdk.lock(kept.custody);
    return (await sdk.unlockOfflineByPasskey(kept.custody)).thumbprint;
  });
  assert.equal(offline, key);
  const left = await laptop.page.evaluate(async () => {
    const { custody } = kept;
    const { passkeys } = await sdk.viewAccount(custody);
    const gone = passkeys.find(({ name }) => name === "phone");
    await sdk.removePasskey(custody, gone?.device_id ?? "");
    return (await sdk.viewAccount(custody)).passkeys.length;
  });
  assert.equal(left, 1);
  // The laptop's is on a security key, and that is now in the phone: the one that is left.
  await phone.plugInKeyOf(laptop);
  const back = await phone.page.evaluate(async () => {
    const { unlocked } = await sdk.signInWithPasskey(kept.custody);
    return unlocked?.thumbprint;
  });
  assert.equal(back, key);
  await Promise.all([phone.context.close(), laptop.context.close()]);
});

test("without PRF a passkey signs in and does not unlock offline; a PIN does", async () => {
  const phone = await stage.device({ prf: false });
  const { key } = await enrolled(phone);
  const seen = await phone.page.evaluate(async () => {
    const { custody } = kept;
    await sdk.addPasskey(custody);
    const { prf, unlocked } = await sdk.signInWithPasskey(custody);
    const refused = await kept.tried(() => sdk.keepOfflineByPasskey(custody, prf));
    await sdk.keepOfflineByPin(custody, "830517");
    sdk.lock(custody);
    const none = await kept.tried(() => sdk.unlockOfflineByPasskey(custody));
    const offline = await sdk.unlockOfflineByPin(custody, "830517");
    return [prf, refused?.code, none?.code, unlocked?.thumbprint, offline.thumbprint];
  });
  assert.deepEqual(seen, [undefined, "prf-missing", "no-offline-slot", key, key]);
  await phone.context.close();
});

test("whoever is not verified opens nothing offline either, and can take the PIN", async () => {
  const phone = await stage.device();
  const { key } = await enrolled(phone);
  await phone.page.evaluate(async () => {
    const { prf } = await sdk.addPasskey(kept.custody);
    await sdk.keepOfflineByPasskey(kept.custody, prf);
    await sdk.keepOfflineByPin(kept.custody, "830517");
    sdk.lock(kept.custody);
  });
  await phone.verify(false);
  const seen = await phone.page.evaluate(async () => {
    const { custody } = kept;
    const refused = await kept.tried(() => sdk.unlockOfflineByPasskey(custody));
    const locked = custody.unlocked === undefined;
    return [refused?.code, locked, (await sdk.unlockOfflineByPin(custody, "830517")).thumbprint];
  });
  assert.deepEqual(seen, ["passkey-cancelled", true, key]);
  await phone.context.close();
});

test("an authenticator that can not check its owner gets no passkey", async () => {
  const phone = await stage.device({ canVerify: false });
  await enrolled(phone);
  const seen = await phone.page.evaluate(async () => {
    const refused = await kept.tried(() => sdk.addPasskey(kept.custody));
    return [refused?.name, (await sdk.viewAccount(kept.custody)).passkeys.length];
  });
  assert.deepEqual(seen, ["PasskeyFailed", 0]);
  await phone.context.close();
});

test("storage that the browser has cleared is a new device, which its owner brings in again", async () => {
  const phone = await stage.device();
  const { key } = await enrolled(phone);
  const before = await phone.page.evaluate(async () => {
    await sdk.addPasskey(kept.custody);
    return kept.custody.device.thumbprint;
  });
  const cdp = await phone.context.newCDPSession(phone.page);
  await cdp.send("Storage.clearDataForOrigin", { origin, storageTypes: "all" });
  await stage.reload(phone);
  const seen = await phone.page.evaluate(async () => {
    const { custody } = kept;
    const lost = await kept.tried(() => sdk.signInWithPin(custody, "830517"));
    const { unlocked } = await sdk.signInWithPasskey(custody, { bindDevice: "phone, again" });
    return { lost: lost?.code, key: unlocked?.thumbprint, device: custody.device.thumbprint };
  });
  assert.deepEqual([seen.lost, seen.key], ["no-account", key]);
  assert.notEqual(seen.device, before);
  await phone.context.close();
});
