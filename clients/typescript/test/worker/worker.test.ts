// The worker against a scripted server: assignments, bodies, evictions, cancellation.

import assert from "node:assert/strict";
import { test } from "node:test";
import { encode } from "../../src/codec.js";
import { App, NonRetriableError, type StepContext } from "../../src/index.js";
import { StepKind } from "../../src/v1/step_pb.js";
import { Deferred } from "../../src/deferred.js";
import { until } from "../support/queue.js";
import { valueOf, world } from "../support/worlds.js";

test("a run goes from its assignment to its end", async () => {
  const app = new App("test");
  app.function({ id: "three" }, async ({ step, event }) => {
    const a = await step.run("a", () => Number(event.data.n) + 1);
    const b = await step.run("b", async () => Promise.resolve(a + 1));
    return [a, b];
  });
  await using w = await world(app, { instance: "me" });
  assert.equal(w.link.hello.app, "test");
  assert.equal(w.link.hello.sdk, "typescript");
  assert.equal(w.link.hello.instance, "me");
  assert.equal(w.link.hello.capacity, 500);
  assert.deepEqual(
    w.link.hello.functions.map((fn) => fn.name),
    ["three"],
  );
  w.link.assign("run_1", "three", {}, { n: 1 });
  const a = await w.link.command("StepResult");
  assert.deepEqual([a.key, a.number, a.attempt, valueOf(a.output)], ["a", 1n, 1, 2]);
  const last = await w.link.frames.find((frame) => frame.completes.length > 0, "the end");
  assert.deepEqual(
    last.results.map((result) => [result.key, result.number]),
    [["b", 2n]],
  );
  assert.deepEqual(valueOf(last.completes[0]?.output), [2, 3]);
});

test("a body knows its step", async () => {
  const app = new App("test");
  const seen: StepContext<unknown>[] = [];
  app.function({ id: "one", retries: 1 }, async ({ step }) => {
    const input = { amount: 5 };
    await step.run("charge", (context) => void seen.push(context), { input });
  });
  await using w = await world(app);
  w.link.assign("run_1", "one", {
    open: [],
    journal: [
      {
        key: "charge#2",
        kind: StepKind.RETRY,
        attempt: 2,
        number: 1n,
        result: { case: "failure", value: { type: "BankError", message: "closed" } },
      },
    ],
  });
  await w.link.command("Complete");
  const [context] = seen;
  assert.ok(context);
  const { runId, key, attempt, input, token, signal, lastError } = context;
  assert.deepEqual([runId, key, attempt, input], ["run_1", "charge", 2, { amount: 5 }]);
  assert.equal(lastError?.message, "closed");
  assert.match(token, /^[0-9a-f]{32}$/);
  assert.equal(signal.aborted, false);
});

test("a failing body is reported with its stack and parks the run", async () => {
  const app = new App("test");
  app.function({ id: "failing", retries: { attempts: 2, initial: "50ms" } }, async ({ step }) => {
    await step.run("broken", function lookMeUp() {
      throw new TypeError("no", { cause: new Error("because") });
    });
  });
  await using w = await world(app);
  w.link.assign("run_1", "failing");
  const { failures, parks } = await w.link.frames.get("the failure");
  const [failure] = failures;
  assert.deepEqual([failure?.key, failure?.attempt, failure?.retry?.maxAttempts], ["broken", 1, 2]);
  assert.deepEqual([failure?.failure?.type, failure?.failure?.message], ["TypeError", "no"]);
  assert.match(failure?.failure?.stack ?? "", /lookMeUp/);
  assert.equal(failure?.failure?.cause?.message, "because");
  assert.deepEqual(parks[0]?.tree?.keys, ["broken#2"]);
});

test("what is thrown needs not be an Error", async () => {
  const app = new App("test");
  app.function({ id: "odd" }, async ({ step }) => {
    await step.run("text", () => Promise.reject("just text"));
  });
  await using w = await world(app);
  w.link.assign("run_1", "odd");
  const { failure } = await w.link.command("StepFailure");
  assert.deepEqual([failure?.type, failure?.message, failure?.nonRetriable], ["string", "just text", false]);
  assert.match(failure?.stack ?? "", /no stack/);
});

test("a body that takes too long is asked to stop and fails once it has ended", async () => {
  const app = new App("test");
  const stopped = new Deferred<unknown>();
  app.function({ id: "slow" }, async ({ step }) => {
    const body = ({ signal }: StepContext) =>
      new Promise((resolve) => {
        signal.addEventListener("abort", () => {
          stopped.resolve(signal.reason);
          setTimeout(resolve, 30, "too late");
        });
      });
    await step.run("slow", body, { timeout: "40ms" });
  });
  await using w = await world(app);
  w.link.assign("run_1", "slow");
  const { failure, startedMs, endedMs } = await w.link.command("StepFailure");
  assert.deepEqual([failure?.type, failure?.reason], ["StepTimeoutError", "TIMEOUT"]);
  assert.ok(endedMs - startedMs >= 60n);
  assert.equal(((await stopped.promise) as Error).name, "StepTimeoutError");
});

