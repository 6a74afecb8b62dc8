// The exception tree. Names and reasons are the same in every SDK.
//
// StepwellError
// ├── UsageError               the library was called wrongly
// │   ├── RegistrationError    a function was declared wrongly
// │   └── OutsideStepError     I/O, or a wait for something foreign, outside a step
// ├── SerializationError       a value has no JSON form, or JSON does not fit a schema
// ├── LimitError               a size or count the server does not accept
// ├── CancelledError           the run was cancelled, or its time is over: clean up and end
// ├── NonRetriableError        thrown by user code: do not try again
// ├── RetryAfterError          thrown by user code: try again after this long
// ├── WaitTimeoutError         a client stopped waiting; the run goes on
// ├── Interrupted              the reason of a body's signal
// ├── Fenced                   the run is no longer this worker's
// └── StepError                a step failed for good
//     ├── StepTimeoutError     its body took too long
//     └── InvokeError          an invoked function gave no output
//         ├── RunFailedError
//         ├── RunCancelledError
//         ├── RunTimedOutError
//         └── InvokeTimeoutError

import { type Duration, DurationError, toMs } from "./duration.js";
import type { Failure } from "./v1/common_pb.js";

/** Whatever Stepwell throws. `reason` is the machine-readable cause in UPPER_SNAKE; empty for what user code throws. */
export class StepwellError extends Error {
  readonly reason: string = "";
  readonly nonRetriable: boolean = false;
  static {
    // On the prototype: a subclass of a user then goes by its own name.
    this.prototype.name = "StepwellError";
  }
}

/** The library was called wrongly; trying again cannot help. */
export class UsageError extends StepwellError {
  override readonly reason: string = "BAD_USAGE";
  override readonly nonRetriable = true;
  static {
    this.prototype.name = "UsageError";
  }
}

/** A duration in milliseconds. Throws UsageError naming the option. */
export function durationMs(value: Duration, what: string): number {
  try {
    return toMs(value);
  } catch (error) {
    if (error instanceof DurationError) throw new UsageError(`${what}: ${error.message}`);
    throw error;
  }
}

/** A function was declared wrongly. Thrown by app.function. */
export class RegistrationError extends UsageError {
  override readonly reason = "BAD_REGISTRATION";
  static {
    this.prototype.name = "RegistrationError";
  }
}

/** The code does I/O, or waits for something foreign, outside a step. */
export class OutsideStepError extends UsageError {
  override readonly reason = "OUTSIDE_STEP";
  static {
    this.prototype.name = "OutsideStepError";
  }
}

/** A value has no JSON form, or JSON does not fit the schema that was given. */
export class SerializationError extends StepwellError {
  override readonly reason = "NOT_SERIALIZABLE";
  override readonly nonRetriable = true;
  static {
    this.prototype.name = "SerializationError";
  }
}

/** A size or count the server does not accept. */
export class LimitError extends StepwellError {
  override readonly reason = "TOO_LARGE";
  override readonly nonRetriable = true;
  static {
    this.prototype.name = "LimitError";
  }
}

/**
 * The run was cancelled, or its time is over: the message says which. Open calls reject with it; the code may run clean-up steps,
 * and then ends.
 */
export class CancelledError extends StepwellError {
  override readonly reason = "CANCELLED";
  static {
    this.prototype.name = "CancelledError";
  }
}

/** Throw it in a body or a function to fail at once, without another attempt. */
export class NonRetriableError extends StepwellError {
  override readonly nonRetriable = true;
  static {
    this.prototype.name = "NonRetriableError";
  }
}

/** Throw it in a body or a function to say when the next attempt makes sense. */
export class RetryAfterError extends StepwellError {
  readonly delayMs: number;

  constructor(delay: Duration, message = "", options?: ErrorOptions) {
    const delayMs = durationMs(delay, "RetryAfterError");
    super(message || `retry after ${delayMs} ms`, options);
    this.delayMs = delayMs;
  }

  static {
    this.prototype.name = "RetryAfterError";
  }
}

/** A client stopped waiting for the end of a run. The run goes on. */
export class WaitTimeoutError extends StepwellError {
  override readonly reason = "TIMEOUT";
  static {
    this.prototype.name = "WaitTimeoutError";
  }
}

/** The reason of a body's `signal`: its run was cancelled, or its key given up, or the run is no longer the worker's. */
export class Interrupted extends StepwellError {
  static {
    this.prototype.name = "Interrupted";
  }
}

/** The run is no longer this worker's: its code is unwound, and nothing it does reaches the server. */
export class Fenced extends StepwellError {
  static {
    this.prototype.name = "Fenced";
  }
}

/** What is known of a step that failed for good. */
export interface StepErrorFields {
  readonly key?: string;
  readonly failure?: Failure;
  readonly attempts?: number;
}

/** A step failed for good. `failure` is what its last attempt raised, in whatever language. */
export class StepError extends StepwellError {
  readonly key: string;
  readonly failure: Failure | undefined;
  readonly attempts: number;
  /** The class of what was raised first, in the language that raised it. */
  readonly type: string;
  /** Its text, without the key in front. */
  readonly text: string;

  constructor(text: string, { key = "", failure, attempts = 0 }: StepErrorFields = {}) {
    super(key ? `${key}: ${text}` : text);
    this.key = key;
    this.failure = failure;
    this.attempts = attempts;
    this.type = failure?.type ?? this.name;
    this.text = failure?.message ?? text;
  }

  static {
    this.prototype.name = "StepError";
  }
}

/** A body took longer than its time-out. */
export class StepTimeoutError extends StepError {
  override readonly reason = "TIMEOUT";
  static {
    this.prototype.name = "StepTimeoutError";
  }
}

/** An invoked function gave no output. */
export class InvokeError extends StepError {
  override readonly reason: string = "INVOKE_FAILED";
  static {
    this.prototype.name = "InvokeError";
  }
}

/** The run failed. */
export class RunFailedError extends InvokeError {
  override readonly reason = "RUN_FAILED";
  static {
    this.prototype.name = "RunFailedError";
  }
}

/** The run was cancelled. */
export class RunCancelledError extends InvokeError {
  override readonly reason = "CANCELLED";
  static {
    this.prototype.name = "RunCancelledError";
  }
}

/** A time-out of the invoked function was over before the run had started or ended. */
export class RunTimedOutError extends InvokeError {
  override readonly reason = "TIMED_OUT";
  static {
    this.prototype.name = "RunTimedOutError";
  }
}

/** The invoked function took longer than the time-out of the call. */
export class InvokeTimeoutError extends InvokeError {
  override readonly reason = "TIMEOUT";
  static {
    this.prototype.name = "InvokeTimeoutError";
  }
}
