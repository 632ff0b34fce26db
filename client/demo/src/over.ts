/** Starting over on this device. */
import { forgetDevice } from "@custodyd/sdk";
import { button, dialog, h } from "./dom.js";
import { model } from "./model.js";

/** What this device has of an account and nobody else does, by the names of records: the SDK's, and this app's own. */
const ONLY_HERE: readonly (readonly [RegExp, string])[] = [
  [/^queue\/([^/]+)\//, "changes that were not sent"],
  [/^lost\/([^/]+)\//, "earlier versions that nobody has looked at"],
  [/^demo\/([^/]+)\/older\//, "earlier versions that nobody has looked at"],
  [/^of\/([^/]+)\/enrolment$/, "its key, as it was never finished"],
  [/^of\/([^/]+)\/(?:codes|rotation)$/, "recovery codes that nobody has written down"],
  [/^of\/([^/]+)\/offline$/, "ways to unlock without a network"],
];

/** Other notebooks that were opened in this browser, and what of each is nowhere else. */
async function others(): Promise<HTMLElement[]> {
  const found = new Map<string, Set<string>>();
  const kept = await model.custody.storage.list("");
  for (const [name, words] of ONLY_HERE) {
    for (const [key, value] of kept) {
      const account = name.exec(key)?.[1];
      const isOthers = account !== undefined && account !== model.custody.account?.account;
      if (!isOthers || value === undefined) continue;
      found.set(account, (found.get(account) ?? new Set()).add(words));
    }
  }
  return [...found].map(([account, words]) =>
    h(
      "li",
      {},
      h(
        "span",
        {},
        [...words].join("; "),
        h("br"),
        h("small", {}, "Account ", h("code", {}, account)),
      ),
    ),
  );
}

async function ask(): Promise<void> {
  const theirs = await others();
  const gone = h(
    "div",
    { class: "stack" },
    h("p", {}, "Other notebooks of this browser are forgotten, too. With them goes:"),
    h("ul", { class: "list" }, ...theirs),
  );
  dialog("Start over on this device?", (close) => [
    h(
      "p",
      {},
      "Notes, keys and ways in that only this device has are gone for good. Other devices keep theirs.",
    ),
    theirs.length > 0 && gone,
    button(
      theirs.length > 0 ? "Forget all of them" : "Forget this notebook",
      async () => {
        await forgetDevice(model.custody);
        close();
        location.hash = "#/";
        location.reload();
      },
      { class: "danger wide" },
    ),
  ]);
}

/** For whoever has no way back, as where the page was closed before the first PIN was set. */
export function startOver(): HTMLElement {
  return h(
    "section",
    { class: "card stack" },
    h("h2", {}, "None of these"),
    button("Start over", ask, { class: "wide" }),
  );
}
