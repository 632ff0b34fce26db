/**
 * A new account at every realm of a group: one app key, bound at each of them, and its secret split among
 * them. No realm is ever given the secret.
 *
 * It can be interrupted at any point and called again, as at one realm: until every realm has its share, the
 * secret waits on this device under a key that WebCrypto does not give out.
 */
import { KEPT } from "../custody.js";
import type { EnrolOptions } from "../enrol.js";
import { NotReady } from "../errors.js";
import type { Unlocked } from "../keys.js";
import { checkLog } from "../receipts/log.js";
import { afterwards } from "../session.js";
import { onDemand } from "../tools.js";
import { PENDING } from "../vault.js";
import { atEach, type Group, keepUnlocked } from "./group.js";
import { spread } from "./refresh.js";

/** What an enrolment at several realms takes. */
export interface GroupEnrolOptions extends Omit<EnrolOptions, "ticket"> {
  /** Tickets of the app's backend, by realm, where policies want them. */
  readonly tickets?: Readonly<Record<string, string>>;
}

/** Whether an enrolment was begun here and not finished. */
export async function groupEnrolmentPending(group: Group): Promise<boolean> {
  return (await group.storage.get(PENDING)) !== undefined;
}

/**
 * Creates the accounts of this device. All realms have to answer. Their sessions count as fresh for ten
 * minutes: add a PIN, passkeys or an address at each (`atEach`) within them.
 */
export async function enrolAtAll(group: Group, options: GroupEnrolOptions = {}): Promise<Unlocked> {
  const [first] = group.custodies;
  const finished = (await first?.storage.get(KEPT.appKey)) !== undefined;
  if (finished && !(await groupEnrolmentPending(group))) {
    throw new NotReady("already-enrolled", "this device has accounts; forget the group first");
  }
  const { begin, createAnyway } = await onDemand();
  const [pending, unlocked] = await begin(group);
  const { tickets, ...more } = options;
  await atEach(group, async (custody) => {
    const ticket = tickets?.[custody.realm.name];
    const its = ticket === undefined ? more : { ...more, ticket };
    await createAnyway(group, custody, pending, unlocked, its);
  });
  await spread(group, unlocked, group.threshold);
  const open = await keepUnlocked(group, unlocked);
  await group.storage.update([], (update) => {
    update.delete(PENDING);
  });
  await atEach(group, async (custody) => {
    if (custody.checkLog) await afterwards("log", () => checkLog(custody));
  });
  return open;
}
