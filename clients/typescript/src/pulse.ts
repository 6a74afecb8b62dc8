// When a stream last gave a sign of life, for both threads: what came on one that overslept may be older than the lease.

const BEAT_AT = 0;
const TRUSTED_MS = 1;

/** Shared memory of two numbers. The I/O thread beats; each thread judges by itself, before it applies a frame. */
export class Pulse {
  readonly #cells: Float64Array;

  constructor(readonly memory = new SharedArrayBuffer(2 * Float64Array.BYTES_PER_ELEMENT)) {
    this.#cells = new Float64Array(memory);
  }

  /** Notes a sign of life; returns how long ago the last one was, in ms. */
  beat(): number {
    const before = this.#cells[BEAT_AT] ?? 0;
    const now = nowMs();
    this.#cells[BEAT_AT] = now;
    return now - before;
  }

  /** For so long without a beat the stream is to be trusted. */
  trust(ms: number): void {
    this.#cells[TRUSTED_MS] = ms;
  }

  /**
   * So long without a heartbeat from here that the runs may be elsewhere: the process was frozen, or the stream has ended.
   * It stays so: nothing of the stream is applied any more (H12c).
   */
  get overslept(): boolean {
    const trustedMs = this.#cells[TRUSTED_MS] ?? 0;
    return trustedMs > 0 && nowMs() - (this.#cells[BEAT_AT] ?? 0) > trustedMs;
  }
}

/** Of a clock that both threads read alike; that of performance.now() begins with the thread. */
function nowMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
