/**
 * What the modules here use of the rest of the package, handed to them when they are loaded. Were they to import it, a
 * bundler would cut all of it in pieces for them.
 */
import type { Tools } from "../tools.js";

/** Handed over by `use`. */
export let t = undefined as unknown as Tools;

/** Called by `onDemand` before anything else. */
export function use(tools: Tools): void {
  t = tools;
}
