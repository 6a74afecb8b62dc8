// When and how often a failed body, or the function itself, is tried again. The server does the waiting.

import { create } from "@bufbuild/protobuf";
import type { Duration } from "./duration.js";
import { UsageError, durationMs } from "./errors.js";
import { type RetryPolicy, RetryPolicySchema, RetryPolicy_Jitter } from "./v1/common_pb.js";

export const ATTEMPTS_MAX = 100;

/** A retry policy. */
export interface Retry {
  /** Executions in all, the first included; 4 by default. */
  readonly attempts?: number;
  /** The delay before the second attempt; "1s" by default. */
  readonly initial?: Duration;
  /** Each further delay is the last one times this; 2 by default. */
  readonly factor?: number;
  /** No delay is longer; "10m" by default. */
  readonly max?: Duration;
  /** Whether a delay is cut to a random part of it; true by default. */
  readonly jitter?: boolean;
}

/** A number of retries after the first attempt, or a policy. */
export type Retries = number | Retry;

/** The message. Throws UsageError naming what is out of range. */
export function toPolicy(retries: Retries): RetryPolicy {
  if (typeof retries === "number") {
    if (!Number.isInteger(retries) || retries < 0 || retries >= ATTEMPTS_MAX) {
      throw new UsageError(`retries: ${retries} is no whole number between 0 and ${ATTEMPTS_MAX - 1}`);
    }
    return create(RetryPolicySchema, { maxAttempts: retries + 1 });
  }
  if (typeof retries !== "object" || retries === null) {
    throw new UsageError(`retries: ${String(retries)} is neither a number nor a policy`);
  }
  const { attempts = 4, initial = "1s", factor = 2, max = "10m", jitter = true } = retries;
  if (!Number.isInteger(attempts) || attempts < 1 || attempts > ATTEMPTS_MAX) {
    throw new UsageError(`retries.attempts: ${attempts} is no whole number between 1 and ${ATTEMPTS_MAX}`);
  }
  if (!(factor >= 1 && factor <= 1000)) throw new UsageError(`retries.factor: ${factor} is not between 1 and 1,000`);
  return create(RetryPolicySchema, {
    maxAttempts: attempts,
    initialMs: positiveMs(initial, "retries.initial"),
    factor,
    maxMs: positiveMs(max, "retries.max"),
    jitter: jitter ? RetryPolicy_Jitter.FULL : RetryPolicy_Jitter.NONE,
  });
}

function positiveMs(value: Duration, what: string): bigint {
  const ms = durationMs(value, what);
  if (ms === 0) throw new UsageError(`${what} must be longer than zero`);
  return BigInt(ms);
}
