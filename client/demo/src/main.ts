/** Starts the app: opens the custody, shows what is there, follows the address. */
import {
  AuthenticationFailed,
  enrolmentPending,
  isBound,
  Refused,
  StorageFailed,
} from "@custodyd/sdk";
import { button, h, isOther, middle, moveOn, say, sentence } from "./dom.js";
import { isTyping, place } from "./focus.js";
import { mend } from "./mend.js";
import { followPresses, released } from "./press.js";
import { catchUp, load, model, open, recallNotes } from "./model.js";
import { notebook } from "./notebook.js";
import { reading, settings } from "./settings.js";
import { isOtherLog, otherLog } from "./undone.js";
import { recover } from "./recover.js";
import { askToUnlock } from "./unlock.js";
import { recall } from "./upkeep.js";
import { whenAwake } from "./sync.js";
import { offerUpdates } from "./update.js";
import { welcome } from "./welcome.js";

/** What is there already, and then what the service brings: nobody looks at nothing while it does not answer. */
async function* pages(): AsyncGenerator<HTMLElement> {
  if (location.hash === "#/recover") {
    yield recover(redraw);
  } else if (!isBound(model.custody) || (await enrolmentPending(model.custody))) {
    // One that was begun and has no way in yet: it is gone on with.
    yield welcome(redraw);
  } else if (location.hash === "#/settings") {
    if (shown !== "#/settings") yield reading(redraw);
    if (isDue) await refreshed();
    yield await settings(redraw);
  } else {
    yield notebook(redraw);
    const before = state();
    await refreshed();
    if (state() !== before) yield notebook(redraw);
  }
}

/** On start, and when the network is back, there may be something to send. */
let isDue = true;

let last: Promise<void> = Promise.resolve();

/** One after the other: of two at once, the later one would draw what the other is about to change. */
function refreshed(): Promise<void> {
  last = last.catch(() => undefined).then(refreshNow);
  return last;
}

async function refreshNow(): Promise<void> {
  const all = isDue;
  isDue = false;
  if (!all) await load();
  // What was said of them, that they go out later, is true no more.
  else if (await catchUp()) say("Your changes are sent.");
}

/** What the page of notes shows. */
const state = (): string =>
  JSON.stringify({ ...model, custody: 0, open: !!model.custody.unlocked });

/** What is shown in place of a page: why, and where to go from there. */
function stopped(error: unknown): HTMLElement {
  if (isOtherLog(error)) return otherLog(redraw);
  const removed = error instanceof AuthenticationFailed;
  if (error instanceof Refused && error.code === "confirm-first")
    return middle("Notebook", sentence(error), unlocking());
  const why = removed ? "This device is not bound to the notebook any more." : sentence(error);
  if (error instanceof StorageFailed && error.code === "storage-damaged")
    return middle("Notebook", why, mend());
  if (isOther(error)) return middle("Notebook", why, reload(), backIn(false));
  return middle("Notebook", why, removed && backIn(true));
}

/** The notebook that this browser has by now. */
function reload(): HTMLElement {
  const work = (): void => {
    location.hash = "#/";
    location.reload();
  };
  return button("Reload", work, { class: "primary wide" });
}

function backIn(isMain: boolean): HTMLElement {
  const kind = isMain ? "button primary wide" : "button wide";
  return h("a", { class: kind, href: "#/recover" }, "Ways back in");
}

/** After a restore nothing is read before the strongest way in was used. */
function unlocking(): HTMLElement {
  const ask = (): void => {
    askToUnlock(redraw);
  };
  return button("Unlock", ask, { class: "primary wide" });
}

let drawing = 0;
let shown: string | undefined;

async function draw(): Promise<void> {
  drawing += 1;
  const mine = drawing;
  const put = async (page: HTMLElement): Promise<void> => {
    await released();
    // A later call has overtaken this one.
    if (mine !== drawing) return;
    shown = location.hash;
    if (place(page)) moveOn();
  };
  const { dataset } = document.documentElement;
  dataset["drawing"] = "";
  try {
    for await (const page of pages()) await put(page);
  } catch (error) {
    await put(stopped(error));
  } finally {
    if (mine === drawing) delete dataset["drawing"];
  }
}

function redraw(): void {
  void draw();
}

/** What somebody is about to type stays, and the code that they wait for has a place to go to. */
function isBusy(): boolean {
  return location.hash === "#/recover" || isTyping();
}

function backOnline(): void {
  isDue = true;
  if (!isBusy()) redraw();
  // What does not come about now does at the next page.
  else if (isBound(model.custody)) refreshed().catch(() => (isDue = true));
}

async function start(): Promise<void> {
  offerUpdates();
  followPresses();
  document.querySelector(".skip")?.addEventListener("click", (event) => {
    // The address is the app's: a fragment of it would be another page.
    event.preventDefault();
    document.querySelector<HTMLElement>("#main")?.focus();
  });
  await open(() => {
    say("Another device has renewed the secret. Unlock again to write.");
    redraw();
  });
  await recall();
  await recallNotes();
  addEventListener("hashchange", redraw);
  addEventListener("online", backOnline);
  whenAwake(backOnline);
  // Ask the browser not to clear what only this device has.
  void navigator.storage.persist().catch(() => false);
  await draw();
}

start().catch((error: unknown) => {
  place(stopped(error));
});
