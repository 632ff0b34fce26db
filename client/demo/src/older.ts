/** Older versions, as a person sees them in the settings: two devices have changed one note apart. */
import { button, card, type Child, h, say } from "./dom.js";
import { dropOlder, olderNotes, save } from "./model.js";
import type { Note } from "./notes.js";

/** Restored as a note of its own: what has replaced it stays as it is. */
async function restore(key: string, note: Note): Promise<void> {
  await save({ id: crypto.randomUUID(), text: note.text, edited: Date.now() });
  await dropOlder(key);
  say("It is a note of its own now.");
}

/** A line for each; nothing where there are none. */
export async function olderVersions(redraw: () => void): Promise<Child> {
  const at = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  const items = (await olderNotes()).map(([key, note]) => {
    const title = note.text.split("\n", 1)[0] ?? "";
    const back = button("Restore", () => restore(key, note).then(redraw), {
      "aria-label": `Restore ${title}`,
    });
    const gone = button("Drop", () => dropOlder(key).then(redraw), {
      ...{ class: "danger", "aria-label": `Drop ${title}` },
    });
    const name = h("span", {}, title, h("br"), h("small", {}, at.format(note.edited)));
    return h("li", {}, name, h("span", { class: "row" }, back, gone));
  });
  if (items.length === 0) return false;
  const why = "Two devices changed a note apart. The later change stayed; this is the earlier one.";
  return card(
    "Older versions",
    h("p", { class: "soft" }, why),
    h("ul", { class: "list" }, ...items),
  );
}
