/** The notes: to read at once, to write after unlocking. */
import { codesPending, CustodyError, lock, signOut, type Synced, unseenCodes } from "@custodyd/sdk";
import { button, complain, dialog, form, h, say, sentence } from "./dom.js";
import { model, save, synchronise, unlocked } from "./model.js";
import { type Note, ROOM, size } from "./notes.js";
import { isAway } from "./patience.js";
import { settlePin } from "./pin.js";
import { wakeLater } from "./sync.js";
import { undoneBanners } from "./undone.js";
import { askToUnlock, unlockedAbove } from "./unlock.js";
import { showCodes } from "./welcome.js";

/** The bar on top of every page of the notebook. */
export function top(redraw: () => void): HTMLElement {
  const locking = unlocked()
    ? button("Lock", async () => {
        lock(model.custody);
        try {
          await signOut(model.custody);
        } catch (error) {
          if (!isAway(error)) throw error;
        } finally {
          // It is locked, whatever the service says.
          redraw();
        }
      })
    : button(
        "Unlock",
        () => {
          askToUnlock(redraw);
        },
        { class: "primary" },
      );
  return h(
    "header",
    { class: "top" },
    h("a", { class: "brand", href: "#/" }, h("img", { src: "/icon.svg", alt: "" }), "Notebook"),
    locking,
    h("a", { class: "button", href: "#/settings" }, "Settings"),
  );
}

/** Why a change waits, and what for. */
function waits(because: Synced["because"]): string {
  return because === "step-up"
    ? "It goes out when you unlock in a stronger way."
    : "It goes out later.";
}

/** Codes that nobody has seen, where the notebook has them. */
async function seeCodes(redraw: () => void): Promise<void> {
  if (!unlocked()) {
    askToUnlock(() => {
      redraw();
      seeCodes(redraw).catch((error: unknown) => {
        complain(sentence(error));
      });
    });
    return;
  }
  const codes = await unseenCodes(model.custody);
  if (codes) {
    showCodes(codes, redraw);
    return;
  }
  model.unseen = await codesPending(model.custody);
  say("No new codes were made: those that you had before are good.");
  redraw();
}

function banners(redraw: () => void): HTMLElement[] {
  const shown: HTMLElement[] = undoneBanners(redraw);
  if (model.shut) {
    const why =
      "Another device has renewed the secret of this notebook. Unlock it here once, online, to read on: until then you see what this device has read last, and nothing is replaced.";
    shown.push(h("div", { class: "banner" }, why));
  }
  if (model.unseen) {
    const why =
      "Recovery codes were made on this device, and you may not have seen them. Those from before may open nothing any more.";
    const see = button(unlocked() ? "Show them" : "Unlock to see them", () => seeCodes(redraw));
    shown.push(h("div", { class: "banner" }, why, see));
  } else if (model.codeless) {
    const there = h("a", { class: "button", href: "#/settings" }, "Make some");
    const why =
      "You have no recovery codes on paper. Without them a lost device can lose the notebook.";
    shown.push(h("div", { class: "banner" }, why, there));
  }
  // What goes on by itself at the next unlock is not worth a word.
  if (model.left && !isAway(model.left)) {
    const there = h("a", { class: "button", href: "#/settings" }, "Ways to unlock");
    shown.push(h("div", { class: "banner" }, sentence(model.left), there));
  }
  if (model.waiting) {
    const act = unlocked()
      ? button("Send now", async () => {
          const { because, unopened } = await synchronise();
          const [strange] = unopened;
          if (strange) say(sentence(strange.error));
          else say(because === undefined ? "Everything is sent." : waits(because));
          redraw();
        })
      : button("Unlock to send", () => {
          askToUnlock(redraw);
        });
    shown.push(h("div", { class: "banner" }, "Changes of this device wait to be sent.", act));
  } else if (!model.online) {
    const why = model.silent === "word" ? "The service can not be reached." : "You are offline.";
    const shows = model.notes.length > 0 ? " This is the copy of this device." : "";
    shown.push(h("div", { class: "banner" }, why + shows));
  }
  if (model.renewing && model.online) {
    const there = h("a", { class: "button", href: "#/settings" }, "Settings");
    const why =
      "Renewing the secret was interrupted, and your recovery codes may be void. Renew it again.";
    shown.push(h("div", { class: "banner" }, why, there));
  }
  if (model.pinPending && model.online) {
    const tell = button("Type both", () => {
      settlePin(redraw);
    });
    shown.push(h("div", { class: "banner" }, "The service does not know your new PIN yet.", tell));
  }
  return shown;
}

