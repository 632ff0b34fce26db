/** The account's own trail, each event proven to stand in the realm's log. */
import * as sdk from "@custodyd/sdk";
import { button, h } from "./dom.js";
import { eventWords } from "./events.js";
import { model } from "./model.js";

/** More would hide what else the settings have. */
const MOST = 12;

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
    let [count, first] = [0, 1];
    for await (const event of sdk.verifiedEvents(model.custody)) {
      count += 1;
      // The newest comes first, and the last one is where the trail begins.
      first = event.number;
      if (count > MOST) continue;
      const at = new Date(event.at * 1000);
      const time = h("time", { datetime: at.toISOString() }, shown.format(at));
      list.append(h("li", {}, h("span", {}, eventWords(event), h("br"), h("small", {}, time))));
    }
    proof.replaceChildren(
      h("span", { class: "pill" }, `${count} events, all proven`),
      first > 1
        ? ` The trail begins with number ${first}: what was before is deleted, says the service, and only it can say so.`
        : "",
      count > MOST ? ` The newest ${MOST} are shown; your data has all of them.` : "",
    );
  });
  return [proof, list, read];
}
