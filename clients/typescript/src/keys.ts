// Keys of a run's steps: a name's first call is the name itself, later ones are `name:2`, `name:3` (H5).

import { LimitError, UsageError } from "./errors.js";
import type { Limits } from "./v1/step_pb.js";

const KEY_BYTES_DEFAULT = 128;
const FORBIDDEN = /^$|^\$|[\p{Cc}\p{Cs}#]/u;

/** The keys given so far, in one run of the code. */
export class Keys {
  readonly #counts = new Map<string, number>();
  readonly #given = new Set<string>();
  readonly #keyBytes: number;
  readonly #stepsMax: number;

  constructor(limits: Limits) {
    this.#keyBytes = limits.keyBytes || KEY_BYTES_DEFAULT;
    this.#stepsMax = limits.journalSteps;
  }

  has(key: string): boolean {
    return this.#given.has(key);
  }

  /** The key of the next call of this name. Throws UsageError or LimitError. */
  give(name: string): string {
    if (typeof name !== "string" || FORBIDDEN.test(name)) {
      throw new UsageError(
        `step name ${JSON.stringify(name)} is empty, begins with "$", or holds "#" or a control character`,
      );
    }
    let count = (this.#counts.get(name) ?? 0) + 1;
    let key = count > 1 ? `${name}:${count}` : name;
    while (this.#given.has(key)) {
      // A step was named "charge:2" by hand.
      count += 1;
      key = `${name}:${count}`;
    }
    if (Buffer.byteLength(key) > this.#keyBytes) {
      throw new LimitError(
        `step name ${JSON.stringify(name.slice(0, 40))}… makes a key longer than ${this.#keyBytes} bytes (key_bytes)`,
      );
    }
    if (this.#stepsMax && this.#given.size >= this.#stepsMax) {
      throw new LimitError(`step ${key} is one more than the ${this.#stepsMax} steps of a run (journal_steps)`);
    }
    this.#counts.set(name, count);
    this.#given.add(key);
    return key;
  }
}
