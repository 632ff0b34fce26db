/** Starts the app: opens the custody, shows what is there, follows the address. */
import { AuthenticationFailed, isBound } from "@custodyd/sdk";
import { h, middle, say, sentence } from "./dom.js";
import { load, model, open, synchronise, unlocked } from "./model.js";
import { notebook } from "./notebook.js";
import { settings } from "./settings.js";
import { recall } from "./upkeep.js";
import { recover, welcome } from "./welcome.js";

const app = document.querySelector("#app") ?? document.body;

async function page(): Promise<HTMLElement> {
  const known = isBound(model.custody);
  if (location.hash === "#/recover") return recover(redraw);
  if (!known) return welcome(redraw);
  if (location.hash === "#/settings") return settings(redraw);
  await load();
  return notebook(redraw);
}

/** What is shown in place of a page: why, and where to go from there. */
function stopped(error: unknown): HTMLElement {
  const removed = error instanceof AuthenticationFailed;
  const why = removed ? "This device is not bound to the notebook any more." : sentence(error);
  const back =
    removed && h("a", { class: "button primary wide", href: "#/recover" }, "Ways back in");
  return middle("Notebook", why, back);
}

let drawing = 0;

function redraw(): void {
  drawing += 1;
  const mine = drawing;
  page().then(
    (shown) => {
      // A later call has overtaken this one.
      if (mine === drawing) app.replaceChildren(shown);
    },
    (error: unknown) => {
      app.replaceChildren(stopped(error));
    },
  );
}

async function start(): Promise<void> {
  if ("serviceWorker" in navigator)
    await navigator.serviceWorker.register("/sw.js").catch(() => undefined);
  await open();
  await recall();
  addEventListener("hashchange", redraw);
  addEventListener("online", () => {
    if (!isBound(model.custody)) return;
    // A change waits for a factor; what can be read is read again at once.
    (unlocked() ? synchronise() : load()).then(redraw, (error: unknown) => {
      say(sentence(error));
    });
  });
  // Ask the browser not to clear what only this device has.
  await navigator.storage.persist().catch(() => false);
  redraw();
}

start().catch((error: unknown) => {
  app.replaceChildren(stopped(error));
});
