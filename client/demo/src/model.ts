/**
 * What the app knows: its custody, and the notes, sealed under the account's data key.
 *
 * The data key is kept on this device, not extractable, so that reading asks for nothing. Changing
 * needs the key to be unlocked: by PIN or passkey, online or offline.
 *
 * What does not open here is never taken for nothing and never replaced: another device has renewed the secret, and an
 * unlock brings the new one. Until then the notes are shown as this device has read them last.
 */
import * as sdk from "@custodyd/sdk";
import { configured } from "./configuration.js";
import { leftOut, merged, type Note, ROOM, type Seen, seenIn, size } from "./notes.js";
import { isAway, isSilent, patiently, waitAgain } from "./patience.js";

const SECRET = "notes";
const DATA_KEY = "data-key";
/** The notes as this device has read them last, sealed: drawn before anybody has answered. */
const READ = "read";
/** When each of the service's notes was edited, as this device has read them last. */
const SEEN = "seen";
/** Versions of notes that another one has replaced without its writer knowing of them, each sealed. */
const OLDER = "older/";

/** The app's one state. */
export const model = {
  custody: undefined as unknown as sdk.Custody,
  notes: [] as readonly Note[],
  /** Where the notes on the screen are from. */
  from: "server" as sdk.Known["from"] | "none",
  /** Somebody has answered, or nobody does: what is on the screen is all there is. */
  loaded: false,
  /** What is stored does not open here. */
  shut: false,
  waiting: false,
  /** The PIN was changed on this device, and the service has not been told. */
  pinPending: false,
  /** A renewal of the secret was begun here, and its codes were perhaps not seen. */
  renewing: false,
  /** Some were made here, and wait to be seen. */
  unseen: false,
  /** Recovery codes were never shown, or not to their end. */
  codeless: false,
  online: true,
  /** How that was known, the last time that nobody answered. */
  silent: undefined as ReturnType<typeof isSilent>,
  /** Ways that open the notebook no more, since the service does not. */
  closed: [] as readonly sdk.Closed[],
  /** Why the service can open something still, though it shall not. */
  left: undefined as sdk.CustodyError | undefined,
  /** What should have followed the last sign-in, and did not. */
  undone: [] as readonly sdk.Undone[],
};

/**
 * Opens the custody with the configuration that was deployed beside the page. `onLocked` is called when another device has
 * put a secret in the place of the one that is open here, and a sign-in has to bring it.
 */
export async function open(onLocked: () => void): Promise<void> {
  const configuration = await configured();
  const onReplaced = (now: sdk.Unlocked | undefined): void => {
    if (now) return;
    sdk.lock(model.custody);
    onLocked();
  };
  model.custody = await sdk.openCustody({ ...configuration, onReplaced, fetch: patiently });
}

/** The newest first; those behind it open what was written before the secret was renewed. */
async function dataKeys(): Promise<readonly CryptoKey[]> {
  const { unlocked } = model.custody;
  if (unlocked?.locked === false) return unlocked.dataKeys(SECRET);
  const kept = (await keptAs(DATA_KEY)) as CryptoKey | CryptoKey[] | undefined;
  return kept ? [kept].flat() : [];
}

/** Under its account's name: another one that is signed in to in this browser has its own. */
const own = (key: string): string => `demo/${model.custody.account?.account ?? ""}/${key}`;

/** Keeps what the app has to say on this device. */
export async function kept(key: string, value: unknown): Promise<void> {
  const name = own(key);
  await model.custody.storage.update([], (update) => {
    update.set(name, value);
  });
}

/** What was kept. */
export const keptAs = (key: string): Promise<unknown> => model.custody.storage.get(own(key));

/** After an unlock: this device may read from now on. */
export async function keepDataKey(): Promise<void> {
  if (unlocked()) await kept(DATA_KEY, await dataKeys());
}

/** After the secret was renewed: the notes that are there are written under it, too. */
export async function sealAnew(): Promise<sdk.Synced | undefined> {
  await keepDataKey();
  await load();
  if (model.shut || model.notes.length === 0) return undefined;
  const synced = await sdk.saveSecret(model.custody, SECRET, await sealed(model.notes), merge);
  await load();
  return synced;
}

