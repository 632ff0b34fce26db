/** Buttons of the settings: what needs a stronger sign-in asks for one, and what is gone for good asks first. */
import * as sdk from "@custodyd/sdk";
import { askFirst, button, complain, type Properties, say } from "./dom.js";
import { askToUnlock } from "./unlock.js";

/** Where one of these is needed, a PIN would be typed in vain. */
const STRONG: readonly string[] = ["passkey", "recovery-code"];

/** A button whose work may need a stronger or fresher sign-in: then that is asked for. */
export function act(text: string, work: () => unknown, properties: Properties = {}): HTMLElement {
  const tried = async (): Promise<void> => {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof sdk.StepUpRequired)) throw error;
      const again = (): void => {
        say("Thank you. Try it again now.");
      };
      askToUnlock(again, "Confirm that it is you", STRONG.includes(error.needAtLeast ?? ""));
      complain(sdk.advice(error));
    }
  };
  return button(text, tried, properties);
}

/** A button "Remove" that says to those who only hear it what it removes, and asks before it does. */
export function askToRemove(what: string, text: string, work: () => unknown): HTMLElement {
  const ask = (): void => {
    askFirst(`${what}?`, text, (close) => {
      const removed = async (): Promise<void> => {
        await work();
        close();
      };
      return act("Remove it", removed, { class: "danger wide" });
    });
  };
  return button("Remove", ask, { class: "danger", "aria-label": what });
}

/** A day. */
export function date(seconds: number): string {
  return new Intl.DateTimeFormat(undefined, { dateStyle: "medium" }).format(
    new Date(seconds * 1000),
  );
}
