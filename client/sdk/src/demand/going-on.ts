/**
 * An answer that has the session anew. It takes the place of the one that asked for it, and of no other: whoever has signed in to
 * another account meanwhile, or out, would send what is theirs with this one's token. Called before the request by all of
 * `demand/` that gets such an answer.
 *
 * Another token need not be another sign-in: `refreshSession` renews the one that asked, and a changed PIN then ends what it has
 * renewed. Renewing moves neither whose session it is, nor its factor, nor when that was shown, which `fresh_until` counts from.
 */
import type { Custody } from "../custody.js";
import type { Schemas } from "../transport.js";

/** What takes the answer's session up. */
export function goingOn(custody: Custody): (next: Schemas["SessionToken"]) => void {
  const { transport } = custody;
  const signedIn = () => {
    const { factor, scope, fresh_until: until } = transport.session ?? {};
    return transport.session && [custody.account?.account, factor, scope, until].join();
  };
  const { session } = transport;
  const before = signedIn();
  return (next) => {
    const isRenewed = session && signedIn() === before;
    if (transport.session === session || isRenewed) transport.session = next;
  };
}
