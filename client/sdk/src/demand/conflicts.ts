/**
 * Two changes that were made without knowing of each other: the app's rule decides, and what loses is kept. Loaded when
 * there are such. Called by `../offline/sync.ts`.
 */
import type { Bytes } from "../bytes.js";
import type { Custody } from "../custody.js";
import type { Change, Queued, Rule } from "../offline/changes.js";
import type { Update } from "../storage/storage.js";
import { t } from "./t.js";

/** What the rule is asked of a change. Its time is by the daemon's clock, now that there has been an answer. */
const mineOf = ({ transport }: Custody, { content, changed }: Change) => ({
  content,
  changed: changed + transport.now - Math.floor(Date.now() / 1000),
});

/** Decides between tabs that did not know of each other's change. */
export async function settle(custody: Custody, name: string, rule: Rule): Promise<void> {
  for (;;) {
    const mine = await t.queuedOf(custody, name);
    const [other, ...aside] = mine?.aside ?? [];
    if (!mine || !other) return;
    const { content, changed: updated } = mineOf(custody, other);
    const theirs = { version: other.base ?? 0, content, updated };
    const isSame = t.equal(content, mine.content);
    const decided = isSame ? content : await rule({ name, mine: mineOf(custody, mine), theirs });
    if (decided === "theirs") await replace(custody, name, mine, { ...other, aside }, mine.content);
    else await replace(custody, name, mine, { ...having(mine, decided), aside }, content);
  }
}

/** Decides between this device and what the daemon has. */
export async function resolve(
  custody: Custody,
  name: string,
  mine: Queued,
  rule: Rule,
): Promise<void> {
  const { account } = custody;
  const copy = t.of(custody, "copy", name);
  const theirs = await t.getSecret(custody, name);
  // The answer to an earlier try was lost: it is ours that is there.
  if (theirs && t.equal(theirs.content, mine.content)) {
    await t.done(custody, { account }, name, mine, theirs);
    return;
  }
  const decided = await rule({ name, mine: mineOf(custody, mine), theirs });
  const [after, loser] =
    decided === "theirs"
      ? [undefined, mine.content]
      : [{ ...having(mine, decided), base: theirs?.version }, theirs?.content];
  await replace(custody, name, mine, after, loser, (update) => {
    if (theirs) update.set(copy, theirs);
    else update.delete(copy);
  });
}

/** What was decided is another change where it is another content: its author has not seen it. */
const having = (mine: Queued, content: Bytes): Queued =>
  t.equal(mine.content, content) ? mine : { ...mine, content, id: t.toHex(t.random(8)) };

/** Keeps a decision, unless the owner has changed it again while the rule was asked: then that is judged next. */
async function replace(
  custody: Custody,
  name: string,
  mine: Queued,
  after: Queued | undefined,
  loser: Bytes | undefined,
  and: (update: Update) => void = () => undefined,
): Promise<void> {
  const queue = t.of(custody, "queue", name);
  const lost = t.lostKey(custody, name);
  await custody.storage.update([queue], (update) => {
    const now = update.get(queue) as Queued | undefined;
    if (now?.id !== mine.id || now.aside?.length !== mine.aside?.length) return;
    if (loser && !(after && t.equal(after.content, loser))) {
      update.set(lost, { name, content: loser });
    }
    update.set(queue, after);
    and(update);
  });
}
