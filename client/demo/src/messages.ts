/** What pages and service worker say to each other. */

/** A page, to the service worker of a new version that waits: that it shall not wait any more. */
export const TAKE_OVER = "take-over";
/** The service worker, to a page: there is a network again. */
export const AWAKE = "awake";
/** Under which name a page asks to be woken. */
export const SEND = "send";
