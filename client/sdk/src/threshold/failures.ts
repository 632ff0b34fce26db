/**
 * What each realm of a group answered, and the error that says so where it was not enough.
 */
import { CustodyError, Exhausted, MustWait, Refused, Unreachable, WrongGuess } from "../errors.js";

/**
 * What came of one realm.
 *
 * - `done`: it did what it was asked, and where that was a share, gave a good one.
 * - `other-set`: its share is genuine and of another set than the one that was used: a refresh has not
 *   reached it, or it was put back to an older state. `refreshShares` mends it.
 * - `wrong`: what it gave is not what the owner's device stored there. Nobody else can have done that.
 * - `nothing`: it has no share.
 * - `refused`, `unreachable`, `failed` on this side: see `error`.
 * - `not-asked`: enough had answered, or an earlier step failed.
 */
export type Outcome =
  | "done"
  | "other-set"
  | "wrong"
  | "nothing"
  | "refused"
  | "unreachable"
  | "failed"
  | "not-asked";

/** What one realm answered. */
export interface RealmAnswer {
  readonly realm: string;
  readonly outcome: Outcome;
  readonly error?: CustodyError;
}

/** Not all realms, or not enough of them, did what was asked. */
export class RealmsFailed extends CustodyError {
  override readonly name = "RealmsFailed";
  constructor(
    code: "too-few-shares" | "realms-failed" | "refresh-unfinished",
    message: string,
    /** Of each realm of the group, in its order. */
    readonly answers: readonly RealmAnswer[],
  ) {
    const cause = mostTelling(answers);
    super(code, `${message} (${told(answers)})`, cause ? { cause } : undefined);
  }

  /** Names of the realms with this outcome. */
  realms(outcome: Outcome): string[] {
    return this.answers.filter((one) => one.outcome === outcome).map(({ realm }) => realm);
  }
}

function told(answers: readonly RealmAnswer[]): string {
  return answers
    .map(({ realm, outcome, error }) => `${realm}: ${outcome}${error ? `, ${error.code}` : ""}`)
    .join("; ");
}

/** The error that its owner can do most about; none where realms only did not answer. */
function mostTelling(answers: readonly RealmAnswer[]): CustodyError | undefined {
  const errors = answers.flatMap(({ error }) => (error ? [error] : []));
  const wrong = errors.filter((error) => error instanceof WrongGuess);
  wrong.sort((one, other) => one.attemptsLeft - other.attemptsLeft);
  const waits = (error: CustodyError) => error instanceof MustWait || error instanceof Exhausted;
  return wrong[0] ?? errors.find(waits) ?? errors.find((error) => !(error instanceof Unreachable));
}

/** What an error says of the realm that it came from. Errors that are none of ours are thrown. */
export function answerOf(realm: string, error: unknown): RealmAnswer {
  if (!(error instanceof CustodyError)) throw error;
  const outcome =
    error instanceof Unreachable ? "unreachable" : error instanceof Refused ? "refused" : "failed";
  return { realm, outcome, error };
}
