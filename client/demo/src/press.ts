/**
 * A press that is going on: a page that is drawn between a press and its release would take the click along, as what was
 * pressed is not there any more when the finger leaves it.
 */

/** No press of a button lasts longer; whose end was not heard, over another window, holds nothing up for good. */
const LONGEST = 2000;

let pressed: Promise<void> | undefined;

/** From now on presses are known of. */
export function followPresses(): void {
  addEventListener("pointerdown", () => {
    const press = new Promise<void>((resolve) => {
      // The click comes after this.
      const end = (): void => void setTimeout(resolve);
      for (const name of ["pointerup", "pointercancel"])
        addEventListener(name, end, { once: true });
      setTimeout(resolve, LONGEST);
    });
    pressed = press;
  });
}

/** Until nothing is pressed. */
export async function released(): Promise<void> {
  await pressed;
}
