/** The dialog that unlocks: PIN or passkey, online, and offline where this device allows it. */
import * as sdk from "@custodyd/sdk";
import { button, dialog, form, h, pinField, say } from "./dom.js";
import { place } from "./focus.js";
import { keepDataKey, model, synchronise, unlocked } from "./model.js";
import { answers, isAway } from "./patience.js";
import { askForCode } from "./totp.js";
import { isOtherLog, otherLog } from "./undone.js";
import { tended } from "./upkeep.js";

/** Asks the daemon first, and this device's own slot where nobody answers, or can do nothing now: soon, where there is such a slot. */
async function either(
  way: "byPasskey" | "byPin",
  online: () => Promise<sdk.SignedIn>,
  offline: () => Promise<sdk.Unlocked>,
): Promise<"offline" | { readonly moved: string }> {
  const here = (await sdk.offlineState(model.custody))[way];
  try {
    if (here && !(await answers(model.custody.transport.url)))
      throw new sdk.Unreachable("nobody answered in time");
    const { prf, upkeep, undone } = await online();
    const { byPasskey } = await sdk.offlineState(model.custody);
    if (prf && !byPasskey) await sdk.keepOfflineByPasskey(model.custody, prf);
    model.undone = undone;
    return { moved: await tended(upkeep) };
  } catch (error) {
    // Of a service that says why, its word is worth more than that this device has no way of its own.
    if (!isAway(error) || (!here && error instanceof sdk.Refused)) throw error;
    await offline();
    return "offline";
  }
}

async function finished(how: Awaited<ReturnType<typeof either>>, wrongPins: number): Promise<void> {
  await keepDataKey();
  if (how !== "offline") await synchronise();
  const more = wrongPins > 0 ? ` ${wrongPins} wrong PINs were tried here meanwhile.` : "";
  say(
    how === "offline"
      ? `Unlocked on this device. Changes go out later.${more}`
      : `Unlocked.${how.moved}${more}`,
  );
}

/** Opens the dialog; `done` is called after an unlock. Where only the strongest ways would do, it asks for no other. */
export function askToUnlock(
  done: () => void,
  title = "Unlock to write",
  onlyStrong = false,
): HTMLDialogElement {
  const { custody } = model;
  return dialog(title, (close) => {
    const unlock = async (
      way: "byPasskey" | "byPin",
      online: () => Promise<sdk.SignedIn>,
      offline: () => Promise<sdk.Unlocked>,
    ): Promise<void> => {
      const { wrongPins } = await sdk.offlineState(custody);
      try {
        await finished(await either(way, online, offline), wrongPins);
      } catch (error) {
        if (!isOtherLog(error)) throw error;
        place(otherLog(done));
      }
      close();
      if (unlocked()) done();
    };
    const passkey = button(
      "Use a passkey",
      () =>
        unlock(
          "byPasskey",
          () => sdk.signInWithPasskey(custody),
          () => sdk.unlockOfflineByPasskey(custody),
        ),
      { class: onlyStrong ? "primary wide" : "wide" },
    );
    if (onlyStrong) {
      const paper = h("a", { href: "#/recover", click: close }, "Use a recovery code");
      return [passkey, h("p", { class: "soft" }, paper)];
    }
    const pin = form([pinField("PIN", "pin")], "Unlock", ({ pin = "" }) =>
      unlock(
        "byPin",
        () => sdk.signInWithPin(custody, pin),
        () => sdk.unlockOfflineByPin(custody, pin),
      ),
    );
    const forgotten = h("a", { href: "#/recover", click: close }, "I forgot the PIN");
    const code = askForCode(() => {
      close();
      done();
    });
    return [pin, passkey, code, h("p", { class: "soft" }, forgotten)];
  });
}

/** The same, above what is open: whether it was unlocked. */
export function unlockedAbove(title: string): Promise<boolean> {
  return new Promise((resolve) => {
    const asking = askToUnlock(() => {
      resolve(true);
    }, title);
    asking.addEventListener("close", () => {
      resolve(unlocked());
    });
  });
}
