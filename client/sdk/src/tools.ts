/**
 * Loads what is not needed each time an app is opened (`demand/`), and hands it what it uses of the rest.
 */
import {
  be32,
  bytesOf,
  concat,
  equal,
  fields,
  fromBase64Url,
  fromUtf8,
  hkdf,
  random,
  sha256,
  toBase64Url,
  toHex,
  utf8,
} from "./bytes.js";
import { forgetDevice, KEPT, keepAccount, lock, ourRecord, ours } from "./custody.js";
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
import { OFFLINE, PIN, slotsOf } from "./offline/kept.js";
import { lostKey, of, queuedOf } from "./offline/changes.js";
import { CODES, setPin } from "./factors.js";
import { keepOfflineByPasskey, keepPin, openPinSlot, pinSlot } from "./offline/slots.js";
import { done } from "./offline/sync.js";
import { signJws, thumbprint } from "./jose.js";
import {
  checkLog,
  hashes,
  linked,
  LOG,
  remembered,
  takeReceipt,
  unproven,
} from "./receipts/log.js";
import { includes, leafHash } from "./receipts/merkle.js";
import { verifyBinding, verifyCheckpoint } from "./receipts/realm.js";
import { nextRevision, SEEN } from "./revisions.js";
import { ROTATION } from "./rotation.js";
import { getSecret, put, released, unlock } from "./secrets.js";
import { accountOf, afterwards, demandBound, keepAppKey } from "./session.js";
import { openReadOnly, signInWithPin } from "./sign-in.js";
import { indexedDbStorage } from "./storage/indexeddb.js";
import { isSound } from "./storage/sound.js";
import { isFor, openContent, sealContent, sealSlot } from "./slots.js";
import { opensNow } from "./unlock.js";
import {
  APP_KEY,
  chained,
  DEVICE_SECRET,
  forget,
  givesServerSlot,
  hold,
  isMoving,
  noted,
  opened,
  opensToDaemon,
  openSecret,
  openWith,
  PENDING,
  placeOf,
  remember,
  sealedSecret,
} from "./vault.js";

import {
  answer,
  asked,
  credentials,
  decoded,
  descriptors,
  extensions,
  text,
  usePasskey,
  usePrf,
} from "./webauthn.js";

/** All of it. */
export const tools = () => ({
  ...{ be32, concat, equal, fields, fromBase64Url, random, sha256, toBase64Url, KEPT },
  ...{ AuthenticationFailed, CanNotOpen, CustodyError, NotReady, Refused, StepUpRequired },
  ...{ Untrusted, VersionConflict, WrongGuess, Unlocked, nextRevision, SEEN, put },
  ...{ isFor, openContent, sealContent, sealSlot },
  ...{
    APP_KEY,
    chained,
    DEVICE_SECRET,
    PENDING,
    forget,
    givesServerSlot,
    hold,
    isMoving,
    remember,
  },
  ...{ noted, opened, opensToDaemon, openWith, placeOf, sealedSecret },
  ...{ opensKept, seal, SECRET_BYTES, unsealed: open, WRAPPED, wrappingKey },
  ...{ demandBound, keepAppKey, keepOfflineByPasskey, OFFLINE, PIN, slotsOf, forgetDevice, lock },
  ...{
    ourRecord,
    ours,
    accountOf,
    afterwards,
    checkLog,
    keepAccount,
    signJws,
    takeReceipt,
    thumbprint,
  },
  ...{ verifyBinding, indexedDbStorage, isSound },
  ...{ aesKey, fromUtf8, hkdf, utf8 },
  ...{ hashes, linked, LOG, remembered, unproven, includes, leafHash, verifyCheckpoint },
  ...{ toHex, done, getSecret, openSecret, released, lostKey, of, queuedOf },
  ...{ keepPin, openPinSlot, pinSlot, setPin, signInWithPin, openReadOnly },
  ...{ unlock, opensNow, ROTATION, CODES, usePasskey, usePrf },
  ...{ answer, asked, bytesOf, credentials, decoded, descriptors, extensions, text },
});

/** What `demand/` is handed. */
export type Tools = ReturnType<typeof tools>;

/** The modules that are loaded when they are needed. */
export async function onDemand() {
  const loaded = await loading(import("./demand/index.js"));
  loaded.use(tools());
  return loaded;
}
