// Durations, retries, keys, names: what is accepted, and what is refused by name.

import { create } from "@bufbuild/protobuf";
import assert from "node:assert/strict";
import { test } from "node:test";
import * as z from "zod";
import { DurationError, toMs } from "../../src/duration.js";
import { App, RegistrationError, type Retries, RetryAfterError, UsageError, event } from "../../src/index.js";
import { Keys } from "../../src/keys.js";
import { toPolicy } from "../../src/retry.js";
import { resolveWorker } from "../../src/settings.js";
import { RetryPolicy_Jitter } from "../../src/v1/common_pb.js";
import { LimitsSchema } from "../../src/v1/step_pb.js";

test("durations", () => {
  const cases: [string, number][] = [
    ["90s", 90_000],
    ["1h30m", 5_400_000],
    ["4d", 345_600_000],
    ["2w", 1_209_600_000],
    ["1d 12h", 129_600_000],
    ["0.5ms", 1],
    ["0s", 0],
    ["1.1m", 66_000],
    ["2.3s", 2300],
    ["366d", 31_622_400_000],
  ];
  for (const [text, ms] of cases) assert.equal(toMs(text), ms, text);
});

test("what is no duration", () => {
  for (const text of ["", "5", "1y", "-1s", "1s2", "s", "367d", "1e3s", "１s"])
    assert.throws(() => toMs(text), DurationError);
  for (const value of [5, null, undefined, new Date()]) assert.throws(() => toMs(value as never), DurationError);
  assert.throws(() => new RetryAfterError("soon"), {
    name: "UsageError",
    message: /^RetryAfterError: "soon" is no duration/,
  });
});

test("retries", () => {
  assert.equal(toPolicy(0).maxAttempts, 1);
  assert.equal(toPolicy(3).maxAttempts, 4);
  const policy = toPolicy({ attempts: 5, initial: "2s", factor: 3, max: "1h", jitter: false });
  assert.deepEqual(
    [policy.maxAttempts, policy.initialMs, policy.factor, policy.maxMs, policy.jitter],
    [5, 2000n, 3, 3_600_000n, RetryPolicy_Jitter.NONE],
  );
  const refused: Retries[] = [
    -1,
    100,
    1.5,
    { attempts: 0 },
    { attempts: 101 },
    { factor: 0.5 },
    { initial: "0s" },
    { max: "x" },
  ];
  for (const one of [...refused, "3" as never, null as never]) assert.throws(() => toPolicy(one), UsageError);
});

test("keys are given in the order of the calls", () => {
  const keys = new Keys(create(LimitsSchema));
  assert.deepEqual(
    ["charge", "charge", "charge:2", "charge", "größe ✓"].map((name) => keys.give(name)),
    ["charge", "charge:2", "charge:2:2", "charge:3", "größe ✓"],
  );
  assert.deepEqual(
    ["a:2", "a", "a"].map((name) => keys.give(name)),
    ["a:2", "a", "a:3"],
  );
  for (const name of ["", "$own", "a#2", "a\n", "a\u0085", "\ud800", undefined as never]) {
    assert.throws(() => keys.give(name), UsageError);
  }
  assert.throws(() => keys.give("é".repeat(65)), { name: "LimitError" });
});

test("what a function registers", () => {
  const app = new App("shop");
  const signedUp = event("user/signed.up", z.object({ email: z.string() }));
  const fn = app.function({ id: "drip", on: [signedUp, { event: "user/*", if: "true" }], retries: 5 }, () => null);
  const spec = fn.spec();
  assert.deepEqual(
    [fn.id, spec.name, spec.triggers.map((one) => [one.event, one.condition]), spec.retry?.maxAttempts],
    [
      "shop/drip",
      "drip",
      [
        ["user/signed.up", ""],
        ["user/*", "true"],
      ],
      6,
    ],
  );
  const options = { id: "typed", on: signedUp, strict: true, timeout: "14d", startTimeout: "1h" } as const;
  const typed = app.function(options, () => null).spec();
  assert.deepEqual([typed.timeoutMs, typed.startTimeoutMs], [1_209_600_000n, 3_600_000n]);
  const schema = JSON.parse(new TextDecoder().decode(typed.inputSchema));
  assert.equal(schema.properties.email.type, "string");
  assert.equal(typed.strict, true);
});

test("what is declared wrongly is refused by name", () => {
  const app = new App("shop");
  app.function({ id: "taken" }, () => null);
  const handler = () => null;
  const cases: [() => unknown, RegExp][] = [
    [() => new App("-bad"), /app name "-bad"/],
    [() => app.function({ id: "a b" }, handler), /function name "a b"/],
    [() => app.function({ id: "taken" }, handler), /function taken: app shop has one of this name/],
    [() => app.function({ id: "x", retries: 200 }, handler), /function x: retries: 200/],
    [() => app.function({ id: "x", on: "a*b" }, handler), /function x: event name "a\*b"/],
    [() => app.function({ id: "x", on: { event: "a", if: "x".repeat(2049) } }, handler), /the condition of a/],
    [() => app.function({ id: "x", on: Array.from({ length: 11 }, (_, n) => `e${n}`) }, handler), /at most 10/],
    [() => app.function({ id: "x", timeout: "400d" }, handler), /function x: timeout: "400d"/],
    [() => app.function({ id: "x", startTimeout: "0s" }, handler), /function x: startTimeout must be longer than zero/],
    [() => app.function({ id: "x" }, "code" as never), /its handler is no function/],
  ];
  for (const [declare, message] of cases) {
    assert.throws(declare, (error: Error) => {
      assert.ok(error instanceof RegistrationError);
      assert.match(error.message, message);
      return true;
    });
  }
  assert.throws(() => event(""), UsageError);
  assert.throws(() => event("x".repeat(257)), UsageError);
});

test("settings come from the call, then from the environment variables", () => {
  process.env["STEPWELL_ADDRESS"] = "example:1";
  try {
    assert.equal(resolveWorker({}).address, "example:1");
    assert.equal(resolveWorker({ address: "other:2" }).address, "other:2");
  } finally {
    delete process.env["STEPWELL_ADDRESS"];
  }
  assert.deepEqual([resolveWorker({}).address, resolveWorker({}).capacity], ["127.0.0.1:7777", 500]);
  assert.throws(() => resolveWorker({ capacity: 0 }), UsageError);
  assert.throws(() => resolveWorker({ capacity: 100_001 }), UsageError);
  assert.throws(() => resolveWorker({ maxParked: 50_001 }), UsageError);
  assert.throws(() => resolveWorker({ maxParked: -1 }), UsageError);
  assert.throws(() => resolveWorker({ drain: "soon" }), UsageError);
});
