// What is random in a run: drawn from its id as proto/README.md says, the same in each replay and language.

import { createHash } from "node:crypto";

/** The random numbers and ids of a run. */
export class RunRandom {
  readonly #runId: string;
  #numbers = 0;
  #uuids = 0;

  constructor(runId: string) {
    this.#runId = runId;
  }

  /** The next number in [0, 1). */
  random(): number {
    const word = this.#drawn("random", this.#numbers++).readBigUInt64BE();
    return Number(BigInt.asUintN(53, word)) / 2 ** 53;
  }

  /** The next id, of version 4. */
  uuid(): string {
    const bytes = this.#drawn("uuid", this.#uuids++);
    bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
    bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
    const hex = bytes.toString("hex", 0, 16);
    return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
  }

  #drawn(purpose: string, n: number): Buffer {
    return createHash("sha256").update(`${this.#runId}\0${purpose}\0${n}`).digest();
  }
}
