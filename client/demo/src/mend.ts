/**
 * A storage that is damaged, after a browser that crashed or a disk that failed: what can be had again is let go at once, and what
 * can not a person lets go, once they know what it is.
 */
import {
  acceptNewLog,
  type Custody,
  openCustody,
  type Repaired,
  repairDevice,
} from "@custodyd/sdk";
import { configured } from "./configuration.js";
import { button, dialog, h } from "./dom.js";

const WORDS: Readonly<Record<string, string>> = {
  queue: "Changes of this device that were not sent. They can not be read any more.",
  lost: "An earlier version of your notes that another one has replaced. It can not be read any more.",
  log: "What this device has seen of the service\u2019s log. Without it, it could not tell whether older data is shown, and begins anew.",
};

/** What was written here and not sent stays, where it is whole, and goes out once somebody has come back in. */
export function mend(): HTMLElement {
  const work = async (): Promise<void> => {
    const configuration = await configured();
    const repaired = await repairDevice(configuration);
    // What was damaged of it is made anew by now, so that it opens.
    const custody = await openCustody(configuration);
    const account = custody.account?.account;
    const left = repaired.left.filter((key) => {
      const [kind = "", whose] = key.split("/");
      return Object.hasOwn(WORDS, kind) && (whose === undefined || whose === account);
    });
    if (left.length === 0) goOn(repaired);
    else askToDrop(custody, repaired, left);
  };
  return button("Repair this device", work, { class: "primary wide" });
}

/** With another device key, or without an account, the owner has to come back in. */
function goOn({ replaced }: Repaired): void {
  location.hash = replaced.some((key) => /^(device-key|account)$/.test(key)) ? "#/recover" : "#/";
  location.reload();
}

function askToDrop(custody: Custody, repaired: Repaired, left: readonly string[]): void {
  const kinds = [...new Set(left.map((key) => key.split("/", 1)[0] ?? ""))];
  const drop = async (): Promise<void> => {
    // Keeps what hangs on the log in step with that it is gone.
    if (left.includes("log")) await acceptNewLog(custody);
    await custody.storage.update([], (update) => {
      for (const key of left) update.delete(key);
    });
    goOn(repaired);
  };
  dialog("This can not be repaired", (close) => [
    h("ul", { class: "list" }, ...kinds.map((kind) => h("li", {}, h("span", {}, WORDS[kind])))),
    h("p", { class: "soft" }, "All else is mended. The notebook opens once this is let go."),
    button("Let it go", drop, { class: "danger wide" }),
    button("Not now", close, { class: "wide" }),
  ]);
}
