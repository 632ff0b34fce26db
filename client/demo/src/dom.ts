/** Elements in a line of code, dialogs, and forms that show their own errors. */
import { advice, CustodyError } from "@custodyd/sdk";
import { comeBack, whereabouts } from "./focus.js";

/** What an element may hold. */
export type Child = Node | string | false | undefined;

/** A sentence for an error. */
export function sentence(error: unknown): string {
  const own = error instanceof CustodyError ? OWN.get(error.code) : undefined;
  return own ?? advice(error);
}

/** Another tab has opened another notebook. */
export const isOther = (error: unknown): boolean =>
  error instanceof CustodyError && error.code === "other-account";

const OWN: ReadonlyMap<string, string> = new Map([
  [
    "other-account",
    "Another notebook was opened in this browser, in another tab. What you wrote in this one is kept. Reload to see that other one, or come back in to this one.",
  ],
  [
    "notebook-known",
    "This browser knows a notebook already, and is no part of it. Choose \u201cI have one already\u201d to come back in to it, or to start over there.",
  ],
  ["notebook-full", "The notebook is full. Delete or shorten a note."],
  [
    "notebook-shut",
    "Another device has renewed the secret, so nothing was replaced. Unlock again with a passkey or the PIN, online.",
  ],
]);

/** Attributes and listeners. */
export type Properties = Record<
  string,
  string | number | boolean | undefined | ((event: Event) => void)
>;

/** An element; properties are set, `class` and `aria-*` are attributes, `on` are listeners. */
export function h<K extends keyof HTMLElementTagNameMap>(
  name: K,
  properties: Properties = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === false) continue;
    if (typeof value === "function") {
      element.addEventListener(key, value);
    } else {
      element.setAttribute(key, value === true ? "" : String(value));
    }
  }
  element.append(
    ...children.filter((child): child is Node | string => child !== false && child !== undefined),
  );
  return element;
}

/** A page with nothing on it but what it is about, and where to go from there. */
export function middle(title: string, text: string, ...ways: Child[]): HTMLElement {
  return h(
    "main",
    { id: "main", class: "page middle" },
    h(
      "div",
      { class: "hero" },
      h("img", { src: "/icon.svg", alt: "" }),
      h("h1", {}, title),
      h("p", {}, text),
    ),
    h("div", { class: "stack narrow centred" }, ...ways),
  );
}

/** A button that can not be pressed twice while its work goes on. It keeps the focus, as a disabled one would not. */
export function button(
  text: string,
  work: () => unknown,
  properties: Properties = {},
): HTMLButtonElement {
  const { class: more = "", ...rest } = properties;
  const pressed = async (event: Event): Promise<void> => {
    event.preventDefault();
    if (element.ariaDisabled === "true") return;
    hush();
    element.ariaDisabled = "true";
    try {
      await work();
    } catch (error) {
      complain(sentence(error));
    } finally {
      element.ariaDisabled = null;
    }
  };
  const element = h("button", {
    type: "button",
    class: `button ${more as string}`,
    ...rest,
    click: (event: Event) => void pressed(event),
  });
  element.append(text);
  return element;
}

let fading: ReturnType<typeof setTimeout> | undefined;
/** What went wrong stays until something else is said, or the page is another one. */
let isLasting = false;

/** Where a person is: in the dialog that was opened last, as all else is inert meanwhile, or on the page. */
function layer(): HTMLElement {
  return [...document.querySelectorAll<HTMLElement>("dialog[open]")].at(-1) ?? document.body;
}

/** The page is another one. */
export function moveOn(): void {
  if (isLasting) hush();
}

/** Takes back what was said. */
function hush(): void {
  clearTimeout(fading);
  for (const said of document.querySelectorAll(".status")) said.textContent = "";
}

/** Says what went wrong where the person is, to screen readers too. */
export function complain(text: string): void {
  hush();
  isLasting = true;
  const status = layer().querySelector(":scope > .status");
  if (status) status.textContent = text;
}

