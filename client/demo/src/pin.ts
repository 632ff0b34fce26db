/** The PIN: at the service, on this device alone, and the way from the one to the other. */
import * as sdk from "@custodyd/sdk";
import { button, dialog, form, h, pinField, say } from "./dom.js";
import { model, synchronise } from "./model.js";
import { mended } from "./upkeep.js";

/** A new PIN, at the service and for unlocking offline. */
export function changePin(redraw: () => void): void {
  dialog("A new PIN", (close) => [
    form([pinField("New PIN", "pin", true)], "Change", async ({ pin = "" }) => {
      await sdk.setPin(model.custody, pin);
      if ((await sdk.offlineState(model.custody)).byPin)
        await sdk.keepOfflineByPin(model.custody, pin);
      await mended("pin");
      close();
      say("The PIN is changed.");
      redraw();
    }),
  ]);
}

/** Without a network: this device takes the new PIN at once, and the service once it is told. */
function changePinHere(redraw: () => void): void {
  dialog("A new PIN for this device", (close) => [
    h(
      "p",
      { class: "soft" },
      "It holds here at once. The service, and with it your other devices, learn of it when you type both PINs once online.",
    ),
    form(
      [pinField("Old PIN", "old"), pinField("New PIN", "pin", true)],
      "Change",
      async ({ old = "", pin = "" }) => {
        await sdk.changePinOffline(model.custody, old, pin);
        close();
        say("Changed on this device.");
        redraw();
      },
    ),
  ]);
}

/** Online again: both PINs once. */
export function settlePin(redraw: () => void): void {
  dialog("Tell the service your new PIN", (close) => [
    form(
      [pinField("Old PIN", "old"), pinField("New PIN", "pin", true)],
      "Tell it",
      async ({ old = "", pin = "" }) => {
        await sdk.settlePin(model.custody, old, pin);
        await synchronise();
        close();
        say("The new PIN holds everywhere.");
        redraw();
      },
    ),
  ]);
}

/** What unlocks this device without a network, and its PIN. */
export function offline(state: sdk.OfflineState, redraw: () => void): HTMLElement[] {
  const { custody } = model;
  const byPin = state.byPin
    ? button("Turn off", () => sdk.dropOffline(custody, "pin").then(redraw))
    : button("Turn on", () => {
        dialog("Unlock offline by PIN", (close) => [
          h(
            "p",
            { class: "soft" },
            "Whoever steals this device can then try PINs with machines of their own. A short PIN does not withstand that.",
          ),
          form([pinField("Your PIN", "pin")], "Turn on all the same", async ({ pin = "" }) => {
            await sdk.keepOfflineByPin(custody, pin);
            close();
            redraw();
          }),
        ]);
      });
  const passkey = state.byPasskey
    ? h("span", { class: "pill" }, "on")
    : h("span", { class: "pill off" }, "use a passkey once");
  const change = button("Change it here", () => {
    changePinHere(redraw);
  });
  return [
    h(
      "ul",
      { class: "list" },
      h("li", {}, h("span", {}, "Unlock by passkey"), passkey),
      h("li", {}, h("span", {}, "Unlock by PIN"), byPin),
      ...(state.byPin ? [h("li", {}, h("span", {}, "PIN of this device"), change)] : []),
    ),
  ];
}