/** Undefined where it does not open. */
async function opened(content: Uint8Array<ArrayBuffer>): Promise<Note[] | undefined> {
  const plain = await sdk.openData(await dataKeys(), SECRET, content);
  return plain && (JSON.parse(new TextDecoder().decode(plain)) as Note[]);
}

async function sealed(notes: readonly Note[]): Promise<Uint8Array<ArrayBuffer>> {
  const [key] = await dataKeys();
  if (!key) throw new sdk.NotReady("locked", "unlock first");
  const plain = new TextEncoder().encode(JSON.stringify(notes));
  return sdk.sealData(key, SECRET, new Uint8Array(plain));
}

const SHUT = "notebook-shut";
const shut = (): sdk.CustodyError =>
  new sdk.CustodyError(SHUT, "what is stored does not open here: nothing replaces it");

async function seen(): Promise<Seen> {
  return ((await keptAs(SEEN)) ?? {}) as Seen;
}

/** Two devices changed notes apart. Of a note that both have changed, the earlier version goes to the older ones. */
const merge: sdk.Rule = async ({ mine, theirs }) => {
  const own = await opened(mine.content);
  const others = theirs ? await opened(theirs.content) : [];
  if (!own || !others) throw shut();
  const all = merged(others, own);
  await keepOlder(leftOut(own, all, await seen()));
  return sealed(all);
};

/** Until a person restores or drops them. One that is kept already stays one. */
async function keepOlder(notes: readonly Note[]): Promise<void> {
  for (const note of notes) await kept(`${OLDER}${note.id}/${note.edited}`, await sealed([note]));
}

/** What lost a merge stands in it, but for what is kept with the older versions. */
async function settleLost(before: Seen): Promise<void> {
  if (model.shut) return;
  for (const lost of await sdk.lostVersions(model.custody)) {
    const notes = lost.name === SECRET ? await opened(lost.content) : undefined;
    if (!notes) continue;
    await keepOlder(leftOut(notes, model.notes, before));
    await sdk.dropLost(model.custody, lost);
  }
}

/** The older versions, and where each is kept. */
export async function olderNotes(): Promise<(readonly [string, Note])[]> {
  const found: (readonly [string, Note])[] = [];
  for (const [key, content] of await model.custody.storage.list(own(OLDER))) {
    const [note] = (await opened(content as Uint8Array<ArrayBuffer>)) ?? [];
    if (note) found.push([key, note]);
  }
  return found;
}

/** Drops an older version. */
export async function dropOlder(key: string): Promise<void> {
  await model.custody.storage.update([], (update) => {
    update.delete(key);
  });
}

/** Another device may have put a secret in the place of the one that is open here. */
async function followed(): Promise<boolean> {
  try {
    if (!unlocked() || !(await sdk.followRotation(model.custody))) return false;
  } catch (error) {
    if (!(error instanceof sdk.CustodyError)) throw error;
    return false;
  }
  return true;
}

/** What this device has read last, before anybody is asked. */
export async function recallNotes(): Promise<void> {
  model.codeless =
    ((await keptAs(CODELESS)) ?? (await model.custody.storage.get(NOBODYS))) === true;
  model.unseen = await sdk.codesPending(model.custody);
  const content = (await keptAs(READ)) as Uint8Array<ArrayBuffer> | undefined;
  model.notes = (content && (await opened(content))) ?? [];
}

/** `unknown` where nobody has answered and this device has no copy: there may be notes, or none. */
async function known(): Promise<sdk.Known | undefined | "locked" | "unknown"> {
  try {
    return (await sdk.loadSecret(model.custody, SECRET)) ?? (isSilent() ? "unknown" : undefined);
  } catch (error) {
    if (isAway(error)) return "unknown";
    if (error instanceof sdk.NotReady && error.code === "locked") return "locked";
    throw error;
  }
}

