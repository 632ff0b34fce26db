/** Signing out: what is said to be done was answered. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Custody } from "../src/custody.js";
import { signOut } from "../src/sign-in.js";
import { FakeDaemon, problem, type Reply } from "./support/daemon.js";
import { Realm } from "./support/realm.js";

async function signedIn(answers: (Reply | "nobody")[]): Promise<[Custody, FakeDaemon]> {
  const daemon = new FakeDaemon(() => {
    const reply = answers.shift();
    if (reply === undefined || reply === "nobody") throw new TypeError("Failed to fetch");
    return reply;
  });
  const custody = await daemon.custody(await Realm.make());
  custody.transport.session = { token: "t", scope: "full" } as never;
  return [custody, daemon];
}

test("sessions of all devices are over once that was answered, and not before", async () => {
  for (const [first, code] of [
    ["nobody", "unreachable"],
    [problem(503, "busy"), "busy"],
  ] as const) {
    const [custody, daemon] = await signedIn([first, { status: 204 }]);
    await assert.rejects(signOut(custody, "everywhere"), { code });
    await signOut(custody, "everywhere");
    assert.deepEqual(
      daemon.asked.map(({ method, path }) => `${method} ${path}`),
      ["DELETE /v1/sessions", "DELETE /v1/sessions"],
    );
    assert.equal(custody.transport.session, undefined);
    // Without a session nobody is asked, and nothing is claimed.
    await assert.rejects(signOut(custody, "everywhere"), { code: "not-signed-in" });
    assert.equal(daemon.asked.length, 2);
  }
});

test("a session that is over has ended no others", async () => {
  const [custody] = await signedIn([problem(401, "session-expired")]);
  await assert.rejects(signOut(custody, "everywhere"), { code: "session-expired" });
  assert.equal(custody.transport.session, undefined);
});

test("this device's session is let go, whatever is answered", async () => {
  const [custody] = await signedIn(["nobody"]);
  await assert.rejects(signOut(custody), { code: "unreachable" });
  assert.equal(custody.transport.session, undefined);
  await signOut(custody);
  const [over] = await signedIn([problem(401, "session-expired")]);
  await signOut(over);
  assert.equal(over.transport.session, undefined);
});
