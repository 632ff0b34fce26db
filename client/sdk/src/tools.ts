/**
 * Loads what is not needed each time an app is opened (`demand/`), and hands it what it uses of the rest.
 */
import {
  be32,
  concat,
  equal,
  fields,
  fromBase64Url,
  fromUtf8,
  hkdf,
  random,
  sha256,
  toBase64Url,
  utf8,
} from "./bytes.js";
import { KEPT } from "./custody.js";
import {
  AuthenticationFailed,
  CanNotOpen,
  CustodyError,
  loading,
  NotReady,
  Refused,
  StepUpRequired,
  Untrusted,
  VersionConflict,
  WrongGuess,
} from "./errors.js";
import {
  aesKey,
  open,
  opensKept,
  seal,
  SECRET_BYTES,
  Unlocked,
  WRAPPED,
  wrappingKey,
} from "./keys.js";
import { OFFLINE, slotsOf } from "./offline/kept.js";
import { keepOfflineByPasskey } from "./offline/slots.js";
import { nextRevision } from "./revisions.js";
import { ROTATION, rotationSeen } from "./rotation.js";
import { put, unlock } from "./secrets.js";
import { demandBound, keepAppKey } from "./session.js";
import { isFor, openContent, opensWithoutPrf, sealContent, sealSlot } from "./slots.js";
import {
  APP_KEY,
  chained,
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

import { createPasskey, usePrf } from "./webauthn.js";

/** All of it. */
export const tools = () => ({
  ...{ be32, concat, equal, fields, fromBase64Url, random, sha256, toBase64Url, KEPT },
  ...{ AuthenticationFailed, CanNotOpen, CustodyError, NotReady, Refused, StepUpRequired },
  ...{ Untrusted, VersionConflict, WrongGuess, Unlocked, nextRevision, put },
  ...{ isFor, openContent, opensWithoutPrf, sealContent, sealSlot },
  ...{ APP_KEY, chained, DEVICE_SECRET, PENDING, forget, givesServerSlot, hold, isMoving, making },
  ...{ noted, nothingPending, opened, opensToDaemon, openWith, placeOf, sealedSecret },
  ...{ opensKept, seal, SECRET_BYTES, unsealed: open, WRAPPED, wrappingKey },
  ...{ demandBound, keepAppKey, keepOfflineByPasskey, OFFLINE, slotsOf },
  ...{ aesKey, fromUtf8, hkdf, utf8 },
  ...{ unlock, ROTATION, rotationSeen, createPasskey, usePrf },
});

/** What `demand/` is handed. */
export type Tools = ReturnType<typeof tools>;

/** The modules that are loaded when they are needed. */
export async function onDemand() {
  const loaded = await loading(import("./demand/index.js"));
  loaded.use(tools());
  return loaded;
}