function words(note: Note): [string, string] {
  const [first = "", ...rest] = note.text.trim().split("\n");
  return [first || "Untitled", rest.join("\n").trim()];
}

function when(note: Note): HTMLElement {
  const date = new Date(note.edited);
  const shown = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  return h("time", { datetime: date.toISOString() }, shown.format(date));
}

function card(note: Note, redraw: () => void): HTMLElement {
  const [title, text] = words(note);
  const inside = [h("strong", {}, title), h("span", {}, text), when(note)];
  const element = h("button", {
    class: "card note",
    type: "button",
    click: () => {
      show(note, redraw);
    },
  });
  element.append(...inside);
  return h("li", {}, element);
}

/** A note in full: to read, or to change where the key is unlocked. */
function show(note: Note, redraw: () => void): void {
  if (!unlocked()) {
    const [title, text] = words(note);
    dialog(title, (close) => [
      h("p", { class: "note-text" }, text),
      button(
        "Unlock to change it",
        () => {
          close();
          askToUnlock(() => {
            redraw();
            show(note, redraw);
          });
        },
        { class: "wide" },
      ),
    ]);
    return;
  }
  const area = h("textarea", { name: "text", required: true, maxlength: 3000 }, note.text);
  dialog(
    note.text === "" ? "New note" : "Note",
    (close) => {
      const keep = async (changed: Note): Promise<void> => {
        const { because } = await saved(changed);
        close();
        redraw();
        if (because === "offline") void wakeLater();
        say(because === undefined ? "Saved." : `Saved on this device. ${waits(because)}`);
      };
      const write = form([h("label", {}, "Text", area)], "Save", ({ text = "" }) =>
        keep({ ...note, text: text.trim(), edited: Date.now() }),
      );
      const drop = () => keep({ id: note.id, text: "", edited: Date.now(), deleted: true });
      return [write, note.text !== "" && button("Delete", drop, { class: "danger wide" })];
    },
    { class: "big" },
    () => area.value !== area.defaultValue,
  );
}

/** Another device may have renewed the secret while somebody typed: they unlock above what they have typed, and it is saved. */
async function saved(note: Note): Promise<Synced> {
  try {
    return await save(note);
  } catch (error) {
    const isShut = error instanceof CustodyError && /^(locked|notebook-shut)$/.test(error.code);
    if (!isShut || !(await unlockedAbove("Unlock to save"))) throw error;
    return save(note);
  }
}

function nothing(): string {
  if (model.shut) return "Nothing that this device could show.";
  // Whether there are notes only the service could say.
  if (model.from === "none" && !model.online) return "This device has read no notes yet.";
  return model.loaded ? "Nothing here yet. Write your first note." : "Reading\u2026";
}

/** From so many percent on it is worth a word how much room is left. */
const LITTLE = 30;

/** The page. */
export function notebook(redraw: () => void): HTMLElement {
  const notes = model.notes
    .filter((note) => !note.deleted)
    .sort((one, other) => other.edited - one.edited);
  const fresh = (): void => {
    show({ id: crypto.randomUUID(), text: "", edited: 0 }, redraw);
  };
  const add = button(
    "New note",
    () => {
      if (unlocked()) fresh();
      else
        askToUnlock(() => {
          redraw();
          fresh();
        });
    },
    {
      class: "primary fab",
    },
  );
  const left = Math.max(0, Math.round(100 - (size(model.notes) / ROOM) * 100));
  const state = unlocked()
    ? h("span", { class: "pill" }, "Unlocked")
    : h("span", { class: "pill off" }, "Locked: reading only");
  const list =
    notes.length > 0
      ? h("ul", { class: "notes" }, ...notes.map((note) => card(note, redraw)))
      : h("p", { class: "empty" }, nothing());
  return h(
    "div",
    { class: "page" },
    top(redraw),
    h(
      "main",
      { id: "main", class: "stack" },
      ...banners(redraw),
      h(
        "div",
        { class: "row" },
        h("h1", {}, "Notes"),
        state,
        left < LITTLE && h("small", {}, `${left} % of the room is left`),
      ),
      list,
    ),
    add,
  );
}
