/** From one realm to a group and back: the secret is somewhere at every moment, whatever breaks off. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { fromUtf8, toBase64Url, utf8 } from "../src/bytes.js";
import type { Custody } from "../src/custody.js";
import { CustodyError } from "../src/errors.js";
import { setPin } from "../src/factors.js";
import { Unlocked } from "../src/keys.js";
import { lostVersions, pendingChanges, queuedOf } from "../src/offline/changes.js";
import { saveSecret } from "../src/offline/queue.js";
import { sync } from "../src/offline/sync.js";
import { convertToGroup, convertToSingle, finishConversion } from "../src/threshold/convert.js";
import { RealmsFailed } from "../src/threshold/failures.js";
import { atEach, forgetGroup, type Group, lockGroup } from "../src/threshold/group.js";
import { anyGive, give, type Keeper, recovered, signIn } from "./support/group.js";
import { type Fates, Phone } from "./support/phone.js";

/** The network goes at the nth request, and stays away. */
function goesAt(at: number, fate: "lost" | "answer-lost") {
  const seen = { asked: 0 };
  const fates: Fates = () => {
    seen.asked += 1;
    if (seen.asked < at) return "done";
    return seen.asked === at ? fate : "lost";
  };
  return { seen, fates };
}

for (const [which, from] of [
  ["with the realm of before among them", 0],
  ["without it", 1],
] as const) {
  test(`a key is split over three realms, ${which}, and its single secret goes last`, async () => {
    const phone = await Phone.make(from + 3);
    const among = phone.realms.slice(from);
    const group = await phone.convert(among);
    assert.deepEqual([...phone.realms[0]!.secrets], []);
    assert.ok(await anyGive(among, 2, phone.unlocked));
    assert.equal(await phone.singleGives(), false);
    assert.equal((await recovered(among, 2)).unlocked.thumbprint, phone.unlocked.thumbprint);
    // The account of before is the group's, with its device key; no second one was made there.
    assert.equal(phone.realms[0]!.accounts.size, 0);
    const kept = await phone.storage("custodyd:notes").get("account");
    assert.equal(kept === undefined, from === 0);
    assert.equal(group.custodies.length, 3);
  });
}

test("ways in at the new realms are made within ten minutes, and after that the conversion begins again", async () => {
  const phone = await Phone.make(4);
  const among = phone.realms.slice(1);
  const single = await phone.single();
  const pins = (group: Group) =>
    atEach(group, (custody) => setPin(custody, "830517", { onServer: true }));
  const late = await convertToGroup(single, phone.options(among));
  // The control: a second earlier it may.
  for (const realm of among) realm.now = 599;
  await pins(late);
  for (const realm of among) realm.now = 600;
  await assert.rejects(pins(late), (error) => {
    assert.ok(error instanceof RealmsFailed);
    const codes = error.answers.map(({ error }) => error?.code);
    assert.deepEqual(codes, ["step-up-required", "step-up-required", "step-up-required"]);
    return true;
  });
  // Nothing was erased, and the accounts that nobody comes back to are not asked for again.
  await forgetGroup(late);
  assert.ok(await phone.singleGives());
  for (const realm of among) realm.stored = undefined;
  // The key that was open is locked with the group: its owner signs in again.
  const again = await convertToGroup(await phone.single(), phone.options(among));
  await pins(again);
  assert.deepEqual(
    among.map(({ accounts }) => accounts.size),
    [2, 2, 2],
  );
  lockGroup(again);
  await finishConversion(single, again, signIn, { patience: 1000 });
  assert.ok(await anyGive(among, 2, phone.unlocked));
});

