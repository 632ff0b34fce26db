/** What a page says to the service worker of a new version that waits: that it shall not wait any more. */
export const TAKE_OVER = "take-over";
