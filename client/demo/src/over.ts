/** Starting over on this device. */
import { forgetDevice } from "@custodyd/sdk";
import { askFirst, button, h } from "./dom.js";
import { model } from "./model.js";

/** For whoever has no way back, as where the page was closed before the first PIN was set. */
export function startOver(): HTMLElement {
  const text =
    "Notes, keys and ways in that only this device has are gone for good. Other devices keep theirs.";
  const ask = (): void => {
    askFirst("Start over on this device?", text, (close) =>
      button(
        "Forget this notebook",
        async () => {
          await forgetDevice(model.custody);
          close();
          location.hash = "#/";
          location.reload();
        },
        { class: "danger wide" },
      ),
    );
  };
  return h(
    "section",
    { class: "card stack" },
    h("h2", {}, "None of these"),
    button("Start over", ask, { class: "wide" }),
  );
}
