// What a run ends with: the message, as a value.

import { create } from "@bufbuild/protobuf";
import * as codec from "./codec.js";
import { LimitError, StepError } from "./errors.js";
import { retryAfterMs, toFailure } from "./failure.js";
import { type Complete, CompleteSchema, type Fail, FailSchema, type Limits } from "./v1/step_pb.js";

/** How the code of a function ended. */
export type Settled = { readonly value: unknown } | { readonly error: unknown };

/** Complete or Fail, as the code ended. `what` names its output where that cannot be sent. */
export function ofCode(end: Settled, what: string, limits: Limits, attempt: number): Complete | Fail {
  if ("error" in end) return failed(end.error, limits, attempt);
  try {
    const data = codec.encode(end.value, what);
    if (limits.resultBytes && data.byteLength > limits.resultBytes) {
      throw new LimitError(`${what} has ${data.byteLength} bytes; result_bytes is ${limits.resultBytes}`);
    }
    return create(CompleteSchema, { output: { data } });
  } catch (error) {
    return failed(error, limits, attempt);
  }
}

/** Fail. Where a step's failure left the function its attempts are spent: the run does not try again. */
export function failed(error: unknown, limits: Limits, attempt: number): Fail {
  const failure = toFailure(error, limits.failureBytes);
  if (error instanceof StepError) failure.nonRetriable = true;
  const after = retryAfterMs(error);
  return create(FailSchema, { failure, attempt, ...(after !== undefined && { retryAfterMs: BigInt(after) }) });
}
