/** The ways back to a notebook: a passkey, a code by mail, a code on paper; and to none, where nothing else is left. */
import * as sdk from "@custodyd/sdk";
import { button, field, form, h, pinField, say } from "./dom.js";
import { keepDataKey, model, recallNotes, remindOfCodes } from "./model.js";
import { startOver } from "./over.js";
import { recall, tended } from "./upkeep.js";
import { deviceName, showCodes } from "./welcome.js";

const UNSEEN =
  "This code was used to make these, and you have not seen them yet. Should none of them open the notebook, the others on your paper still do.";

async function arrived(redraw: () => void, by: sdk.SignedIn): Promise<void> {
  model.undone = by.undone;
  // It may be another notebook than this browser had before, with other things to say.
  await recall();
  await recallNotes();
  const moved = await tended(by.upkeep);
  await keepDataKey();
  const left = by.factor === "recovery-code" ? await codesLeft() : "";
  location.hash = "#/";
  say(`Welcome back.${moved}${left}`);
  redraw();
}

/** A code was used up. Whoever has none left is told until there are new ones. */
async function codesLeft(): Promise<string> {
  try {
    const { recovery_codes: codes } = await sdk.viewAccount(model.custody);
    const left = codes?.left ?? 0;
    if (left > 0) return ` ${numberOfCodes(left)} on your paper.`;
    await remindOfCodes(true);
    return " That was your last recovery code.";
  } catch (error) {
    // The settings say it, too.
    if (!(error instanceof sdk.CustodyError)) throw error;
    return "";
  }
}

/** How many are left. */
export const numberOfCodes = (left: number): string =>
  left === 0
    ? "No recovery codes left"
    : left === 1
      ? "One recovery code left"
      : `${left} recovery codes left`;

function byCode(redraw: () => void): HTMLElement {
  const { custody } = model;
  const asking = form(
    [
      field("E-mail address of your notebook", {
        name: "alias",
        type: "email",
        autocomplete: "email",
      }),
    ],
    "Send me a code",
    async ({ alias = "" }) => {
      const who = { alias };
      await sdk.requestCode(custody, who);
      say("If there is such a notebook, a code is on its way.");
      asking.replaceWith(typed(who, redraw));
    },
  );
  return asking;
}

/** The code, and then a new PIN: the old one is forgotten. */
function typed(who: sdk.Who, redraw: () => void): HTMLElement {
  const { custody } = model;
  let byCode: sdk.SignedIn | undefined;
  return form(
    [
      field("The code that came", { name: "code", class: "code" }),
      pinField("Choose a new PIN", "pin", true),
    ],
    "Open my notebook",
    async ({ code = "", pin = "" }) => {
      // A code opens one session. That one goes on where the PIN was refused, and no other takes its place: a locked
      // notebook has one that may read and nothing else.
      const { session } = custody.transport;
      const goesOn = byCode && session?.factor === byCode.factor && session.scope === byCode.scope;
      if (!goesOn || !byCode) byCode = await sdk.signInWithCode(custody, who, code);
      await sdk.setPin(custody, pin);
      const options = { bindDevice: deviceName() };
      // A device that is bound has a full session by the code alone, which may not have the key back: the new PIN may.
      const by =
        byCode.scope === "pin-only"
          ? await sdk.continueWithPin(custody, pin, options)
          : await sdk.signInWithPin(custody, pin);
      await arrived(redraw, by);
    },
  );
}

/** The page of ways back. */
export function recover(redraw: () => void): HTMLElement {
  const { custody } = model;
  const bindDevice = deviceName();
  const passkey = button(
    "Use a passkey",
    async () => {
      await arrived(redraw, await sdk.signInWithPasskey(custody, { bindDevice, anyAccount: true }));
    },
    { class: "primary wide" },
  );
  const paper = form(
    [
      // What it was used up for waits here, and it is the one way to that where codes are all that opens the notebook.
      model.unseen &&
        h(
          "p",
          { class: "soft" },
          "Codes were made on this device that you may not have seen. If nothing else opens the notebook, type the code that you used last: it shows them.",
        ),
      h("p", { class: "soft" }, "The account stands on your paper, beside the codes."),
      field("Account", { name: "account", value: custody.account?.account, class: "code" }),
      field("A recovery code", { name: "code", class: "code" }),
    ],
    "Use the code",
    async ({ account = "", code = "" }) => {
      // It was used up for others, which nobody has seen: a try at the service would be spent for nothing.
      const unseen = await sdk.unseenCodes(custody, code);
      if (unseen) {
        showCodes(unseen, redraw, UNSEEN);
        return;
      }
      const who = { account: account.trim(), bindDevice };
      await arrived(redraw, await sdk.signInWithRecoveryCode(custody, code, who));
    },
  );
  const card = (title: string, ...content: HTMLElement[]) =>
    h("section", { class: "card stack" }, h("h2", {}, title), ...content);
  return h(
    "div",
    { class: "page narrow" },
    h(
      "header",
      { class: "top" },
      h("a", { class: "brand", href: "#/" }, h("img", { src: "/icon.svg", alt: "" }), "Notebook"),
    ),
    h(
      "main",
      { id: "main", class: "loose" },
      h("h1", {}, "Back to your notebook"),
      card("With a passkey", passkey),
      card(
        "With a code by e-mail",
        h("p", { class: "soft" }, "Also when you forgot the PIN."),
        byCode(redraw),
      ),
      card("With a code on paper", paper),
      custody.account && startOver(),
    ),
  );
}
