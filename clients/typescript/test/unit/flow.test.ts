// The options of a function that limit, gather and order its runs, as the worker registers them; labels; and batches.

import assert from "node:assert/strict";
import { test } from "node:test";
import * as z from "zod";
import { App, type FlowOptions, RegistrationError, UsageError, event } from "../../src/index.js";
import { resolveWorker } from "../../src/settings.js";
import { TestRun } from "../../src/testing.js";
import { Concurrency_Hold, Concurrency_Scope, type FunctionSpec, Singleton_Mode } from "../../src/v1/function_pb.js";

/** What a function with these options registers. They may be such as the compiler would refuse. */
function registered(options: object): FunctionSpec {
  return new App("shop").function({ id: "a", on: "x", ...(options as Omit<FlowOptions, "batch">) }, () => null).spec();
}

test("a function without such options says nothing", () => {
  assert.equal(registered({}).flow, undefined);
  assert.equal(registered({ singleton: false, concurrency: [] }).flow, undefined);
  assert.deepEqual(registered({}).labels, {});
});

test("every option is said", () => {
  const { flow, labels } = registered({
    concurrency: [10, { limit: 2, key: "event.data.user", scope: "app", hold: "run" }],
    throttle: { limit: 5, period: "1m", burst: 2 },
    rateLimit: { limit: 1, period: "1d", key: "event.data.user" },
    debounce: { period: "30s", maxWait: "5m" },
    priority: "event.data.vip ? 120 : 0",
    labels: { gpu: "a100" },
  });
  assert.deepEqual(
    flow?.concurrency.map(({ limit, key, scope, hold }) => [limit, key, scope, hold]),
    [
      [10, "", Concurrency_Scope.FUNCTION, Concurrency_Hold.EXECUTING],
      [2, "event.data.user", Concurrency_Scope.APP, Concurrency_Hold.RUN],
    ],
  );
  const { throttle, rateLimit, debounce } = flow ?? {};
  assert.deepEqual([throttle?.limit, throttle?.periodMs, throttle?.burst], [5, 60_000n, 2]);
  assert.deepEqual([rateLimit?.limit, rateLimit?.periodMs, rateLimit?.key], [1, 86_400_000n, "event.data.user"]);
  assert.deepEqual([debounce?.periodMs, debounce?.maxWaitMs], [30_000n, 300_000n]);
  assert.equal(flow?.priority, "event.data.vip ? 120 : 0");
  assert.deepEqual(labels, { gpu: "a100" });
  const batch = registered({ batch: { maxSize: 100, timeout: "5s", key: "event.data.tenant", if: "event.data.n > 1" } })
    .flow?.batch;
  assert.deepEqual(
    [batch?.maxSize, batch?.timeoutMs, batch?.key, batch?.condition],
    [100, 5000n, "event.data.tenant", "event.data.n > 1"],
  );
  assert.equal(registered({ concurrency: 3 }).flow?.concurrency[0]?.limit, 3);
  assert.equal(registered({ singleton: true }).flow?.singleton?.mode, Singleton_Mode.SKIP);
  const { key, mode } = registered({ singleton: { key: "event.data.user", mode: "cancel" } }).flow?.singleton ?? {};
  assert.deepEqual([key, mode], ["event.data.user", Singleton_Mode.CANCEL]);
});

