/** What is not needed each time an app is opened: PINs by OPAQUE, changes of factors, and slots that are to be mended or moved. */
export { login, registerPin } from "./opaque.js";
export { removing, rewrapping } from "./rewrap.js";
export { use } from "./t.js";
export { missing, tend } from "./upkeep.js";
