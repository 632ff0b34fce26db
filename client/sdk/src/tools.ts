/**
 * Loads what is not needed each time an app is opened (`demand/`), and hands it what it uses of the rest.
 */
import { equal, fromBase64Url, random, toBase64Url } from "./bytes.js";
import { KEPT } from "./custody.js";
import {
  AuthenticationFailed,
  CanNotOpen,
  CustodyError,
  NotReady,
  Refused,
  StepUpRequired,
  Unreachable,
  Untrusted,
  VersionConflict,
  WrongGuess,
} from "./errors.js";
import { Unlocked } from "./keys.js";
import { nextRevision } from "./revisions.js";
import { put } from "./secrets.js";
import {
  isFor,
  openContent,
  opensWithoutPrf,
  pinCredential,
  sealContent,
  sealSlot,
} from "./slots.js";
import {
  APP_KEY,
  DEVICE_SECRET,
  forget,
  givesServerSlot,
  hold,
  isMoving,
  making,
  noted,
  nothingPending,
  opened,
  opensToDaemon,
  openWith,
  PENDING,
  placeOf,
  sealedSecret,
} from "./vault.js";

/** All of it. */
export const tools = () => ({
  ...{ equal, fromBase64Url, random, toBase64Url, KEPT },
  ...{ AuthenticationFailed, CanNotOpen, CustodyError, NotReady, Refused, StepUpRequired },
  ...{ Untrusted, VersionConflict, WrongGuess, Unlocked, nextRevision, put },
  ...{ isFor, openContent, opensWithoutPrf, pinCredential, sealContent, sealSlot },
  ...{ APP_KEY, DEVICE_SECRET, PENDING, forget, givesServerSlot, hold, isMoving, making },
  ...{ noted, nothingPending, opened, opensToDaemon, openWith, placeOf, sealedSecret },
});

/** What `demand/` is handed. */
export type Tools = ReturnType<typeof tools>;

/** The modules that are loaded when they are needed. */
export async function onDemand() {
  const loaded = await import("./demand/index.js").catch((cause: unknown) => {
    throw new Unreachable("a part of this package could not be loaded", { cause });
  });
  loaded.use(tools());
  return loaded;
}
