// What a body knows of itself: its run, key, attempt, token, input, and the signal that asks it to stop.

import { idempotencyToken } from "./hashing.js";
import { LazySignal } from "./lazy_signal.js";
import type { RunTrace } from "./trace.js";
import type { Failure } from "./v1/common_pb.js";

/** Given to the body of a step. */
export interface StepContext<I = undefined> {
  readonly runId: string;
  readonly key: string;
  /** Which execution this is, from 1. */
  readonly attempt: number;
  /** The failure of the attempt before. */
  readonly lastError: Failure | undefined;
  /** The same for every attempt of this step: an idempotency key for the services that the body calls. */
  readonly token: string;
  /** Aborted when the body should stop: at its time-out, when its run is cancelled or moves, when its key is given up. */
  readonly signal: AbortSignal;
  /** `input` of the call. */
  readonly input: I;
}

/** A body that the worker executes now. Its end is reported with Reentry.finish(key, attempt, …). */
export interface Body {
  readonly runId: string;
  readonly functionId: string;
  readonly key: string;
  readonly attempt: number;
  readonly lastError: Failure | undefined;
  readonly input: unknown;
  /** 0: none. */
  readonly timeoutMs: number;
  readonly execute: (context: StepContext<never>) => unknown;
  readonly trace?: RunTrace | undefined;
}

/** The context of an execution. Its signal and token are made when they are first asked for: most bodies use neither. */
export class BodyContext implements StepContext<unknown> {
  readonly runId: string;
  readonly key: string;
  readonly attempt: number;
  readonly lastError: Failure | undefined;
  readonly input: unknown;
  readonly #stop = new LazySignal();

  constructor(body: Body) {
    this.runId = body.runId;
    this.key = body.key;
    this.attempt = body.attempt;
    this.lastError = body.lastError;
    this.input = body.input;
  }

  get token(): string {
    return idempotencyToken(this.runId, this.key);
  }

  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  /** Asks the body to stop. */
  abort(reason: unknown): void {
    this.#stop.abort(reason);
  }
}
