/**
 * An answer that has the session anew. It takes the place of the one that asked for it, and of no other: whoever has signed in to
 * another account meanwhile, or out, would send what is theirs with this one's token. Called before the request by all of
 * `demand/` that gets such an answer.
 */
import type { Custody } from "../custody.js";
import type { Schemas } from "../transport.js";

/** What takes the answer's session up. */
export function goingOn({ transport }: Custody): (next: Schemas["SessionToken"]) => void {
  const { session } = transport;
  return (next) => {
    if (transport.session === session) transport.session = next;
  };
}
