/** Codes of an authenticator app: adding one, and unlocking with one. */
import * as sdk from "@custodyd/sdk";
import { button, dialog, field, form, h, say } from "./dom.js";
import { keepDataKey, model, synchronise } from "./model.js";
import { tended } from "./upkeep.js";

const code = (): HTMLElement =>
  field("Code of the app", {
    ...{ name: "code", inputmode: "numeric", class: "code" },
    autocomplete: "one-time-code",
  });

/** Shows the picture to scan, and takes the first code. */
export async function addAuthenticator(done: () => void): Promise<void> {
  const { custody } = model;
  const { png, otpauth } = await sdk.enrolTotp(custody, "Notebook");
  const picture = png.replaceAll("-", "+").replaceAll("_", "/");
  const secret = new URL(otpauth).searchParams.get("secret") ?? "";
  dialog("Your authenticator app", (close) => [
    h("p", { class: "soft" }, "Scan this with the app, or type the key into it."),
    h("img", {
      class: "scan",
      src: `data:image/png;base64,${picture}`,
      alt: "QR code of the key below",
    }),
    h("p", { class: "codes" }, secret),
    form([code()], "Confirm", async ({ code: typed = "" }) => {
      await sdk.confirmTotp(custody, typed.trim());
      close();
      say("The authenticator app is added.");
      done();
    }),
  ]);
}

/** Unlocks with a code, where the network is there. */
export function askForCode(done: () => void): HTMLElement {
  return button(
    "Use an authenticator app",
    () => {
      dialog("Unlock with a code", (close) => [
        form([code()], "Unlock", async ({ code: typed = "" }) => {
          const { upkeep, undone } = await sdk.signInWithTotp(model.custody, typed.trim());
          model.undone = undone;
          const moved = await tended(upkeep);
          await keepDataKey();
          await synchronise();
          close();
          say(`Unlocked.${moved}`);
          done();
        }),
      ]);
    },
    { class: "wide" },
  );
}