test("interrupted at any request, one realm or the others give the key, and the next call goes on", async () => {
  let stopped = 0;
  for (const fate of ["lost", "answer-lost"] as const) {
    for (let at = 1; ; at += 1) {
      const phone = await Phone.make(3);
      const { seen, fates } = goesAt(at, fate);
      const failure = await phone.convert(phone.realms, fates).then(
        () => undefined,
        (error: unknown) => error,
      );
      const where = `${fate} at ${at} of ${seen.asked}`;
      const [one, all] = [
        await phone.singleGives(),
        await anyGive(phone.realms, 2, phone.unlocked),
      ];
      assert.ok(one || all, where);
      if (failure) assert.ok(failure instanceof CustodyError, where);
      if (seen.asked < at) break;
      stopped += 1;
      // The page is loaded again.
      const single = await phone.storage("custodyd:notes").get("account");
      if (single) await phone.convert(phone.realms);
      assert.ok(await anyGive(phone.realms, 2, phone.unlocked), where);
      assert.deepEqual([...phone.realms[0]!.secrets], [], where);
      for (const keeper of phone.realms.slice(1)) assert.equal(keeper.accounts.size, 1, where);
    }
  }
  assert.ok(stopped > 30, String(stopped));
});

test("the control: who erases the secret before the shares are proven loses it", async () => {
  const phone = await Phone.make(3);
  const { fates } = goesAt(9, "lost");
  phone.realms[0]!.secrets.clear();
  await assert.rejects(phone.convert(phone.realms, fates));
  assert.ok(!(await phone.singleGives()) && !(await give(phone.realms, phone.unlocked)));
});

test("a realm that lies about its share keeps the single secret where it is, and is named", async () => {
  const phone = await Phone.make(3);
  const single = await phone.single();
  const group = await convertToGroup(single, phone.options(phone.realms));
  const liar = phone.realms[2]!;
  const finish = () => finishConversion(single, group, signIn, { patience: 1000 });
  liar.lies((document) => {
    const [share] = document["shares"] as { share: string }[];
    return { ...document, shares: [{ ...share, share: toBase64Url(new Uint8Array(33)) }] };
  });
  const wrong = await finish().catch((error: unknown) => error);
  assert.ok(wrong instanceof RealmsFailed && wrong.realms("wrong").join() === liar.realm.name);
  liar.lie = () => undefined;
  const none = await finish().catch((error: unknown) => error);
  assert.ok(none instanceof RealmsFailed && none.realms("refused").join() === liar.realm.name);
  assert.ok(await phone.singleGives());
  // The control: once it gives what it was given, the secret goes.
  liar.lie = undefined;
  await finish();
  assert.equal(await phone.singleGives(), false);
});

for (const [which, chained] of [
  ["hangs on it", true],
  ["does not", false],
] as const) {
  test(`a session that may erase but one of the two erases neither, where the app key ${which}`, async () => {
    for (const [name, right, code] of [
      ["device-secret", "erase", "step-up-required"],
      ["app-key", "read", "release-forbidden"],
    ] as const) {
      const phone = await Phone.make(3);
      const [{ secrets, keptFrom }] = phone.realms as [Keeper];
      const key = secrets.get("app-key")!;
      const slot = { type: "secret", credential: "device-secret", ciphertext: "AAAA" } as const;
      const body = chained ? { ...key.body, slots: [slot] } : key.body;
      secrets.set("app-key", { ...key, body });
      keptFrom.set(name, right);
      await assert.rejects(phone.convert(phone.realms), { code });
      assert.deepEqual([...secrets.keys()].sort(), ["app-key", "device-secret"], name);
      assert.ok(await anyGive(phone.realms, 2, phone.unlocked));
      // Signed in by what is strong enough, it goes on.
      keptFrom.clear();
      await phone.convert(phone.realms);
      assert.deepEqual([...secrets.keys()], [], name);
    }
  });
}

test("a realm that shows a share nobody gave it stops the conversion before anything is written", async () => {
  const phone = await Phone.make(3);
  phone.realms[1]!.lie = () => "bm8";
  const broken = await phone.convert(phone.realms).catch((error: unknown) => error);
  assert.ok(broken instanceof RealmsFailed);
  assert.deepEqual(broken.realms("wrong"), ["b.example"]);
  assert.ok(phone.realms.every(({ stored }) => stored === undefined));
  assert.ok(await phone.singleGives());
});

