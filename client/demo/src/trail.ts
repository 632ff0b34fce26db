/** The account's own trail, each event proven to stand in the realm's log. */
import * as sdk from "@custodyd/sdk";
import { button, h } from "./dom.js";
import { model } from "./model.js";

/** What happened, newest first, once it is asked for. */
export function trail(): HTMLElement[] {
  const list = h("ul", { class: "list" });
  const proof = h(
    "p",
    { class: "soft" },
    "Every change of your account stands in a log that can not be rewritten.",
  );
  const read = button("Show and verify", async () => {
    list.replaceChildren();
    let count = 0;
    for await (const event of sdk.verifiedEvents(model.custody)) {
      count += 1;
      if (count > 12) continue;
      const at = new Date(event.at * 1000).toLocaleString();
      list.append(h("li", {}, h("span", {}, event.kind.replaceAll("-", " ")), h("small", {}, at)));
    }
    proof.replaceChildren(h("span", { class: "pill" }, `${count} events, all proven`));
  });
  return [proof, list, read];
}
