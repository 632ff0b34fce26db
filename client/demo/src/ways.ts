/** The ways to unlock, as the settings show them. */
import * as sdk from "@custodyd/sdk";
import { act, askToRemove, date } from "./act.js";
import { button, card, h } from "./dom.js";
import { model, remindOfCodes } from "./model.js";
import { changePin } from "./pin.js";
import { numberOfCodes } from "./recover.js";
import { addAuthenticator } from "./totp.js";
import { hintFor, mended } from "./upkeep.js";
import { showCodes } from "./welcome.js";

/** What a way is called, and what there is to know of it. */
function named(name: string, ...hints: (string | undefined)[]): HTMLElement {
  const lines = hints.flatMap((hint) =>
    hint === undefined ? [] : [h("br"), h("small", {}, hint)],
  );
  return h("span", {}, name, ...lines);
}

/** The card. */
export function ways(view: sdk.Schemas["AccountView"], redraw: () => void): HTMLElement {
  const { custody } = model;
  const passkeys = view.passkeys.map((one) =>
    h(
      "li",
      {},
      named(`Passkey ${one.name ?? ""}`, `last used ${date(one.last_used)}`, hintFor("passkey")),
      askToRemove(
        `Remove passkey ${one.name ?? ""}`,
        "It opens the notebook no more, on no device.",
        async () => {
          await sdk.removePasskey(custody, one.device_id);
          await mended("passkey");
          redraw();
        },
      ),
    ),
  );
  const add = act("Add a passkey", async () => {
    const { prf } = await sdk.addPasskey(custody, { user: "Notebook" });
    if (prf) await sdk.keepOfflineByPasskey(custody, prf);
    redraw();
  });
  const codes = act("New recovery codes", async () => {
    const made = await sdk.setRecoveryCodes(custody);
    await remindOfCodes(true);
    showCodes(made, redraw);
    await mended("recovery-code");
  });
  const left = view.recovery_codes?.left ?? 0;
  const totp = view.totp
    ? askToRemove(
        "Remove the authenticator app",
        "Its codes open the notebook no more, and mend no forgotten PIN.",
        () => sdk.removeTotp(custody).then(redraw),
      )
    : act("Add", () => addAuthenticator(redraw), { "aria-label": "Add an authenticator app" });
  return card(
    "Ways to unlock",
    h(
      "ul",
      { class: "list" },
      h(
        "li",
        {},
        named(view.pin ? "PIN" : "No PIN", view.pin ? hintFor("pin") : undefined),
        button("Change PIN", () => {
          changePin(redraw);
        }),
      ),
      ...passkeys,
      h(
        "li",
        {},
        named(
          numberOfCodes(left),
          left > 0 ? hintFor("recovery-code") : "Without them a lost device can lose the notebook.",
        ),
        codes,
      ),
      h(
        "li",
        {},
        view.totp
          ? named("Authenticator app", hintFor("totp"))
          : h("span", {}, "No authenticator app"),
        totp,
      ),
    ),
    add,
  );
}
