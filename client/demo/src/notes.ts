/** Notes as they are sealed: what one is, how the changes of two devices come together, and what that leaves out. */

/** A note. */
export interface Note {
  readonly id: string;
  readonly text: string;
  /** Milliseconds since the Unix epoch. */
  readonly edited: number;
  /** Deleted notes stay for a while, so that other devices learn of it. */
  readonly deleted?: boolean;
}

/** What a device had read of the service's notes: when each was edited. */
export type Seen = Readonly<Record<string, number>>;

/** What the demo's policy lets one secret have, less what sealing adds. */
export const ROOM = 4000;

/** How much room a set of notes takes. */
export function size(notes: readonly Note[]): number {
  return new TextEncoder().encode(JSON.stringify(notes)).length;
}

/** When each was edited. */
export function seenIn(notes: readonly Note[]): Seen {
  return Object.fromEntries(notes.map(({ id, edited }) => [id, edited]));
}

/** Of each note the later version stays. */
export function merged(...versions: readonly (readonly Note[])[]): Note[] {
  const newest = new Map<string, Note>();
  for (const note of versions.flat()) {
    const other = newest.get(note.id);
    if (!other || other.edited < note.edited) newest.set(note.id, note);
  }
  return [...newest.values()];
}

/**
 * What a version says that these notes do not: an edit that another device made of a note without knowing of the one that
 * stayed. What had been read here before it was changed is no such thing.
 */
export function leftOut(version: readonly Note[], notes: readonly Note[], seen: Seen): Note[] {
  const staying = new Map(notes.map((note) => [note.id, note]));
  return version.filter((note) => {
    const stays = staying.get(note.id);
    if (note.deleted || seen[note.id] === note.edited) return false;
    return stays?.edited !== note.edited && (stays?.deleted || stays?.text !== note.text);
  });
}
