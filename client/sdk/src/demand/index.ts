/** What is not needed each time an app is opened: PINs by OPAQUE, recovery codes, changes of factors, and slots that are to be mended or moved. */
export { setCodes } from "./codes.js";
export { closedWays } from "./moving.js";
export { login, registerPin } from "./opaque.js";
export { addPasskey } from "./passkey.js";
export { codeCredential, parseRecoveryCode } from "./recovery-codes.js";
export { removing } from "./removal.js";
export { rewrapping } from "./rewrap.js";
export { rotate } from "./rotate.js";
export { use } from "./t.js";
export { missing, tend } from "./upkeep.js";
