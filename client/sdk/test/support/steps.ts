/** What happens while a call waits for WebCrypto, for the storage or for the network: at each of these steps, one run each. */
import type { Custody } from "../../src/custody.js";

const CALLS = ["importKey", "exportKey", "deriveBits", "encrypt", "decrypt", "digest", "sign"];

type Step = () => void;

/** Calls `step` whenever something is waited for, until it is undone. */
function watched(custody: Custody, step: Step): () => void {
  const subtle = crypto.subtle as unknown as Record<string, unknown>;
  for (const name of CALLS) {
    const call = (subtle[name] as (...given: unknown[]) => unknown).bind(crypto.subtle);
    const value = (...given: unknown[]) => {
      const waits = call(...given);
      step();
      return waits;
    };
    Object.defineProperty(subtle, name, { configurable: true, value });
  }
  const { storage, transport } = custody;
  const { fetcher } = transport as unknown as { fetcher: typeof fetch };
  const update: typeof storage.update = (keys, change) => {
    const waits = storage.update(keys, change);
    step();
    return waits;
  };
  const asking = ((...call: Parameters<typeof fetch>) => {
    const waits = fetcher(...call);
    step();
    return waits;
  }) as typeof fetch;
  Object.assign(custody, { storage: { ...storage, update } });
  Object.assign(transport, { fetcher: asking });
  return () => {
    for (const name of CALLS) Reflect.deleteProperty(subtle, name);
    Object.assign(custody, { storage });
    Object.assign(transport, { fetcher });
  };
}

/** What came of a call. */
export interface Outcome<T> {
  /** Whether the step was reached. */
  readonly reached: boolean;
  readonly value: T | undefined;
  readonly error: unknown;
}

/** Does `act` while the call waits for its nth step. */
export async function atStep<T>(
  custody: Custody,
  nth: number,
  act: () => void,
  call: () => Promise<T>,
): Promise<Outcome<T>> {
  let [steps, isSameTurn] = [0, false];
  const end = watched(custody, () => {
    // What is begun in one turn is waited for together.
    if (isSameTurn) return;
    isSameTurn = true;
    queueMicrotask(() => {
      isSameTurn = false;
    });
    steps += 1;
    if (steps === nth) act();
  });
  try {
    const [value, error] = await call().then(
      (value) => [value, undefined] as const,
      (error: unknown) => [undefined, error] as const,
    );
    return { reached: steps >= nth, value, error };
  } finally {
    end();
  }
}
