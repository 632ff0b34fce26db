/**
 * A new set of recovery codes, with slots of the device secret in the same commit.
 *
 * Loaded by `../factors.ts`; `rotate.ts` sends them with another device secret. `unseen.ts` keeps them until they were seen.
 */
import type { Custody } from "../custody.js";
import type { SlotKey } from "../slots.js";
import type { Schemas } from "../transport.js";
import { along } from "./along.js";
import { goingOn } from "./going-on.js";
import { codeCredential, newRecoveryCodes, type RecoveryCode } from "./recovery-codes.js";
import { reread } from "./reread.js";
import { changing, type Rewrapping } from "./rewrap.js";
import { t } from "./t.js";
import { byUsedCode, cameAbout, dropVoid, sealed, sending, type Shelf } from "./unseen.js";
import { copied, locked } from "./wiped.js";

const shelf = (): Shelf => ({ name: t.CODES, label: "custodyd/sdk/codes/v1" });

/** Makes codes in place of all earlier ones. */
export function setCodes(custody: Custody): Promise<RecoveryCode[]> {
  return changing(custody, async (rewrap) => {
    const used = usedCode(custody);
    try {
      return await setting(custody, rewrap, used);
    } finally {
      used?.material.fill(0);
    }
  });
}

async function setting(
  custody: Custody,
  rewrap: Rewrapping,
  used: SlotKey | undefined,
): Promise<RecoveryCode[]> {
  const { codes, keys } = await freshCodes();
  const send = async (secrets: Record<string, Schemas["Rewrapped"]>): Promise<void> => {
    const key = rewrap.contentKey();
    const by = isOnly(rewrap, secrets) ? used : undefined;
    const set = key && (await sealed(shelf(), { codes }, key, by));
    await sending(custody, shelf(), set, () => sendCodes(custody, codes, secrets));
  };
  try {
    await along(custody, rewrap, keys, send);
  } catch (error) {
    const isNothing = error instanceof t.Refused ? error.status < 500 : error instanceof t.NotReady;
    // The account may have them: what this page still knows of the device secret is to open by them, too.
    if (!isNothing) for (const key of keys) rewrap.remember({ ...key, unsure: true });
    throw error;
  }
  await rewrap.done();
  // Those of before open nothing any more. One of these goes on opening it here, and is not taken for used.
  t.forget(custody, { type: "recovery-code" });
  if (used) rewrap.remember(used);
  const [first] = keys;
  if (first) rewrap.remember({ ...first, unsure: true });
  return codes;
}

/** The code that was used last, as a copy. Its owner has it, though its slot is gone. */
function usedCode({ slotKeys }: Custody): SlotKey | undefined {
  const last = slotKeys.filter(({ type, unsure }) => type === "recovery-code" && !unsure).at(-1);
  return last && { ...last, material: copied(last.material) };
}

/** Whether no other factor opens the device secret. */
function isOnly(
  { needsSlots }: Rewrapping,
  { [t.DEVICE_SECRET]: device }: Record<string, Schemas["Rewrapped"]>,
): boolean {
  const slots = device?.content?.slots ?? device?.slots ?? [];
  return needsSlots && slots.every(({ type }) => type === "recovery-code");
}

/** Those that were made here and perhaps not seen, where the account has them. */
export async function unseenCodes(
  custody: Custody,
  usedCode: string | undefined,
): Promise<RecoveryCode[] | undefined> {
  if (usedCode !== undefined) {
    const found = await byUsedCode(custody, shelf(), usedCode);
    return found.length > 0 ? found : undefined;
  }
  const { secrets } = await custody.transport.request("get", "/v1/account/secrets");
  const there = secrets.find(({ name }) => name === t.DEVICE_SECRET);
  // An enrolment whose first codes did not come about.
  if (!there) return undefined;
  // What is at hand may open no more by itself, where a code was used up for it.
  if (there.version !== custody.held?.version) await reread(custody);
  if (!custody.held) throw locked();
  const found = await cameAbout(custody, shelf(), custody.held);
  if (found) return [...found.codes];
  await dropVoid(custody, shelf());
  return undefined;
}

/** Codes, and what makes their slots. */
export async function freshCodes(): Promise<{ codes: RecoveryCode[]; keys: SlotKey[] }> {
  const codes = await newRecoveryCodes();
  const keys = codes.map(async ({ auth, slot: material }): Promise<SlotKey> => {
    return { type: "recovery-code", credential: await codeCredential(auth), material };
  });
  return { codes, keys: await Promise.all(keys) };
}

/** One commit: the codes, and the secrets that go along. The session goes on. */
export async function sendCodes(
  custody: Custody,
  codes: readonly RecoveryCode[],
  secrets: Record<string, Schemas["Rewrapped"]>,
): Promise<void> {
  const goOn = goingOn(custody);
  const body = { codes: codes.map(({ auth }) => t.toBase64Url(auth)), secrets };
  const answer = await custody.transport.request("post", "/v1/account/recovery-codes", { body });
  await t.demandBound(custody, "recovery-codes", answer.recovery_codes);
  goOn(answer.session);
}
