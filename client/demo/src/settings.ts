/** Everything about the account: ways in, devices, offline use, what happened, and the way out. */
import * as sdk from "@custodyd/sdk";
import { act, askToRemove, date } from "./act.js";
import { button, card, type Child, dialog, field, form, h, isOther, say } from "./dom.js";
import { about, byFactor } from "./events.js";
import { askToRenew } from "./lost.js";
import { model, unlocked } from "./model.js";
import { top } from "./notebook.js";
import { olderVersions } from "./older.js";
import { offline } from "./pin.js";
import { isAway } from "./patience.js";
import { trail } from "./trail.js";
import { askToUnlock } from "./unlock.js";
import { ways } from "./ways.js";

type View = sdk.Schemas["AccountView"];

function contacts(view: View, redraw: () => void): HTMLElement {
  const { custody } = model;
  const known = view.contacts.map((one) =>
    h(
      "li",
      {},
      h(
        "span",
        {},
        one.address ?? "An address, shown once you unlock",
        h("br"),
        h("small", {}, one.confirmed ? "confirmed" : "not confirmed"),
      ),
      askToRemove(
        `Remove ${one.address ?? "the address"}`,
        "No code goes there any more when you forget the PIN.",
        () => sdk.removeContact(custody, one.id).then(redraw),
      ),
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
          button(
            "Lost",
            () => {
              askToRenew(act, redraw, { id: one.device_id, name: one.name ?? "The device" });
            },
            { "aria-label": `Lost: ${one.name ?? "device"}` },
          ),
          askToRemove(
            `Remove ${one.name ?? "the device"}`,
            "It is a stranger to the notebook from then on. If it was lost, choose that instead.",
            () => sdk.removeDevice(model.custody, one.device_id).then(redraw),
          ),
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
    try {
      await sdk.signOut(model.custody, "everywhere");
      say("Signed out on all devices.");
    } finally {
      // It is locked, whatever the service says.
      redraw();
    }
  });
  return card("Yours to take and to erase", h("div", { class: "row" }, take, everywhere, erase));
}

/** What a weak factor has asked for, and does not get before its owner could have noticed. */
function waiting(view: View, redraw: () => void): Child {
  if (view.waiting.length === 0) return false;
  const items = view.waiting.map(({ change, factor, due }) =>
    h("li", {}, `For ${about(change)}, ${byFactor(factor)}: from ${date(due)} on`),
  );
  const cancel = act(
    "Cancel it",
    async () => {
      await sdk.cancelRecovery(model.custody);
      say("Cancelled.");
      redraw();
    },
    { class: "danger" },
  );
  const why =
    "Somebody with a weak factor has asked to change this. If that was not you, cancel it.";
  return card("A change that waits", h("p", {}, why), h("ul", { class: "list" }, ...items), cancel);
}

function page(redraw: () => void, ...content: Child[]): HTMLElement {
  return h(
    "div",
    { class: "page" },
    top(redraw),
    h("main", { id: "main", class: "stack" }, h("h1", {}, "Settings"), ...content),
  );
}

/** The page while the service is asked. */
export function reading(redraw: () => void): HTMLElement {
  return page(redraw, h("p", { class: "empty" }, "Asking the service\u2026"));
}

/** The page. */
export async function settings(redraw: () => void): Promise<HTMLElement> {
  const [first, second]: [Child[], Child[]] = [[], []];
  try {
    if (!model.custody.transport.session) await sdk.openReadOnly(model.custody);
    const view = await sdk.viewAccount(model.custody);
    const state = await sdk.offlineState(model.custody);
    first.push(waiting(view, redraw), await olderVersions(redraw));
    first.push(ways(view, redraw), contacts(view, redraw));
    second.push(devices(view, redraw), card("Without a network", ...offline(state, redraw)));
    second.push(card("What happened", ...trail()), leaving(redraw));
  } catch (error) {
    // Of whatever else there is to see here, nothing is of the notebook that is open.
    if (isOther(error)) throw error;
    first.push(card("Not now", h("p", {}, sdk.advice(error))));
    const state = await sdk.offlineState(model.custody);
    if (isAway(error)) second.push(card("Without a network", ...offline(state, redraw)));
  }
  const columns = [first, second].map((cards) => h("div", { class: "column" }, ...cards));
  const hint = h(
    "div",
    { class: "banner" },
    "To change something here, unlock first.",
    button("Unlock", () => {
      askToUnlock(redraw);
    }),
  );
  return page(redraw, !unlocked() && hint, h("div", { class: "settings" }, ...columns));
}
