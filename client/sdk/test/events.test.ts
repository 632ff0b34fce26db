/** The demo's words for what has happened to an account: every kind that the daemon describes has some. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { about, byFactor, EVENTS, eventWords } from "../../demo/src/events.js";

/** The names, as the daemon's description has them. */
function kinds(): string[] {
  const text = readFileSync(join(process.cwd(), "sdk/src/openapi.ts"), "utf8");
  const [, union = ""] = /\n +EventKind: ([^;]+);/.exec(text) ?? [];
  return union.split("|").map((one) => one.trim().replaceAll('"', ""));
}

test("every kind of event has words of its own, and no words are of a kind that is none", () => {
  const described = kinds();
  assert.ok(described.length > 40 && described.includes("pin-set"), "the control: they are found");
  assert.deepEqual(Object.keys(EVENTS).sort(), described.sort());
  assert.equal(new Set(Object.values(EVENTS)).size, described.length);
  for (const kind of described) {
    const words = eventWords({ kind });
    assert.match(words, /^[A-Z][A-Za-z ,]+$/, kind);
    assert.ok(!words.includes(kind));
  }
});

test("an event says what it is about, and by what somebody signed in", () => {
  const signedIn = { kind: "session-started", factor: "recovery-code" };
  assert.equal(eventWords(signedIn), "Signed in with a recovery code");
  const stored = { kind: "secret-stored", detail: "notes", factor: "pin" };
  assert.equal(eventWords(stored), "Stored: your notes");
  assert.equal(
    eventWords({ kind: "recovery-code-spent", detail: "9 left" }),
    "A recovery code was used up: 9 left",
  );
});

test("what this app has no words for is said with the daemon's own, and nothing is made up", () => {
  for (const name of ["moon-risen", "constructor", "__proto__"]) {
    assert.equal(eventWords({ kind: name }), `Something that this app has no words for (${name})`);
    assert.equal(byFactor(name), `by ${name}`);
    assert.equal(about(name), name);
  }
});
