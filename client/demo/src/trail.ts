/** The account's own trail, each event proven to stand in the realm's log. */
import * as sdk from "@custodyd/sdk";
import { button, h } from "./dom.js";
import { model } from "./model.js";

const shown = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

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
      const at = new Date(event.at * 1000);
      const time = h("time", { class: "when", datetime: at.toISOString() }, shown.format(at));
      list.append(h("li", {}, h("span", {}, event.kind.replaceAll("-", " ")), time));
    }
    proof.replaceChildren(h("span", { class: "pill" }, `${count} events, all proven`));
  });
  return [proof, list, read];
}
