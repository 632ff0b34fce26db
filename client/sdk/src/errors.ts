/**
 * Everything that can go wrong, as types that an app can branch on.
 *
 * `code` is stable. Where the daemon refused, it is the problem document's own (RFC 9457), and the
 * class says which members it brings. What this side found wrong has codes of its own.
 * `advice.ts` has a sentence for a person for each of them.
 */

/** What an error of this package is at least. */
export class CustodyError extends Error {
  override readonly name: string = "CustodyError";
  /** @param code stable; branch on it  @param message for a developer */
  constructor(
    readonly code: string,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** What went wrong, as an error of this package. */
export function failure(cause: unknown): CustodyError {
  return cause instanceof CustodyError
    ? cause
    : new CustodyError("unexpected", String(cause), { cause });
}

/** A problem document: `application/problem+json`. */
export interface Problem {
  readonly code: string;
  readonly status: number;
  readonly detail: string;
  readonly [more: string]: unknown;
}

/** The daemon answered, and said no. */
export class Refused extends CustodyError {
  override readonly name: string = "Refused";
  readonly status: number;
  /** When it is worth another try. */
  readonly retryAt: Date | undefined;

  constructor(readonly problem: Problem) {
    super(problem.code, problem.detail);
    this.status = problem.status;
    this.retryAt = retryAt(problem);
  }
}

/** A PIN or code was wrong. */
export class WrongGuess extends Refused {
  override readonly name = "WrongGuess";
  /** How many are left before the next wait or the end. */
  get attemptsLeft(): number {
    return number(this.problem["attempts_left"]) ?? 0;
  }
  /** No more guesses until another factor resets this one. */
  get exhausted(): boolean {
    return this.problem["exhausted"] === true;
  }
}

/** Nothing was tried: first there is a wait, which `retryAt` ends. */
export class MustWait extends Refused {
  override readonly name = "MustWait";
}

/** All guesses are used up: another factor has to reset this one. */
export class Exhausted extends Refused {
  override readonly name = "Exhausted";
}

/** Not signed in, or not from a device that may: the daemon tells strangers nothing more. */
export class AuthenticationFailed extends Refused {
  override readonly name = "AuthenticationFailed";
}

/** The session is over; sign in again. */
export class SessionOver extends Refused {
  override readonly name = "SessionOver";
}

/** The session is too weak or too old for this, or may not read the secret that it would change. */
export class StepUpRequired extends Refused {
  override readonly name = "StepUpRequired";
  /** The weakest factor that would do. */
  get needAtLeast(): string | undefined {
    const factor = this.problem["need_at_least"];
    return typeof factor === "string" ? factor : undefined;
  }
  /** The account's factors that would do, where that is told: who may read a secret may change it. */
  get needOneOf(): readonly string[] {
    const factors = this.problem["need_one_of"];
    return Array.isArray(factors) ? factors.map(String) : [];
  }
  /** Whether that factor must have been shown just now. */
  get needFresh(): boolean {
    return this.problem["need_fresh"] === true;
  }
}

/** Another version is stored by now. */
export class VersionConflict extends Refused {
  override readonly name = "VersionConflict";
  /** The version that is there; undefined where there is none. */
  get currentVersion(): number | undefined {
    return number(this.problem["current_version"]);
  }
}

/** No answer: offline, or the daemon is down. Nothing is known about what became of the request. */
export class Unreachable extends CustodyError {
  override readonly name = "Unreachable";
  constructor(message: string, options?: ErrorOptions) {
    super("unreachable", message, options);
  }
}

/** Whether the daemon is out of reach, or says that it can do nothing now. What it found altered is no such thing. */
export const isAway = (error: unknown): boolean =>
  error instanceof Unreachable ||
  (error instanceof Refused && error.status >= 500 && !error.code.endsWith("tampered"));

/** A part of this package that is loaded when it is needed. */
export function loading<T>(part: Promise<T>): Promise<T> {
  return part.catch((cause: unknown) => {
    throw new Unreachable("a part of this package could not be loaded", { cause });
  });
}

/** Why a proof of the realm's was not believed. */
export type Doubt =
  | "signature-wrong"
  | "key-unknown"
  | "shape-wrong"
  | "not-included"
  | "not-consistent"
  | "log-shrank"
  | "other-log"
  | "event-missing"
  | "statement-differs"
  | "older-secret"
  | "stretching-weak"
  | "stretching-excessive";

/** The daemon showed, or asked for, something that no honest one does. Keep `evidence`. */
export class Untrusted extends CustodyError {
  override readonly name = "Untrusted";
  constructor(
    readonly doubt: Doubt,
    message: string,
    readonly evidence: readonly string[] = [],
  ) {
    super("untrusted", message);
  }
}

/** What the browser keeps could not be read or written. */
export class StorageFailed extends CustodyError {
  override readonly name = "StorageFailed";
  constructor(
    code: "storage-unavailable" | "storage-damaged",
    message: string,
    options?: ErrorOptions,
  ) {
    super(code, message, options);
  }
}

/** The authenticator did not do what it was asked. */
export class PasskeyFailed extends CustodyError {
  override readonly name = "PasskeyFailed";
  constructor(
    code:
      | "passkey-cancelled"
      | "passkey-unsupported"
      | "passkey-exists"
      | "prf-missing"
      | "passkey-failed",
    message: string,
    options?: ErrorOptions,
  ) {
    super(code, message, options);
  }
}

/** The app asked for something in a state in which it can not be. */
export class NotReady extends CustodyError {
  override readonly name = "NotReady";
  constructor(
    code:
      | "no-account"
      | "other-account"
      | "already-enrolled"
      | "not-signed-in"
      | "locked"
      | "nothing-backed-up"
      | "no-offline-slot"
      | "prf-only-slot"
      | "slot-factor-missing",
    message: string,
    options?: ErrorOptions,
  ) {
    super(code, message, options);
  }
}

/** What was typed, or what was stored, does not open. */
export class CanNotOpen extends CustodyError {
  override readonly name = "CanNotOpen";
  constructor(
    code:
      | "code-mistyped"
      | "secret-damaged"
      | "no-slot"
      | "unsealed"
      | "server-slot-withheld"
      | "offline-pin-wrong"
      | "pin-weak",
    message: string,
  ) {
    super(code, message);
  }
}

function number(value: unknown): number | undefined {
  return typeof value === "number" ? value : undefined;
}

/** Undefined also where it is no time at all: whoever formats it is not to be thrown out by what a daemon writes. */
function retryAt(problem: Problem): Date | undefined {
  const seconds = number(problem["retry_after"]);
  const at = number(problem["wait_until"]) ?? number(problem["due"]) ?? NaN;
  const date = new Date(seconds === undefined ? at * 1000 : Date.now() + seconds * 1000);
  return Number.isNaN(date.getTime()) ? undefined : date;
}

/** The error of a problem document. */
export function refused(problem: Problem): Refused {
  const { code } = problem;
  if (code.endsWith("-wrong")) return new WrongGuess(problem);
  if (code.endsWith("-exhausted")) return new Exhausted(problem);
  if (code === "authentication-failed") return new AuthenticationFailed(problem);
  if (code === "step-up-required") return new StepUpRequired(problem);
  if (code === "precondition-failed") return new VersionConflict(problem);
  if (/^session-(missing|invalid|expired|ended)$/.test(code)) return new SessionOver(problem);
  if (problem.status === 429 || code === "recovery-waits") return new MustWait(problem);
  return new Refused(problem);
}
