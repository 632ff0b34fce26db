/**
 * A device that was lost: it is removed, and the notebook gets another secret, so that what the device knows of the one of
 * before opens nothing that is written from now on.
 */
import * as sdk from "@custodyd/sdk";
import { type Child, dialog, h } from "./dom.js";
import { model, sealAnew } from "./model.js";
import { told } from "./upkeep.js";
import { showCodes } from "./welcome.js";

/** A button whose work may need a stronger sign-in, as `settings.ts` has it. */
export type Act = (
  text: string,
  work: () => unknown,
  properties?: { class: string },
) => HTMLElement;

/** Renews the secret, and shows the codes that come with it. */
export async function renew(redraw: () => void): Promise<void> {
  const { custody } = model;
  const { codes, closed } = model.renewing
    ? await sdk.resumeRotation(custody)
    : await sdk.rotateSecret(custody);
  await told(closed);
  await sealAnew();
  showCodes(codes, redraw, "Your notebook has another secret now. Codes from before are void.");
}

const WORDS: readonly string[] = [
  "Your notebook gets another secret. Whoever has the one of before, from a lost device for instance, opens nothing that you write from now on.",
  "Your recovery codes are void then, and you get new ones. Your other devices go on once you unlock them.",
];

/** Asks before it is done; `device` is removed first, where one is named. */
export function askToRenew(
  act: Act,
  redraw: () => void,
  device?: { id: string; name: string },
): void {
  const gone: Child =
    device !== undefined &&
    h(
      "p",
      {},
      `${device.name} will be removed. If it had a passkey of its own, remove that too, and change the PIN if somebody may have seen it.`,
    );
  dialog(device ? "Was this device lost?" : "Renew the secret?", (close) => [
    gone,
    ...WORDS.map((text) => h("p", { class: device ? "soft" : "" }, text)),
    act(
      device ? "Remove it, renew the secret" : "Renew the secret",
      async () => {
        if (device) await removed(device.id);
        await renew(redraw);
        close();
      },
      { class: "danger wide" },
    ),
  ]);
}

/** It may be gone already, where this was interrupted. */
async function removed(id: string): Promise<void> {
  try {
    await sdk.removeDevice(model.custody, id);
  } catch (error) {
    if (!(error instanceof sdk.Refused) || error.code !== "not-found") throw error;
  }
}
