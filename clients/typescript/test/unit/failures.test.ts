// Failures: what was thrown, in one shape for all languages, and back.

import { create, toBinary } from "@bufbuild/protobuf";
import assert from "node:assert/strict";
import { test } from "node:test";
import { invokeError, retryAfterMs, stepError, toFailure } from "../../src/failure.js";
import {
  InvokeError,
  InvokeTimeoutError,
  LimitError,
  NonRetriableError,
  RetryAfterError,
  RunCancelledError,
  RunFailedError,
  StepError,
  StepTimeoutError,
} from "../../src/index.js";
import { FailureSchema } from "../../src/v1/common_pb.js";

test("an error is named by its class", () => {
  class PaymentError extends Error {}
  class CardError extends NonRetriableError {}
  class Named extends Error {
    override name = "OwnName";
  }
  const named = Object.assign(new Error("x"), { name: "GivenName" });
  const cases: [unknown, string][] = [
    [new Error("x"), "Error"],
    [new TypeError("x"), "TypeError"],
    [new PaymentError("x"), "PaymentError"],
    [new CardError("x"), "CardError"],
    [new Named("x"), "OwnName"],
    [named, "GivenName"],
    [new NonRetriableError("x"), "NonRetriableError"],
    [new DOMException("x", "AbortError"), "AbortError"],
    ["text", "string"],
    [null, "null"],
    [undefined, "undefined"],
    [{ a: 1 }, "object"],
  ];
  for (const [thrown, type] of cases) assert.equal(toFailure(thrown).type, type);
});

test("a failure has the stack, the causes and what Stepwell knows", () => {
  const failure = toFailure(new LimitError("too large", { cause: new TypeError("inner", { cause: "text" }) }));
  assert.deepEqual([failure.message, failure.reason, failure.nonRetriable], ["too large", "TOO_LARGE", true]);
  assert.match(failure.stack, /^ {4}at .*failures\.test\.js/);
  assert.deepEqual([failure.cause?.type, failure.cause?.message], ["TypeError", "inner"]);
  assert.deepEqual([failure.cause?.cause?.type, failure.cause?.cause?.message], ["string", "text"]);
  assert.equal(toFailure(new AggregateError([new RangeError("first")], "all")).cause?.type, "RangeError");
  assert.equal(retryAfterMs(new RetryAfterError("30s")), 30_000);
  assert.equal(retryAfterMs(new Error("x")), undefined);
});

test("a chain of causes that never ends is cut", () => {
  const error = new Error("round");
  error.cause = new Error("and round", { cause: error });
  let depth = 0;
  for (let node = toFailure(error).cause; node !== undefined; node = node.cause) depth += 1;
  assert.equal(depth, 10);
});

test("a failure is cut to the limit", () => {
  const size = (failure: ReturnType<typeof toFailure>) => toBinary(FailureSchema, failure).byteLength;
  const failure = toFailure(new Error("ü".repeat(100_000), { cause: new Error("c".repeat(10_000)) }));
  assert.ok(size(failure) <= 64 * 1024);
  assert.match(failure.message, /^ü+ … \(cut\)$/);
  assert.ok(size(toFailure(Object.assign(new Error("x"), { name: "N".repeat(5000) }), 200)) <= 200);
});

test("lone surrogates and texts that cannot be read break nothing", () => {
  assert.equal(toFailure(new Error("a\ud800b")).message, "a\ufffdb");
  const hostile = {
    toString() {
      throw new Error("no");
    },
  };
  assert.match(toFailure(hostile).message, /whose text cannot be read/);
});

test("failures of steps and invokes are errors of their own", () => {
  const failure = (reason: string) => create(FailureSchema, { type: "CardError", message: "no", reason });
  const step = stepError(failure(""), "charge", 4);
  assert.ok(step instanceof StepError && !(step instanceof StepTimeoutError));
  assert.deepEqual(
    [step.message, step.key, step.type, step.text, step.attempts],
    ["charge: CardError: no", "charge", "CardError", "no", 4],
  );
  assert.ok(stepError(failure("TIMEOUT"), "k", 1) instanceof StepTimeoutError);
  assert.ok(invokeError(failure("RUN_FAILED"), "k", 1) instanceof RunFailedError);
  assert.ok(invokeError(failure("CANCELLED"), "k", 1) instanceof RunCancelledError);
  assert.ok(invokeError(failure("TIMEOUT"), "k", 1) instanceof InvokeTimeoutError);
  const other = invokeError(failure("FUNCTION_NOT_FOUND"), "k", 1);
  assert.ok(other instanceof InvokeError && other.reason === "INVOKE_FAILED");
});

test("a failure that passed through steps and runs says what happened first", () => {
  const inner = stepError(create(FailureSchema, { type: "ValueError", message: "boom" }), "charge", 4);
  const outer = invokeError(toFailure(inner), "pay", 1);
  assert.equal(outer.message, "pay: ValueError: boom");
});
