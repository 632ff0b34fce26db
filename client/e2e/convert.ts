/** An account at one realm becomes that of a group and goes back, against three daemons with three tokens, and the key is never nowhere. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type * as Sdk from "../sdk/src/index.js";
import type * as Threshold from "../sdk/src/threshold/index.js";
import { Device } from "./support/browser.js";
import { run } from "./support/examples.js";
import { GroupStage, type Kept } from "./support/group.js";
import { daemon, origin } from "./support/world.js";

declare const sdk: typeof Sdk;
declare const threshold: typeof Threshold;
declare const kept: Kept;

let stage: GroupStage;
before(async () => {
  stage = await GroupStage.set({ "/convert": "ts convert" });
});
after(() => stage.clear());

test("an account at one realm becomes the group's, as the README's example does it, and goes back", async () => {
  const phone = await Device.make(stage.browser);
  await phone.page.waitForFunction(() => "threshold" in globalThis);
  const [first] = stage.pinned;
  const key = await phone.page.evaluate(async ({ url, realm }) => {
    const custody = await sdk.openCustody({ url, app: "notes", realm });
    const { thumbprint } = await sdk.enrol(custody, { deviceName: "phone A" });
    await sdk.setPin(custody, "830517");
    return thumbprint;
  }, first!);
  const shown = await run(phone, "/convert", { PIN: "830517" });
  assert.deepEqual(shown, [key, key]);
  await phone.page.goto(origin);
  await stage.opened(phone);
  const after = await phone.page.evaluate(() => kept.byPin());
  assert.deepEqual(after, { key, outcomes: ["done", "done", "done"] });
  const names = () =>
    phone.page.evaluate(async () => {
      const lists = await threshold.atEach(kept.group, sdk.listSecrets);
      return lists.map((list) => list.map(({ name }) => name).join());
    });
  assert.deepEqual(await names(), ["key-share", "key-share", "key-share"]);
  await daemon("kill", 0);
  assert.equal((await phone.page.evaluate(() => kept.byPin())).key, key);
  await daemon("start", 0);
  await phone.page.evaluate(() => kept.byPin());
  await phone.page.evaluate(
    (name) => threshold.convertToSingle(kept.group, name),
    first!.realm.name,
  );
  assert.deepEqual(await names(), ["app-key,device-secret", "", ""]);
  const back = await phone.page.evaluate(async ({ url, realm }) => {
    const custody = await sdk.openCustody({ url, app: "notes", realm });
    return (await sdk.signInWithPin(custody, "830517")).unlocked?.thumbprint;
  }, first!);
  assert.equal(back, key);
  await phone.context.close();
});