test("an evicted run is interrupted and says nothing more", async () => {
  const app = new App("test");
  const began = new Deferred<void>();
  const interrupted = new Deferred<unknown>();
  const unwound = new Deferred<string>();
  app.function({ id: "evicted" }, async ({ step }) => {
    try {
      await step.run("work", ({ signal }) => {
        signal.addEventListener("abort", () => interrupted.resolve(signal.reason));
        began.resolve();
        return new Promise(() => undefined);
      });
    } finally {
      await step.run("clean", () => undefined).catch((error: unknown) => unwound.resolve(String(error)));
    }
  });
  app.function({ id: "other" }, () => "done");
  await using w = await world(app);
  w.link.assign("run_1", "evicted");
  await began.promise;
  w.link.send({ evicts: [{ runId: "run_1", turn: 1 }] });
  assert.equal(((await interrupted.promise) as Error).name, "Interrupted");
  w.link.assign("run_2", "other");
  const complete = await w.link.command("Complete");
  assert.equal(complete.runId, "run_2");
});

test("a cancelled run unwinds with clean-up steps", async () => {
  const app = new App("test");
  const began = new Deferred<void>();
  const seen: string[] = [];
  app.function({ id: "held" }, async ({ step }) => {
    try {
      await step.run("work", ({ signal }) => {
        signal.addEventListener("abort", () => seen.push("interrupted"));
        began.resolve();
        return new Promise(() => undefined);
      });
    } catch (error) {
      seen.push((error as Error).name, String(step.signal.aborted));
      throw error;
    } finally {
      seen.push(await step.run("clean", () => "cleaned"));
    }
  });
  await using w = await world(app);
  w.link.assign("run_1", "held");
  await began.promise;
  w.link.send({ cancels: [{ runId: "run_1", turn: 1 }] });
  const first = await w.link.frames.get("the cancellation");
  assert.deepEqual(
    first.delivered[0]?.keys.map(({ key, number }) => [key, number]),
    [["$cancel", 1n]],
  );
  assert.deepEqual(
    first.abandons.map(({ key }) => key),
    ["work"],
  );
  const cancelled = await w.link.command("Cancelled");
  assert.equal(cancelled.number, 3n);
  assert.deepEqual(seen.sort(), ["CancelledError", "cleaned", "interrupted", "true"]);
});

test("a long journal arrives in parts and an outcome may come between", async () => {
  const app = new App("test");
  app.function({ id: "long" }, async ({ step }) => {
    let sum = 0;
    for (let n = 0; n < 5; n += 1)
      sum += await step.run("add", () => Promise.reject<number>(new NonRetriableError("again")));
    const event = await step.waitForEvent("go");
    return [sum, event?.data];
  });
  await using w = await world(app);
  const entry = (n: number) => ({
    key: n === 1 ? "add" : `add:${n}`,
    kind: StepKind.RUN,
    number: BigInt(n),
    result: { case: "output" as const, value: { data: encode(n, "n") } },
  });
  w.link.assign("run_1", "long", { more: true, journal: [entry(1), entry(2)] });
  w.link.send({ journalParts: [{ runId: "run_1", turn: 1, more: true, journal: [entry(3), entry(4)] }] });
  const event = { id: "evt_2", name: "go", data: { a: 1 }, time_ms: 5 };
  const result = { case: "output" as const, value: { data: encode(event, "event") } };
  w.link.send({ outcomes: [{ runId: "run_1", turn: 1, key: "go", kind: StepKind.EVENT, target: "go", result }] });
  const open = [{ key: "go", kind: StepKind.EVENT, target: "go" }];
  w.link.send({ journalParts: [{ runId: "run_1", turn: 1, more: false, journal: [entry(5)], open }] });
  assert.deepEqual(valueOf((await w.link.command("Complete")).output), [15, { a: 1 }]);
});

test("a refused command evicts its run, and the log says why", async () => {
  const app = new App("test");
  app.function({ id: "sleeper" }, ({ step }) => step.sleep("1d"));
  await using w = await world(app);
  w.link.assign("run_1", "sleeper");
  await w.link.command("Park");
  w.link.send({ refused: [{ runId: "run_1", turn: 1, key: "sleep", reason: "BAD_PARK", message: "no such key" }] });
  const beat = await w.link.heartbeats.find((one) => one.residents === 0, "a heartbeat without the run");
  assert.equal(beat.residentHash, 0n);
  assert.match(w.log.text, /error: a command of run run_1, step "sleep" was refused: BAD_PARK: no such key/);
});

test("an app that has not got the function says so", async () => {
  const app = new App("test");
  app.function({ id: "known" }, () => null);
  await using w = await world(app);
  w.link.assign("run_1", "unknown");
  await until(() => w.log.text.includes("test/unknown, which this app has not got"), "the log");
});