test("a bad option is refused by name", () => {
  const many = Object.fromEntries(Array.from({ length: 17 }, (_, n) => [`l${n}`, ""]));
  const cases: [object, string][] = [
    [{ concurrency: 0 }, "concurrency: limit 0 is not a whole number from 1 to 1000000"],
    [{ concurrency: 1.5 }, "concurrency: limit 1.5 is not a whole number"],
    [{ concurrency: "3" }, 'concurrency: "3" is neither a number nor a Concurrency'],
    [{ concurrency: [1, 2] }, "concurrency: two limits count the same runs"],
    [
      { concurrency: { limit: 1, scope: "galaxy" } },
      'concurrency: scope "galaxy" is none of function, app, environment',
    ],
    [{ concurrency: { limit: 1, hold: "toString" } }, 'concurrency: hold "toString" is none of executing, run'],
    [{ concurrency: Array.from("abcde", (key) => ({ limit: 1, key })) }, "concurrency: at most 4 limits"],
    [{ throttle: 5 }, "throttle: 5 is not a Throttle"],
    [{ throttle: { limit: 1, period: "10ms" } }, 'throttle: period "10ms" is not 1000 ms to 366 days'],
    [{ throttle: { limit: 1, period: "1m", burst: -1 } }, "throttle: burst -1 is not a whole number from 0 to 1000000"],
    [{ rateLimit: { limit: 1, period: "soon" } }, 'rateLimit: period: "soon" is no duration'],
    [{ rateLimit: { limit: 1, period: "367d" } }, 'rateLimit: period: "367d" is longer than 366 days'],
    [{ debounce: { period: "10s", maxWait: "1s" } }, 'debounce: maxWait "1s" is not 10000 ms to 366 days'],
    [{ batch: { maxSize: 1, timeout: "1s" } }, "batch: maxSize 1 is not a whole number from 2 to 1000"],
    [{ batch: { maxSize: 5, timeout: "1s" }, debounce: { period: "1s" } }, "by batch or by debounce, not by both"],
    [{ singleton: "yes" }, 'singleton: "yes" is neither true nor a Singleton'],
    [{ singleton: true, debounce: { period: "1s" } }, "singleton: not together with batch or debounce"],
    [{ singleton: { mode: "wait" } }, 'singleton: mode "wait" is none of skip, cancel'],
    [{ priority: 5 }, "priority: 5 is not a CEL expression"],
    [{ priority: "\ud800" }, "is not a CEL expression"],
    [{ priority: "x".repeat(3000) }, "priority: an expression is at most 2048 bytes"],
    [{ labels: "gpu" }, 'labels: "gpu" is not a mapping of names to values'],
    [{ labels: many }, "labels: at most 16"],
    [{ labels: { gpu: 5 } }, 'labels: "gpu": names and values are printable text of at most 128 bytes'],
    [{ labels: { "": "x" } }, 'labels: "": names and values are printable'],
    [{ labels: { gpu: "a\n" } }, 'labels: "gpu": names and values are printable'],
  ];
  for (const [options, why] of cases) {
    assert.throws(
      () => registered(options),
      (error: Error) => {
        assert.ok(error instanceof RegistrationError);
        assert.ok(error.message.startsWith("function a: ") && error.message.includes(why), error.message);
        return true;
      },
    );
  }
});

test("the labels of a worker come from the call, then from the environment variable", () => {
  try {
    process.env["STEPWELL_LABELS"] = " gpu=a100, region = eu,plain=";
    assert.deepEqual(resolveWorker({}).labels, { gpu: "a100", region: "eu", plain: "" });
    assert.deepEqual(resolveWorker({ labels: { gpu: "none" } }).labels, { gpu: "none" });
    for (const text of ["gpu", "a=1,a=2", "=x", "a=1,"]) {
      process.env["STEPWELL_LABELS"] = text;
      assert.throws(() => resolveWorker({}), UsageError, text);
    }
  } finally {
    delete process.env["STEPWELL_LABELS"];
  }
  assert.deepEqual(resolveWorker({}).labels, {});
});

const added = event("item/added", z.object({ n: z.number() }));
const listing = new App("shop").function(
  { id: "listing", on: added, batch: { maxSize: 3, timeout: "1s" } },
  async ({ events, step }) => {
    await step.sleep("1h");
    return await step.run("list", () => events.map((one) => one.data.n).join(" "));
  },
);

test("the test kit runs a batch", async () => {
  for (const reenter of [false, true]) {
    const run = await TestRun.start(listing, { event: "item/added", batch: [{ n: 3 }, { n: 1 }, { n: 2 }], reenter });
    await run.advance("1h");
    assert.equal(run.output, "3 1 2");
  }
  const plain = new App("shop").function({ id: "plain" }, () => null);
  await assert.rejects(TestRun.start(listing, { batch: [] }), UsageError);
  await assert.rejects(TestRun.start(plain, { batch: [1, 2] }), /batch: 2 events for shop\/plain, which takes one/);
});

test("a run of one event is a batch of one", async () => {
  const run = await TestRun.start(listing, { data: { n: 7 } });
  await run.advance("1h");
  assert.equal(run.output, "7");
});

test("a batch one of whose events does not fit its schema fails", async () => {
  const run = await TestRun.start(listing, { event: "item/added", batch: [{ n: 3 }, { n: "three" as never }] });
  assert.deepEqual([run.status, run.failure?.type], ["FAILED", "SerializationError"]);
});
