/** Somebody who was once where the key was open, and comes by a later state of the database. */
import { fromBase64Url } from "../../src/bytes.js";
import type { Custody } from "../../src/custody.js";
import { each } from "../../src/keys.js";
import { openContent, openSlot, type SlotKey } from "../../src/slots.js";
import { CHAIN, placeOf, type Safe } from "./safe.js";

/** What a thief has who was once where the key was open: the device secret, and the content key that it was under. */
export function stolen(custody: Custody) {
  const { unlocked, held } = custody;
  return { secret: unlocked!.secret.slice(), key: held!.key.slice(), slots: custody.slotKeys };
}

/** Which of the stored secrets open to that. */
export async function opensTo(safe: Safe, thief: ReturnType<typeof stolen>): Promise<string[]> {
  const found: string[] = [];
  for (const [name, { sealed, slots = [] }] of safe.secrets) {
    const place = placeOf(name);
    const chained = each(thief.secret).map((material): SlotKey => ({ ...CHAIN, material }));
    const keys = [thief.key];
    for (const slot of slots)
      for (const by of chained)
        if (slot.type === "secret") {
          const key = await openSlot(place, by, slot);
          if (key) keys.push(key);
        }
    const contents = keys.map((key) => openContent(place, key, fromBase64Url(sealed!)!));
    if ((await Promise.all(contents)).some((one) => one !== undefined)) found.push(name);
  }
  return found;
}
