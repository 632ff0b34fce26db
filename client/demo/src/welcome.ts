/** The first page: a new notebook, or the way back to one. */
import * as sdk from "@custodyd/sdk";
import { button, dialog, field, form, h, middle, pinField, say } from "./dom.js";
import { keepDataKey, model } from "./model.js";
import { tended } from "./upkeep.js";

/** A name for this device that its owner will recognise. */
export function deviceName(): string {
  const agent = navigator.userAgent;
  const kinds = {
    iPhone: "iPhone",
    iPad: "iPad",
    Android: "Android phone",
    Mac: "Mac",
    Windows: "Windows PC",
  };
  const found = Object.entries(kinds).find(([word]) => agent.includes(word));
  return found?.[1] ?? "Computer";
}

/** Shows codes once. Whoever loses them makes new ones. */
export function showCodes(codes: readonly sdk.RecoveryCode[], done: () => void): void {
  const text = codes.map((code) => code.text).join("\n");
  const shown = dialog("Your recovery codes", (close) => [
    h(
      "p",
      { class: "soft" },
      "Each opens your notebook once, from any device. Keep them on paper.",
    ),
    h(
      "ol",
      { class: "codes", tabindex: 0, "aria-label": "Recovery codes" },
      ...codes.map((code) => h("li", {}, code.text)),
    ),
    h(
      "div",
      { class: "row fill" },
      button("Copy", async () => {
        await navigator.clipboard.writeText(text);
        say("Copied.");
      }),
      button("I have written them down", close, { class: "primary" }),
    ),
  ]);
  shown.addEventListener("close", done);
}

async function create(pin: string, withPasskey: boolean): Promise<readonly sdk.RecoveryCode[]> {
  const { custody } = model;
  if (!custody.account || (await sdk.enrolmentPending(custody))) {
    await sdk.enrol(custody, { deviceName: deviceName() });
  }
  await sdk.setPin(custody, pin);
  await keepDataKey();
  if (withPasskey) {
    const { prf } = await sdk.addPasskey(custody, { user: "Notebook", passkey: deviceName() });
    if (prf) await sdk.keepOfflineByPasskey(custody, prf);
  }
  return sdk.setRecoveryCodes(custody);
}

function askToCreate(redraw: () => void): void {
  dialog("A new notebook", (close) => [
    h(
      "p",
      { class: "soft" },
      "A PIN opens it on this device. The service counts wrong ones, so it may be short.",
    ),
    form(
      [
        pinField("Choose a PIN of six digits or more", "pin", true),
        h(
          "label",
          { class: "check" },
          h("input", { type: "checkbox", name: "passkey", checked: true }),
          "Add a passkey too: it unlocks offline, and on your other devices",
        ),
      ],
      "Create",
      async ({ pin = "", passkey }) => {
        const codes = await create(pin, passkey !== undefined);
        close();
        showCodes(codes, redraw);
      },
    ),
  ]);
}

/** The page. */
export function welcome(redraw: () => void): HTMLElement {
  return middle(
    "Notes that open at a glance and change only with your key",
    "The key is made on this device. Lose the device or forget the PIN, and you get it back.",
    button(
      "Create a notebook",
      () => {
        askToCreate(redraw);
      },
      { class: "primary wide" },
    ),
    h("a", { class: "button wide", href: "#/recover" }, "I have one already"),
  );
}

async function arrived(redraw: () => void, by: sdk.SignedIn): Promise<void> {
  const moved = await tended(by.upkeep);
  await keepDataKey();
  location.hash = "#/";
  say(`Welcome back.${moved}`);
  redraw();
}

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
  return form(
    [
      field("The code that came", { name: "code", class: "code" }),
      pinField("Choose a new PIN", "pin", true),
    ],
    "Open my notebook",
    async ({ code = "", pin = "" }) => {
      const scope = custody.transport.session?.scope;
      const limited = scope ?? (await sdk.signInWithCode(custody, who, code)).scope;
      await sdk.setPin(custody, pin);
      const options = { bindDevice: deviceName() };
      // A device that is bound has a full session by the code alone, which may not have the key back: the new PIN may.
      const by =
        limited === "pin-only"
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
      await arrived(redraw, await sdk.signInWithPasskey(custody, { bindDevice }));
    },
    { class: "primary wide" },
  );
  const paper = form(
    [
      field("Account", { name: "account", value: custody.account?.account, class: "code" }),
      field("A recovery code", { name: "code", class: "code" }),
    ],
    "Use the code",
    async ({ account = "", code = "" }) => {
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
    ),
  );
}
