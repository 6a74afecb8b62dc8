// Runs that a client started: waiting for their end, and what they ended with.

import type { StandardSchemaV1 } from "@standard-schema/spec";
import type { Client } from "./client.js";
import * as codec from "./codec.js";
import type { Duration } from "./duration.js";
import { RunCancelledError, RunFailedError, RunTimedOutError, WaitTimeoutError, durationMs } from "./errors.js";
import { describe } from "./failure.js";
import type { Run as RunMessage } from "./v1/run_pb.js";
import { type Run, hasEnded, statusOf } from "./values.js";

/** One call waits at most this long; the server allows 55 s. */
const POLL_MS = 50_000;

/** How long a caller is willing to wait in all; undefined: for ever. */
export class Deadline {
  readonly #at: number;

  constructor(timeout: Duration | undefined) {
    this.#at = timeout === undefined ? Infinity : performance.now() + durationMs(timeout, "timeout");
  }

  /** How long the next call may wait on the server. */
  nextWaitMs(): number {
    return Math.round(Math.min(POLL_MS, Math.max(this.#at - performance.now(), 0)));
  }

  passed(): boolean {
    return performance.now() >= this.#at;
  }
}

/** A run that was started. */
export class RunHandle<Out> {
  readonly runId: string;
  #run: RunMessage;

  /** @internal */
  constructor(
    private readonly client: Client,
    run: RunMessage,
    private readonly output: StandardSchemaV1 | undefined,
  ) {
    this.#run = run;
    this.runId = run.id;
  }

  /** The output. Throws RunFailedError, RunCancelledError or RunTimedOutError; WaitTimeoutError if it goes on. */
  async result(timeout?: Duration): Promise<Out> {
    return this.wait(new Deadline(timeout));
  }

  /** The run as it is now, with what it waits for. */
  async status(): Promise<Run> {
    return this.client.getRun(this.runId);
  }

  /** See Client.cancelRun. */
  async cancel(reason = ""): Promise<Run> {
    return this.client.cancelRun(this.runId, reason);
  }

  /** @internal As `result`, with a deadline that began earlier. */
  async wait(deadline: Deadline): Promise<Out> {
    if (!hasEnded(statusOf(this.#run.status))) this.#run = await this.client.awaitEnd(this.runId, deadline);
    return outputOf(this.#run, this.output) as Out;
  }
}

/** The output of an ended run; throws what it ended with, or WaitTimeoutError if it has not. */
function outputOf(run: RunMessage, schema: StandardSchemaV1 | undefined): unknown {
  const status = statusOf(run.status);
  if (status === "COMPLETED")
    return codec.read(run.output?.data ?? new Uint8Array(), schema, `the output of ${run.id}`);
  if (!hasEnded(status)) throw new WaitTimeoutError(`${run.id} of ${run.functionId} has not ended; it is ${status}`);
  const said = run.failure === undefined ? status : describe(run.failure);
  const Kind = status === "CANCELLED" ? RunCancelledError : status === "TIMED_OUT" ? RunTimedOutError : RunFailedError;
  throw new Kind(`${run.id} of ${run.functionId}: ${said}`, run.failure && { failure: run.failure });
}