/** Tells the person something that needs no answer. */
export function say(text: string): void {
  complain(text);
  isLasting = false;
  fading = setTimeout(hush, Math.max(5000, text.length * 90));
}

/** A part of a page. */
export function card(title: string, ...content: Child[]): HTMLElement {
  return h("section", { class: "card stack" }, h("h2", {}, title), ...content);
}

/** A form: fields, one main button, and its own line for errors. */
export function form(
  fields: Child[],
  action: string,
  submit: (values: Record<string, string>) => unknown,
): HTMLFormElement {
  const error = h("p", { class: "error", role: "alert" });
  const main = h("button", { class: "button primary wide", type: "submit" }, action);
  const sent = async (event: Event): Promise<void> => {
    event.preventDefault();
    if (main.ariaDisabled === "true") return;
    error.textContent = "";
    main.ariaDisabled = "true";
    try {
      const values = Object.fromEntries(
        [...new FormData(element)].map(([name, value]) => [
          name,
          typeof value === "string" ? value : "",
        ]),
      );
      await submit(values);
    } catch (cause) {
      error.textContent = sentence(cause);
    } finally {
      main.ariaDisabled = null;
    }
  };
  const element = h("form", { class: "stack", submit: (event: Event) => void sent(event) });
  element.append(...fields.filter((field): field is Node | string => Boolean(field)), error, main);
  return element;
}

/** A labelled field. */
export function field(label: string, properties: Properties): HTMLLabelElement {
  return h("label", {}, label, h("input", { required: true, autocomplete: "off", ...properties }));
}

/** The PIN, as phones like to ask for it. */
export function pinField(label: string, name: string, fresh = false): HTMLLabelElement {
  return field(label, {
    ...{ name, type: "password", inputmode: "numeric", minlength: 4 },
    autocomplete: fresh ? "new-password" : "current-password",
  });
}

let dialogs = 0;

/**
 * Opens a dialog; it is gone when it is closed, and the person is back where it was opened. Where closing `loses` something that
 * they have typed, they are asked first; what the dialog itself does closes it all the same.
 */
export function dialog(
  title: string,
  content: (close: () => void) => Child[],
  properties: Properties = {},
  loses: () => boolean = () => false,
): HTMLDialogElement {
  let isMeant = false;
  const close = (): void => {
    isMeant = true;
    element.close();
  };
  const leave = (): void => {
    if (!loses()) close();
    else askToDiscard(close);
  };
  dialogs += 1;
  const id = `dialog-${dialogs}`;
  const heading = h("h2", { id, class: "brand", tabindex: -1 }, title);
  const element = h("dialog", { "aria-labelledby": id, ...properties });
  const cross = button("\u00d7", leave, { class: "icon", "aria-label": "Close" });
  const status = h("p", { class: "status", role: "status" });
  const bar = h("div", { class: "row" }, heading, cross);
  element.append(h("div", { class: "stack" }, bar, ...content(close)), status);
  const opener = whereabouts();
  element.addEventListener("cancel", (event) => {
    if (event.target !== element || !event.cancelable || !loses()) return;
    event.preventDefault();
    leave();
  });
  element.addEventListener("close", () => {
    if (!isMeant && loses()) {
      // A browser lets no page hold a person up twice: it is there again, as it was left.
      element.showModal();
      leave();
      return;
    }
    const said = status.textContent;
    element.remove();
    // What was said last is for the person who is back on the page.
    if (said) say(said);
    comeBack(opener);
  });
  document.body.append(element);
  element.showModal();
  (element.querySelector<HTMLElement>("input, textarea") ?? heading).focus();
  return element;
}

function askToDiscard(close: () => void): void {
  askFirst("Discard what you typed?", "What was not saved is gone then.", (back) => {
    const discard = (): void => {
      back();
      close();
    };
    return button("Discard it", discard, { class: "danger wide" });
  });
}

/** Asks before something is gone. */
export function askFirst(
  title: string,
  text: string,
  confirm: (close: () => void) => HTMLElement,
): void {
  dialog(title, (close) => [h("p", {}, text), confirm(close)]);
}
