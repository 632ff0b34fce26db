/**
 * Keys of a Progressive Web App in the custody of custodyd.
 *
 * Open a custody, then call functions on it. README.md has the whole way, with examples.
 */
export * from "./account.js";
export { advice } from "./advice.js";
export { forgetDevice, isBound, lock, openCustody } from "./custody.js";
export type { AccountRecord, Custody, CustodyOptions } from "./custody.js";
export { abandonEnrolment, enrol, enrolmentPending } from "./enrol.js";
export type { EnrolOptions } from "./enrol.js";
export * from "./errors.js";
export * from "./factors.js";
export type { PublicJwk } from "./jose.js";
export { open as openData, seal as sealData } from "./keys.js";
export type { Unlocked } from "./keys.js";
export type { RecoveryCode } from "./demand/recovery-codes.js";
export {
  acceptNewLog,
  checkLog,
  newestCheckpoint,
  verifiedEvents,
  verifyReceipt,
} from "./receipts/log.js";
export { keepOfflineByPasskey, dropOffline, offlineState } from "./offline/slots.js";
export { unlockOfflineByPasskey, unlockOfflineByPin } from "./offline/slots.js";
export type { OfflineState } from "./offline/slots.js";
export { changePinOffline, keepOfflineByPin, settlePin } from "./offline/pin.js";
export { dropLost, laterWins, lostVersions, pendingChanges } from "./offline/changes.js";
export type { Base, Conflict, Lost, Rule } from "./offline/changes.js";
export { loadSecret, saveSecret } from "./offline/queue.js";
export type { Known } from "./offline/queue.js";
export { sync } from "./offline/sync.js";
export type { Synced, Unopened } from "./offline/sync.js";
export { reportOffline } from "./offline/report.js";
export { repairDevice } from "./repair.js";
export type { Repaired } from "./repair.js";
export { resumeRotation, rotateSecret, rotationPending, rotationSeen } from "./rotation.js";
export type { Rotated } from "./rotation.js";
export { closedWays, moveSecrets } from "./upkeep.js";
export type { Closed, Upkeep } from "./upkeep.js";
export { openSecret } from "./vault.js";
export { verifyBinding, verifyCheckpoint } from "./receipts/realm.js";
export type { Binding, Checkpoint, RealmTrust } from "./receipts/realm.js";
export * from "./secrets.js";
export type { SignedIn, Undone } from "./session.js";
export * from "./sign-in.js";
export { indexedDbStorage } from "./storage/indexeddb.js";
export { memoryStorage } from "./storage/memory.js";
export type { Storage, Update } from "./storage/storage.js";
export type { Schemas } from "./transport.js";
export type { PrfKey } from "./webauthn.js";
