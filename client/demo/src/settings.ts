/** Everything about the account: ways in, devices, offline use, what happened, and the way out. */
import * as sdk from "@custodyd/sdk";
import { button, type Child, dialog, field, form, h, type Properties, say } from "./dom.js";
import { askToRenew } from "./lost.js";
import { model, unlocked } from "./model.js";
import { top } from "./notebook.js";
import { changePin, offline } from "./pin.js";
import { addAuthenticator } from "./totp.js";
import { trail } from "./trail.js";
import { askToUnlock } from "./unlock.js";
import { hintFor, mended } from "./upkeep.js";
import { showCodes } from "./welcome.js";

type View = sdk.Schemas["AccountView"];

function card(title: string, ...content: Child[]): HTMLElement {
  return h("section", { class: "card stack" }, h("h2", {}, title), ...content);
}

/** A button whose work may need a stronger or fresher sign-in: then that is asked for. */
function act(text: string, work: () => unknown, properties: Properties = {}): HTMLElement {
  const tried = async (): Promise<void> => {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof sdk.StepUpRequired)) throw error;
      const again = (): void => {
        say("Thank you. Try it again now.");
      };
      askToUnlock(again, "Confirm that it is you");
      say(sdk.advice(error));
    }
  };
  return button(text, tried, properties);
}

function date(seconds: number): string {
  return new Intl.DateTimeFormat(undefined, { dateStyle: "medium" }).format(
    new Date(seconds * 1000),
  );
}

/** What a way is called, and what there is to know of it. */
function named(name: string, ...hints: (string | undefined)[]): HTMLElement {
  const lines = hints.flatMap((hint) =>
    hint === undefined ? [] : [h("br"), h("small", {}, hint)],
  );
  return h("span", {}, name, ...lines);
}

function ways(view: View, redraw: () => void): HTMLElement {
  const { custody } = model;
  const passkeys = view.passkeys.map((one) =>
    h(
      "li",
      {},
      named(`Passkey ${one.name ?? ""}`, `last used ${date(one.last_used)}`, hintFor("passkey")),
      act(
        "Remove",
        async () => {
          await sdk.removePasskey(custody, one.device_id);
          await mended("passkey");
          redraw();
        },
        { class: "danger" },
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
    showCodes(made, redraw);
    await mended("recovery-code");
  });
  const left = view.recovery_codes?.left ?? 0;
  const totp = view.totp
    ? act("Remove", () => sdk.removeTotp(custody).then(redraw), { class: "danger" })
    : act("Add", () => addAuthenticator(redraw));
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
        named(`${left} recovery codes left`, left > 0 ? hintFor("recovery-code") : undefined),
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

function contacts(view: View, redraw: () => void): HTMLElement {
  const { custody } = model;
  const known = view.contacts.map((one) =>
    h(
      "li",
      {},
      h(
        "span",
        {},
        one.address ?? "hidden",
        h("br"),
        h("small", {}, one.confirmed ? "confirmed" : "not confirmed"),
      ),
      act("Remove", () => sdk.removeContact(custody, one.id).then(redraw), { class: "danger" }),
    ),
  );
  const claiming = form(
    [field("E-mail address", { name: "email", type: "email", autocomplete: "email" })],
    "Send a code there",
    async ({ email = "" }) => {
      const claim = await sdk.claimContact(custody, { email });
      const confirming = form(
        [field("The code that came", { name: "code", class: "code" })],
        "Confirm",
        async ({ code = "" }) => {
          await sdk.confirmContact(custody, claim, code);
          say("Confirmed. A forgotten PIN is no drama any more.");
          redraw();
        },
      );
      claiming.replaceWith(confirming);
    },
  );
  return card(
    "E-mail, for a forgotten PIN",
    known.length > 0 && h("ul", { class: "list" }, ...known),
    claiming,
  );
}

function devices(view: View, redraw: () => void): HTMLElement {
  const items = view.devices.map((one) =>
    h(
      "li",
      {},
      h(
        "span",
        {},
        one.name ?? "Device",
        h("br"),
        h("small", {}, one.current ? "this one" : `since ${date(one.added)}`),
      ),
      !one.current &&
        h(
          "span",
          { class: "row" },
          button("Lost", () => {
            askToRenew(act, redraw, { id: one.device_id, name: one.name ?? "The device" });
          }),
          act("Remove", () => sdk.removeDevice(model.custody, one.device_id).then(redraw), {
            class: "danger",
          }),
        ),
    ),
  );
  const renewal = button("Renew the secret", () => {
    askToRenew(act, redraw);
  });
  const account = h("small", {}, "Account ", h("code", {}, view.account));
  return card("Devices", h("ul", { class: "list" }, ...items), renewal, account);
}

function leaving(redraw: () => void): HTMLElement {
  const take = button("Download my data", async () => {
    const data = JSON.stringify(await sdk.exportAccount(model.custody), null, 2);
    const url = URL.createObjectURL(new Blob([data], { type: "application/json" }));
    h("a", { href: url, download: "notebook.json" }).click();
    URL.revokeObjectURL(url);
  });
  const erase = button(
    "Erase everything",
    () => {
      dialog("Erase everything?", (close) => [
        h("p", {}, "Notes, keys and account are gone for good, on all devices."),
        act(
          "Erase",
          async () => {
            await sdk.eraseAccount(model.custody);
            close();
            location.hash = "#/";
            location.reload();
          },
          { class: "danger wide" },
        ),
      ]);
    },
    { class: "danger" },
  );
  const everywhere = button("Sign out everywhere", async () => {
    await sdk.signOut(model.custody, "everywhere");
    redraw();
  });
  return card("Yours to take and to erase", h("div", { class: "row" }, take, everywhere, erase));
}

/** The page. */
export async function settings(redraw: () => void): Promise<HTMLElement> {
  const content: Child[] = [];
  try {
    if (!model.custody.transport.session) await sdk.openReadOnly(model.custody);
    const view = await sdk.viewAccount(model.custody);
    const state = await sdk.offlineState(model.custody);
    content.push(ways(view, redraw), contacts(view, redraw), devices(view, redraw));
    content.push(card("Without a network", ...offline(state, redraw)));
    content.push(card("What happened", ...trail()), leaving(redraw));
  } catch (error) {
    content.push(card("Not now", h("p", {}, sdk.advice(error))));
    const state = await sdk.offlineState(model.custody);
    if (error instanceof sdk.Unreachable)
      content.push(card("Without a network", ...offline(state, redraw)));
  }
  const hint = h(
    "div",
    { class: "banner" },
    "To change something here, unlock first.",
    button("Unlock", () => {
      askToUnlock(redraw);
    }),
  );
  return h(
    "div",
    { class: "page" },
    top(redraw),
    h(
      "main",
      { id: "main", class: "stack" },
      h("h1", {}, "Settings"),
      !unlocked() && hint,
      h("div", { class: "settings" }, ...content),
    ),
  );
}
