// Failures: one shape for errors in every language, made from whatever was thrown, and errors made from them.

import { create, toBinary } from "@bufbuild/protobuf";
import {
  InvokeError,
  InvokeTimeoutError,
  RetryAfterError,
  RunCancelledError,
  RunFailedError,
  RunTimedOutError,
  StepError,
  StepTimeoutError,
  StepwellError,
} from "./errors.js";
import { type Failure, FailureSchema } from "./v1/common_pb.js";

const CAUSES_MAX = 10;
const FAILURE_BYTES_DEFAULT = 64 * 1024;
const STACK_LINES_MAX = 30;

/** The failure that describes what was thrown, no larger than maxBytes (0: the default limit of 64 KiB). */
export function toFailure(error: unknown, maxBytes = 0): Failure {
  const budget = maxBytes || FAILURE_BYTES_DEFAULT;
  const failure = describeThrown(error, CAUSES_MAX);
  if (size(failure) > budget) shrink(failure, budget);
  return failure;
}

function describeThrown(error: unknown, depth: number): Failure {
  const failure = create(FailureSchema, { type: typeOf(error), message: textOf(error).toWellFormed() });
  if (!(error instanceof Error)) {
    failure.stack = "(what was thrown is no Error, so it has no stack)";
    return failure;
  }
  failure.stack = stackOf(error).toWellFormed();
  if (error instanceof StepwellError) {
    failure.reason = error.reason;
    failure.nonRetriable = error.nonRetriable;
  }
  if (depth === 0) return failure;
  if (error instanceof StepError && error.failure !== undefined) {
    failure.cause = error.failure;
    return failure;
  }
  const cause = error.cause ?? (error instanceof AggregateError ? (error.errors as unknown[])[0] : undefined);
  if (cause !== undefined && cause !== error) failure.cause = describeThrown(cause, depth - 1);
  return failure;
}

/** The name of an error's class: the one it gives itself, else that of its constructor. */
function typeOf(error: unknown): string {
  if (!(error instanceof Error)) return error === null ? "null" : typeof error;
  const maker = error.constructor as { name?: unknown; prototype?: object } | undefined;
  const named =
    Object.hasOwn(error, "name") || (maker?.prototype !== undefined && Object.hasOwn(maker.prototype, "name"));
  const name: unknown = named ? error.name : maker?.name;
  return (typeof name === "string" && name) || "Error";
}

function textOf(error: unknown): string {
  try {
    // Whoever gets the failure knows the key.
    if (error instanceof StepError && error.failure === undefined) return error.text;
    return error instanceof Error ? error.message : String(error);
  } catch {
    return `<${typeOf(error)} whose text cannot be read>`;
  }
}

function stackOf(error: Error): string {
  const lines = (error.stack ?? "").split("\n");
  const first = lines.findIndex((line) => line.startsWith("    at "));
  return first < 0 ? "" : lines.slice(first, first + STACK_LINES_MAX).join("\n");
}

function size(failure: Failure): number {
  return toBinary(FailureSchema, failure).byteLength;
}

/** Cuts stacks, then causes, then the message, until the failure fits. */
function shrink(failure: Failure, budget: number): void {
  for (let node: Failure | undefined = failure; node !== undefined; node = node.cause) node.stack = "";
  if (size(failure) > budget) delete failure.cause;
  if (size(failure) > budget) delete failure.details;
  if (size(failure) > budget) {
    failure.message = `${cut(failure.message, Math.floor(budget / 2))} … (cut)`;
  }
  if (size(failure) > budget) {
    failure.type = failure.type.slice(0, 100);
    failure.reason = failure.reason.slice(0, 100);
    failure.message = "";
  }
}

function cut(text: string, bytes: number): string {
  const encoded = new TextEncoder().encode(text).subarray(0, bytes);
  return new TextDecoder().decode(encoded).replace(/\ufffd+$/, "");
}

/** When the error itself wants to be tried again. */
export function retryAfterMs(error: unknown): number | undefined {
  return error instanceof RetryAfterError ? error.delayMs : undefined;
}

/** The error that a failed body throws in the function. */
export function stepError(failure: Failure, key: string, attempts: number): StepError {
  const Kind = failure.reason === "TIMEOUT" ? StepTimeoutError : StepError;
  return new Kind(describe(innermost(failure)), { key, failure, attempts });
}

const INVOKE_ERRORS: Readonly<Record<string, typeof InvokeError>> = {
  RUN_FAILED: RunFailedError,
  CANCELLED: RunCancelledError,
  TIMED_OUT: RunTimedOutError,
  TIMEOUT: InvokeTimeoutError,
};

/** The error that an invoked run's failure throws in its parent. */
export function invokeError(failure: Failure, key: string, attempts: number): InvokeError {
  const Kind = INVOKE_ERRORS[failure.reason] ?? InvokeError;
  return new Kind(describe(innermost(failure)), { key, failure, attempts });
}

// Errors that only say which step or run another error came from.
const CARRIERS: ReadonlySet<string> = new Set([
  "StepError",
  "StepTimeoutError",
  "InvokeError",
  "RunFailedError",
  "RunCancelledError",
  "RunTimedOutError",
  "InvokeTimeoutError",
]);

/** What happened first, beneath the steps and invokes that only passed it on. */
export function innermost(failure: Failure): Failure {
  if (CARRIERS.has(failure.type) && failure.cause !== undefined) {
    const first = innermost(failure.cause);
    if (failure.message.endsWith(describe(first))) return first;
  }
  return failure;
}

/** One line for people. */
export function describe(failure: Failure): string {
  return failure.message ? `${failure.type}: ${failure.message}` : failure.type || "failed";
}