test("and back: the one realm gives the key before the first share goes, wherever it breaks off", async () => {
  for (const fate of ["lost", "answer-lost"] as const) {
    for (let at = 1; ; at += 1) {
      const phone = await Phone.make(3);
      await phone.convert(phone.realms);
      const { seen, fates } = goesAt(at, fate);
      const back = async (its?: Fates, open = true) => {
        const single = await phone.single();
        const storage = phone.storage("custodyd:notes");
        // The group's own storages have its accounts by now.
        const group = await openAgain(phone, its, open);
        await convertToSingle(group, "a.example", { storage });
        return single;
      };
      const failure = await back(fates).then(
        () => undefined,
        (error: unknown) => error,
      );
      const where = `${fate} at ${at} of ${seen.asked}`;
      const gives = await phone.singleGives();
      assert.ok(gives || (await anyGive(phone.realms, 2, phone.unlocked)), where);
      if (failure) assert.ok(failure instanceof CustodyError, where);
      if (seen.asked < at) break;
      // Without the key open it goes on, once the one realm has it.
      await back(undefined, !gives);
      assert.ok(await phone.singleGives(), where);
      assert.ok(
        phone.realms.every(({ stored }) => stored === undefined),
        where,
      );
      const kept = await phone.storage("custodyd:notes").get("account");
      assert.deepEqual(kept, { account: "a-1" }, where);
    }
  }
});

async function openAgain(phone: Phone, fate: Fates | undefined, open: boolean): Promise<Group> {
  const { openGroup } = await import("../src/threshold/group.js");
  const group = await openGroup(phone.options(phone.realms, fate));
  for (const custody of group.custodies) {
    custody.transport.session = { token: "t", scope: "full" } as never;
    if (open) custody.unlocked = await Unlocked.open(phone.unlocked.secret, phone.unlocked.wrapped);
  }
  return group;
}

test("what was written at the one realm while the shares were made goes along, and what has gone out does not", async () => {
  const phone = await Phone.make(3);
  const early = await phone.single(() => "lost");
  await saveSecret(early, "sent", utf8("before"));
  const group = await convertToGroup(await phone.single(), phone.options(phone.realms));
  const [own] = group.custodies as [Custody];
  // Of the storage that was copied: it goes out from the one, another waits there, and a third at the group.
  const online = await phone.single();
  assert.deepEqual((await sync(online)).sent, ["sent"]);
  phone.realms[0]!.secrets.delete("sent");
  const { account } = own;
  Object.assign(own.transport, { session: undefined });
  await saveSecret(own, "both", utf8("the group's"));
  const offline = await phone.single(() => "lost");
  for (const name of ["draft", "both"]) await saveSecret(offline, name, utf8(`mine: ${name}`));
  const lost = { name: "draft", content: utf8("of before") };
  await offline.storage.update([], (update) => {
    update.set("lost/a-1/draft/00", lost);
  });
  lockGroup(group);
  await finishConversion(offline, group, signIn, { patience: 1000 });
  assert.deepEqual(await offline.storage.list(""), []);
  assert.deepEqual([await pendingChanges(own), own.account], [["both", "draft"], account]);
  assert.deepEqual((await queuedOf(own, "draft"))?.content, utf8("mine: draft"));
  const both = await queuedOf(own, "both");
  assert.deepEqual(
    [both, ...(both?.aside ?? [])].map((one) => one && fromUtf8(one.content)),
    ["mine: both", "the group's"],
  );
  assert.deepEqual(
    (await lostVersions(own)).map(({ content }) => content),
    [lost.content],
  );
});

test("the way back is refused while another account is kept where it would lead, and no share goes", async () => {
  const phone = await Phone.make(4);
  const among = phone.realms.slice(1);
  const storage = phone.storage("custodyd:notes");
  const group = await phone.convert(among);
  for (const custody of group.custodies) {
    custody.transport.session = { token: "t", scope: "full" } as never;
    custody.unlocked = await Unlocked.open(phone.unlocked.secret, phone.unlocked.wrapped);
  }
  await storage.update([], (update) => {
    update.set("account", { account: "a-0" });
  });
  await assert.rejects(convertToSingle(group, "b.example", { storage }), {
    code: "already-enrolled",
  });
  assert.ok(await anyGive(among, 2, phone.unlocked));
  assert.deepEqual([...phone.realms[1]!.secrets], []);
  // The control: with that device forgotten it leads there.
  await storage.clear();
  await convertToSingle(group, "b.example", { storage });
  assert.deepEqual(await storage.get("account"), group.custodies[0]!.account);
});
