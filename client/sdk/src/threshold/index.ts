/**
 * Threshold mode: the secret of the app key split among realms of independent operators, so that none of them, not even
 * with root on its host, can open it. An entry of its own, `@custodyd/sdk/threshold`: an app that does not import it
 * does not load it.
 */
export { convertToGroup, convertToSingle, finishConversion } from "./convert.js";
export { enrolAtAll, groupEnrolmentPending } from "./enrol.js";
export type { GroupEnrolOptions } from "./enrol.js";
export { RealmsFailed } from "./failures.js";
export type { Outcome, RealmAnswer } from "./failures.js";
export { atEach, forgetGroup, lockGroup, openGroup, unlockedOf } from "./group.js";
export type { Asking, Group, GroupOptions } from "./group.js";
export { recover } from "./recover.js";
export type { Ask, Recovered, RecoverOptions } from "./recover.js";
export { refreshShares } from "./refresh.js";
export type { Refreshed } from "./refresh.js";
export { SHARE } from "./stored.js";