/** Counts what changes the notes here: an answer that was asked for before says nothing of them any more. */
let turn = 0;

/** Reads the notes: the daemon's, or this device's copy. */
export async function load(): Promise<void> {
  turn += 1;
  const mine = turn;
  const read = await known();
  const found = typeof read === "string" ? undefined : read;
  let notes = found ? await opened(found.content) : [];
  if (found && !notes && (await followed())) notes = await opened(found.content);
  if (mine !== turn) return;
  model.shut = read === "locked" || !notes;
  if (model.shut) sdk.lock(model.custody);
  // What was read before stays, on the screen and on this device.
  else if (read !== "unknown") {
    model.notes = notes ?? [];
    await keepDataKey();
    await kept(READ, found?.content);
    if (found?.from === "server") await kept(SEEN, seenIn(model.notes));
  }
  model.from = found?.from ?? "none";
  // Once nobody but the owner opens the notes, a locked notebook shows what this device has read of them.
  model.online = read !== "unknown" && (found?.from !== "copy" || found.locked === true);
  model.silent = isSilent();
  model.waiting = (await sdk.pendingChanges(model.custody)).length > 0;
  model.pinPending = (await sdk.offlineState(model.custody)).pinPending;
  model.renewing = await sdk.rotationPending(model.custody);
  model.unseen = await sdk.codesPending(model.custody);
  model.loaded = true;
}

const CODELESS = "codeless";
/** The same before there is an account: it is said once one is. */
const NOBODYS = `demo//${CODELESS}`;

/** Says from now on, also after the page is gone, that recovery codes were not seen to their end; or no more. */
export async function remindOfCodes(codeless: boolean): Promise<void> {
  model.codeless = codeless;
  const name = own(CODELESS);
  await model.custody.storage.update([], (update) => {
    update.delete(NOBODYS);
    update.set(name, codeless);
  });
}

/** Whether notes can be changed now. */
export function unlocked(): boolean {
  return model.custody.unlocked?.locked === false;
}

/** Saves a note, here at once and at the daemon when it can be reached. */
export async function save(note: Note): Promise<sdk.Synced> {
  const { custody } = model;
  if (!unlocked()) throw new sdk.NotReady("locked", "unlock first");
  // Nothing is written upon what was not read; and what waits already may be another tab's.
  if (!model.loaded || (await sdk.pendingChanges(custody)).length > 0) await load();
  if (model.shut) throw shut();
  const month = 30 * 24 * 3600 * 1000;
  const others = model.notes.filter((one) => one.id !== note.id);
  const left = others.filter((one) => !one.deleted || one.edited > Date.now() - month);
  const notes = [note, ...left];
  if (size(notes) > ROOM) throw new sdk.CustodyError("notebook-full", "the notebook is full");
  turn += 1;
  const [before, key] = [await seen(), custody.unlocked];
  let synced = await sdk.saveSecret(custody, SECRET, await sealed(notes), merge);
  // Another device has renewed the secret, as it turned out: what was just written is sealed under the one of before.
  if (unlocked() && custody.unlocked !== key) synced = (await sealAnew()) ?? synced;
  else await load();
  await settleLost(before);
  model.online = synced.because !== "offline";
  return synced;
}

/** Sends what waits. */
export async function synchronise(): Promise<sdk.Synced> {
  const before = await seen();
  const synced = await sdk.sync(model.custody, merge);
  // Another device may have renewed the secret, which this one has taken up then.
  await load();
  await settleLost(before);
  return synced;
}

/** On start, and when the network is back: reads, and sends what needs no factor. Returns whether something was sent. */
export async function catchUp(): Promise<boolean> {
  waitAgain();
  await load();
  if (!model.custody.transport.session) return false;
  try {
    const before = await seen();
    const { sent } = await sdk.sync(model.custody, merge);
    if (sent.length > 0) await load();
    await settleLost(before);
    return sent.length > 0;
  } catch (error) {
    if (!(error instanceof sdk.CustodyError) || error.code !== SHUT) throw error;
    model.shut = true;
    return false;
  }
}
