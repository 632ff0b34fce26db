/** Elements in a line of code, dialogs, and forms that show their own errors. */
import { advice, CustodyError } from "@custodyd/sdk";

/** What an element may hold. */
export type Child = Node | string | false | undefined;

/** A sentence for an error. */
export function sentence(error: unknown): string {
  const full = error instanceof CustodyError && error.code === "notebook-full";
  return full ? "The notebook is full. Delete or shorten a note." : advice(error);
}

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

/** A button that can not be pressed twice while its work goes on. */
export function button(
  text: string,
  work: () => unknown,
  properties: Properties = {},
): HTMLButtonElement {
  const { class: more = "", ...rest } = properties;
  const pressed = async (event: Event): Promise<void> => {
    event.preventDefault();
    element.disabled = true;
    try {
      await work();
    } catch (error) {
      say(sentence(error));
    } finally {
      element.disabled = false;
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

/** Tells the person something, screen readers too; above any dialog. */
export function say(text: string): void {
  const status = document.querySelector<HTMLElement>("#status");
  if (!status) return;
  status.hidePopover();
  status.showPopover();
  status.textContent = text;
  clearTimeout(fading);
  fading = setTimeout(() => {
    status.textContent = "";
    status.hidePopover();
  }, 5000);
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
    error.textContent = "";
    main.disabled = true;
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
      main.disabled = false;
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

/** Opens a dialog; it is gone when it is closed. */
export function dialog(
  title: string,
  content: (close: () => void) => Child[],
  properties: Properties = {},
): HTMLDialogElement {
  const close = (): void => {
    element.close();
  };
  const heading = h("h2", { id: "dialog-title" }, title);
  const element = h("dialog", { "aria-labelledby": "dialog-title", ...properties });
  const cross = button("\u00d7", close, { class: "icon", "aria-label": "Close" });
  const bar = h("div", { class: "row" }, heading, cross);
  heading.classList.add("brand");
  element.append(h("div", { class: "stack" }, bar, ...content(close)));
  element.addEventListener("close", () => {
    element.remove();
  });
  document.body.append(element);
  element.showModal();
  element.querySelector<HTMLElement>("input, textarea")?.focus();
  return element;
}
