/** What a conversion takes along from the storage of the single custody to that of the group's. Called by `convert.ts`. */
import type { Copy, Queued } from "../offline/changes.js";
import type { Storage, Update } from "../storage/storage.js";

/**
 * What was written at the one realm since its storage was copied, and is nowhere else: changes that were not sent, and versions
 * that lost a conflict. Both storages have them until the first is forgotten. A change that was copied and has gone out meanwhile
 * is not sent once more.
 */
export async function carryOver(from: Storage, to: Storage): Promise<void> {
  const entries = (await from.list("")).filter(([key]) => /^(queue|copy|lost)\//.test(key));
  const kept = new Map(entries);
  const partner = (key: string) => key.replace(/^(queue|copy)/, (kind) => OTHER[kind] ?? "");
  const keys = new Set(entries.flatMap(([key]) => [key, partner(key)]));
  await to.update([...keys], (update) => {
    for (const key of keys) {
      const [here, there] = [kept.get(key), update.get(key)];
      if (key.startsWith("queue/")) {
        const copy = kept.get(partner(key)) as Copy | undefined;
        joined(update, key, here as Queued | undefined, there as Queued | undefined, copy?.change);
      } else if (key.startsWith("lost/") || isNewer(here as Copy | undefined, there as Copy)) {
        update.set(key, here);
      }
    }
  });
}

const OTHER: Readonly<Record<string, string>> = { queue: "copy", copy: "queue" };

const isNewer = (one: Copy | undefined, other: Copy | undefined): boolean =>
  one !== undefined && one.version > (other?.version ?? 0);

/** What waits `here` and `there`, of which the change `sent` has gone out. */
function joined(
  update: Update,
  key: string,
  here: Queued | undefined,
  there: Queued | undefined,
  sent: string | undefined,
): void {
  const { aside = [], ...first } = there ?? {};
  const others = there && there.id !== sent ? [first as Queued, ...aside] : aside;
  if (!here) {
    if (others.length === 0) update.delete(key);
    return;
  }
  if (others.some(({ id }) => id === here.id)) return;
  // The group's own, which was made without it, is decided on when it is sent.
  update.set(key, { ...here, aside: [...(here.aside ?? []), ...others] } satisfies Queued);
}
