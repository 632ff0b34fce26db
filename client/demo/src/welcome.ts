/** The first page: a new notebook. `recover.ts` has the way back to one. */
import * as sdk from "@custodyd/sdk";
import { button, dialog, form, h, middle, pinField, say } from "./dom.js";
import { keepDataKey, model, remindOfCodes } from "./model.js";

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

/** Shows codes, until their owner says that they are written down. Whoever loses them makes new ones. */
export function showCodes(codes: readonly sdk.RecoveryCode[], done: () => void, more = ""): void {
  const account = model.custody.account?.account ?? "";
  const text = [`Account ${account}`, ...codes.map((code) => code.text)].join("\n");
  const shown = dialog("Your recovery codes", (close) => [
    h(
      "p",
      { class: "soft" },
      "Each opens your notebook once, from any device. Keep them on paper, with the account: a new device asks for it.",
    ),
    h("p", {}, h("small", {}, "Account"), h("br"), h("code", { class: "account" }, account)),
    more !== "" && h("p", {}, more),
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
      button(
        "I have written them down",
        async () => {
          await remindOfCodes(false);
          await sdk.codesSeen(model.custody);
          await sdk.rotationSeen(model.custody);
          [model.unseen, model.renewing] = [false, false];
          close();
        },
        { class: "primary" },
      ),
    ),
  ]);
  shown.addEventListener("close", done);
}

/** What was made, and why there is no passkey where one was wanted. */
interface Created {
  readonly codes: readonly sdk.RecoveryCode[];
  readonly without: string;
}

/**
 * Refuses where this browser has a notebook that it is no part of: one that another tab has brought back after "Start over", or
 * that a code by mail has found and nobody has opened since. There is no making another beside it, and a PIN that is set now
 * would be that one's.
 */
async function demandNone(): Promise<void> {
  const { custody } = model;
  if (!custody.account || sdk.isBound(custody) || (await sdk.enrolmentPending(custody))) return;
  throw new sdk.CustodyError("notebook-known", "this browser has a notebook that it is no part of");
}

async function create(pin: string, withPasskey: boolean): Promise<Created> {
  const { custody } = model;
  await demandNone();
  // Whatever is broken off from here on, the notebook says so until its codes were seen.
  await remindOfCodes(true);
  if (!custody.account || (await sdk.enrolmentPending(custody))) {
    await sdk.enrol(custody, { deviceName: deviceName() });
    await remindOfCodes(true);
  }
  await sdk.setPin(custody, pin);
  await keepDataKey();
  const without = withPasskey ? await passkeyAdded() : "";
  return { codes: await sdk.setRecoveryCodes(custody), without };
}

/** A passkey that is not to be had leaves a notebook all the same. */
async function passkeyAdded(): Promise<string> {
  const { custody } = model;
  try {
    const { prf } = await sdk.addPasskey(custody, { user: "Notebook", passkey: deviceName() });
    if (prf) await sdk.keepOfflineByPasskey(custody, prf);
    return "";
  } catch (error) {
    if (!(error instanceof sdk.PasskeyFailed)) throw error;
    return `No passkey was added: the settings can. ${sdk.advice(error)}`;
  }
}

function askToCreate(redraw: () => void): void {
  const asking = dialog("A new notebook", (close) => [
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
        const { codes, without } = await create(pin, passkey !== undefined);
        close();
        // In the dialog: a message would lie over the codes.
        showCodes(codes, redraw, without);
      },
    ),
  ]);
  // It may be there, though not all of what was asked for.
  asking.addEventListener("close", redraw);
}

/** The page. */
export function welcome(redraw: () => void): HTMLElement {
  return middle(
    "Notes that open at a glance and change only with your key",
    "The key is made on this device. Lose the device or forget the PIN, and you get it back.",
    button(
      "Create a notebook",
      async () => {
        await demandNone();
        askToCreate(redraw);
      },
      { class: "primary wide" },
    ),
    h("a", { class: "button wide", href: "#/recover" }, "I have one already"),
  );
}
