/** What is not needed each time an app is opened: PINs by OPAQUE, recovery codes, changes of factors, and slots that are to be mended or moved. */
export { addAppKey, bindThisDevice } from "./app-key.js";
export { backingUp } from "./back-up.js";
export { setCodes, unseenCodes } from "./codes.js";
export { resolve, settle } from "./conflicts.js";
export { closedWays } from "./moving.js";
export { begin, create, enrol } from "./enrol.js";
export { login, registerPin } from "./opaque.js";
export { addPasskey, confirmPasskey } from "./passkey.js";
export { codeCredential, parseRecoveryCode } from "./recovery-codes.js";
export { removeCodes, removePasskey, removePin } from "./removal.js";
export { repair } from "./repair.js";
export { rewrapping } from "./rewrap.js";
export { changeOffline, judgeOffline, settle as settlePin } from "./pin-change.js";
export { rotate } from "./rotate.js";
export { use } from "./t.js";
export { acceptNewLog, trail } from "./trail.js";
export { seen } from "./unseen.js";
export { missing, tend } from "./upkeep.js";
