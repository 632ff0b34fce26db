/** What should have followed a sign-in and did not, and a log that is another one than before: said, and what can be done. */
import * as sdk from "@custodyd/sdk";
import { askFirst, button, h, middle, say, sentence } from "./dom.js";
import { model } from "./model.js";

const WORDS: Readonly<Record<sdk.Undone["what"], string>> = {
  log: "Whether the service's log goes on as this device has seen it was not checked.",
  offline:
    "What you used does not unlock this device without a network again yet. Use it once more.",
  report:
    "The wrong PINs that were typed on this device without a network were not reported yet. The next sign-in does it.",
};

/** A banner for each. */
export function undoneBanners(redraw: () => void): HTMLElement[] {
  return model.undone.map(({ what, error }) => {
    const check =
      what === "log" &&
      button("Check it now", async () => {
        await sdk.checkLog(model.custody);
        model.undone = model.undone.filter((one) => one.what !== "log");
        say("The log goes on from what this device has seen.");
        redraw();
      });
    return h("div", { class: "banner" }, `${WORDS[what]} ${sentence(error)}`, check);
  });
}

/** Whether the service shows a log that another one than itself has begun, as after a restore. */
export function isOtherLog(error: unknown): boolean {
  return error instanceof sdk.Untrusted && error.doubt === "other-log";
}

/** The page for it. Only a person can know whether the operator has said so. */
export function otherLog(redraw: () => void): HTMLElement {
  const accept = button(
    "The operator has announced this",
    () => {
      const text =
        "Go on only if the operator has told you of a restore by another way than this app. This device forgets what it has seen of the log, and could not tell any more whether older data is shown.";
      askFirst("Go on with the restored service?", text, (close) =>
        button(
          "Go on",
          async () => {
            await sdk.acceptNewLog(model.custody);
            close();
            redraw();
          },
          { class: "danger wide" },
        ),
      );
    },
    { class: "wide" },
  );
  const why =
    "The service shows another log than this device has seen before, as after a restore from a backup. Ask its operator before you go on.";
  return middle("Notebook", why, accept);
}
