/**
 * What the app knows: its custody, and the notes, sealed under the account's data key.
 *
 * The data key is kept on this device, not extractable, so that reading asks for nothing. Changing
 * needs the key to be unlocked: by PIN or passkey, online or offline.
 */
import * as sdk from "@custodyd/sdk";

/** A note. */
export interface Note {
  readonly id: string;
  readonly text: string;
  /** Milliseconds since the Unix epoch. */
  readonly edited: number;
  /** Deleted notes stay for a while, so that other devices learn of it. */
  readonly deleted?: boolean;
}

const SECRET = "notes";
const DATA_KEY = "demo/data-key";
/** What the demo's policy lets one secret have, less what sealing adds. */
export const ROOM = 4000;

/** The app's one state. */
export const model = {
  custody: undefined as unknown as sdk.Custody,
  notes: [] as readonly Note[],
  /** Where the notes on the screen are from. */
  from: "server" as sdk.Known["from"] | "none",
  waiting: false,
  /** The PIN was changed on this device, and the service has not been told. */
  pinPending: false,
  /** A renewal of the secret was begun here, and its codes were perhaps not seen. */
  renewing: false,
  online: true,
  /** Ways that open the notebook no more, since the service does not. */
  closed: [] as readonly sdk.Closed[],
  /** Why the service can open something still, though it shall not. */
  left: undefined as sdk.CustodyError | undefined,
};

interface Configuration {
  readonly url: string;
  readonly app: string;
  readonly realm: sdk.RealmTrust;
}

/** Opens the custody with the configuration that was deployed beside the page. */
export async function open(): Promise<void> {
  const configuration = (await (await fetch("/config.json")).json()) as Configuration;
  model.custody = await sdk.openCustody(configuration);
}

/** The newest first; those behind it open what was written before the secret was renewed. */
async function dataKeys(): Promise<readonly CryptoKey[]> {
  const kept = (await model.custody.storage.get(DATA_KEY)) as CryptoKey | CryptoKey[] | undefined;
  return kept ? [kept].flat() : [];
}

/** After an unlock: this device may read from now on. */
export async function keepDataKey(): Promise<void> {
  const keys = await model.custody.unlocked?.dataKeys(SECRET);
  if (!keys) return;
  await model.custody.storage.update([], (update) => {
    update.set(DATA_KEY, keys);
  });
}

/** After the secret was renewed: the notes that are there are written under it, too. */
export async function sealAnew(): Promise<void> {
  await keepDataKey();
  await load();
  if (model.notes.length === 0) return;
  await sdk.saveSecret(model.custody, SECRET, await sealed(model.notes), merge);
  await load();
}

async function opened(content: Uint8Array<ArrayBuffer> | undefined): Promise<Note[]> {
  if (!content) return [];
  const plain = await sdk.openData(await dataKeys(), SECRET, content);
  return plain ? (JSON.parse(new TextDecoder().decode(plain)) as Note[]) : [];
}

async function sealed(notes: readonly Note[]): Promise<Uint8Array<ArrayBuffer>> {
  const [key] = await dataKeys();
  if (!key) throw new sdk.NotReady("locked", "unlock first");
  const plain = new TextEncoder().encode(JSON.stringify(notes));
  return sdk.sealData(key, SECRET, new Uint8Array(plain));
}

/** Two devices changed notes apart: of each note the later version stays. */
const merge: sdk.Rule = async ({ mine, theirs }) => {
  const all = [...(await opened(theirs?.content)), ...(await opened(mine.content))];
  const newest = new Map<string, Note>();
  for (const note of all) {
    const other = newest.get(note.id);
    if (!other || other.edited < note.edited) newest.set(note.id, note);
  }
  return sealed([...newest.values()]);
};

/** Reads the notes: the daemon's, or this device's copy. */
export async function load(): Promise<void> {
  const known = await sdk.loadSecret(model.custody, SECRET);
  // Once nobody but the owner opens the notes, a locked notebook shows what this device has read of them.
  model.notes = await opened(known?.content);
  model.from = known?.from ?? "none";
  model.online = known?.from !== "copy" || known.locked === true;
  model.waiting = (await sdk.pendingChanges(model.custody)).length > 0;
  model.pinPending = (await sdk.offlineState(model.custody)).pinPending;
  model.renewing = await sdk.rotationPending(model.custody);
}

/** Whether notes can be changed now. */
export function unlocked(): boolean {
  return model.custody.unlocked !== undefined;
}

/** How much room a set of notes takes. */
export function size(notes: readonly Note[]): number {
  return new TextEncoder().encode(JSON.stringify(notes)).length;
}

/** Saves a note, here at once and at the daemon when it can be reached. */
export async function save(note: Note): Promise<sdk.Synced> {
  const month = 30 * 24 * 3600 * 1000;
  const others = model.notes.filter((one) => one.id !== note.id);
  const kept = others.filter((one) => !one.deleted || one.edited > Date.now() - month);
  const notes = [note, ...kept];
  if (size(notes) > ROOM) throw new sdk.CustodyError("notebook-full", "the notebook is full");
  const synced = await sdk.saveSecret(model.custody, SECRET, await sealed(notes), merge);
  await load();
  model.online = synced.because !== "offline";
  return synced;
}

/** Sends what waits. */
export async function synchronise(): Promise<sdk.Synced> {
  const synced = await sdk.sync(model.custody, merge);
  // Another device may have renewed the secret, which this one has taken up then.
  await keepDataKey();
  await load();
  return synced;
}
