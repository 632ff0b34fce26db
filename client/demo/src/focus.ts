/**
 * Where a person is on the page, for those who do not see it or use a keyboard: a page that is drawn again keeps the focus,
 * and another page begins at its heading and is named in the window's title.
 */

/** An element, as its successor will be found. */
type Mark = { readonly key: string; readonly at: number } | undefined;

const app = (): Element => document.querySelector("#app") ?? document.body;

function keyOf(element: Element): string {
  const name = element.getAttribute("aria-label") ?? element.getAttribute("name");
  return `${element.tagName} ${name ?? element.textContent}`;
}

const candidates = (): HTMLElement[] => [
  ...app().querySelectorAll<HTMLElement>("a, button, input, textarea, [tabindex]"),
];

/** What has the focus, in the page or in a dialog that is open. */
export function whereabouts(): { readonly element: Element | null; readonly mark: Mark } {
  const element = document.activeElement;
  if (!element || !app().contains(element)) return { element, mark: undefined };
  const key = keyOf(element);
  const at = candidates()
    .filter((one) => keyOf(one) === key)
    .indexOf(element as HTMLElement);
  return { element, mark: { key, at } };
}

const heading = (): HTMLElement | null => app().querySelector("h1");

/** Back to what had the focus, its successor, or the heading. */
export function comeBack({ element, mark }: ReturnType<typeof whereabouts>): void {
  const open = document.querySelector("dialog[open]");
  if (element?.isConnected && element !== document.body) {
    (element as HTMLElement).focus();
    return;
  }
  if (open) return;
  const same = candidates().filter((one) => keyOf(one) === mark?.key);
  (same[mark?.at ?? 0] ?? same[0] ?? heading())?.focus();
}

let drawn: string | undefined;

/** Puts a page in the place of the one that is there; returns whether it is another one. */
export function place(shown: HTMLElement): boolean {
  const was = whereabouts();
  app().replaceChildren(shown);
  const title = heading()?.textContent ?? "Notebook";
  heading()?.setAttribute("tabindex", "-1");
  document.querySelector("#main")?.setAttribute("tabindex", "-1");
  document.title = title === "Notebook" ? title : `${title} \u2013 Notebook`;
  const [isFirst, isOther] = [drawn === undefined, drawn !== title];
  drawn = title;
  if (isFirst) return false;
  if (isOther) heading()?.focus();
  else if (was.mark) comeBack(was);
  return isOther;
}

/** Whether something is typed on the page that drawing it again would lose. */
export function isTyping(): boolean {
  return [...app().querySelectorAll("input")].some((one) => one.value !== one.defaultValue);
}
