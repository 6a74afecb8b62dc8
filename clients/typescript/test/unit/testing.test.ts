// The test kit.

import assert from "node:assert/strict";
import { test } from "node:test";
import * as z from "zod";
import { App, CancelledError, NonRetriableError, RetryAfterError, StepError, event } from "../../src/index.js";
import { TestRun } from "../../src/testing.js";

const app = new App("shop");
const signedUp = event("user/signed.up", z.object({ user_id: z.number(), email: z.string() }));
const bookingCreated = event<{ user_id: number; room: string }>("booking/created");

const drip = app.function({ id: "drip", on: signedUp, retries: 3 }, async ({ event, step }) => {
  await step.run("send-welcome", () => `welcome ${event.data.email}`);
  const booking = await step.waitForEvent(bookingCreated, { match: "data.user_id", timeout: "4d" });
  if (booking === null) {
    await step.run("send-reminder", () => "reminder");
    return "reminded";
  }
  return `booked ${booking.data.room}`;
});

const started = { event: "user/signed.up", data: { user_id: 7, email: "ada@example.com" } };

test("a wait that an event resolves, in memory", async () => {
  const run = await TestRun.start(drip, started);
  assert.deepEqual([run.status, run.executed], ["PARKED", ["send-welcome"]]);
  const [wait] = run.waitingFor;
  assert.deepEqual(
    [wait?.kind, wait?.target, wait?.until?.getTime()],
    ["EVENT", "booking/created", run.now.getTime() + 345_600_000],
  );
  await run.send(bookingCreated, { user_id: 8, room: "east" });
  assert.equal(run.status, "PARKED");
  await run.send(bookingCreated, { user_id: 7, room: "west" });
  assert.deepEqual([run.status, run.output, run.waitingFor], ["COMPLETED", "booked west", []]);
});

test("a wait that times out on the virtual clock, also when the code runs anew each time", async () => {
  for (const reenter of [false, true]) {
    const run = await TestRun.start(drip, { ...started, reenter });
    await run.advance("3d");
    assert.equal(run.status, "PARKED");
    await run.advance("1d");
    assert.deepEqual([run.output, run.executed], ["reminded", ["send-welcome", "send-reminder"]]);
  }
});

test("an event that came before the wait counts", async () => {
  const fn = app.function({ id: "late" }, async ({ step }) => {
    await step.sleep("1h");
    return (await step.waitForEvent("go"))?.data;
  });
  const run = await TestRun.start(fn);
  await run.send("go", { n: 1 });
  await run.advance("1h");
  assert.deepEqual(run.output, { n: 1 });
});

test("bodies and functions can be replaced", async () => {
  const fn = app.function({ id: "quote", input: z.object({ sku: z.string() }) }, async ({ event, step }) => {
    const stock = await step.run("get-stock", (): number => {
      throw new Error("the real one is not called");
    });
    const price: number = await step.invoke("billing/price", { sku: event.data.sku });
    return stock * price;
  });
  const run = await TestRun.start(fn, {
    data: { sku: "a" },
    steps: { "get-stock": () => 3 },
    invokes: { "billing/price": ({ sku }) => Promise.resolve(sku === "a" ? 5 : 0) },
  });
  assert.equal(run.output, 15);
});

test("retries back off on the virtual clock, and failures reach the code", async () => {
  const fn = app.function({ id: "charge", retries: { attempts: 3, initial: "10s", factor: 3 } }, async ({ step }) => {
    try {
      return await step.run("charge", ({ attempt }) => {
        if (attempt === 2) throw new RetryAfterError("1m", "busy");
        throw new Error(`attempt ${attempt}`);
      });
    } catch (error) {
      return (error as StepError).message;
    }
  });
  const run = await TestRun.start(fn);
  assert.equal(run.waitingFor[0]?.kind, "RETRY");
  await run.advance("10s");
  assert.deepEqual(run.executed, ["charge", "charge"]);
  await run.advance("59s");
  assert.equal(run.status, "PARKED");
  await run.advance("1s");
  assert.deepEqual([run.output, run.executed.length], ["charge: Error: attempt 3", 3]);
});

test("a function that throws is tried again over its journal, then fails", async () => {
  const fn = app.function({ id: "twice", retries: 1 }, async ({ step }) => {
    const done = await step.run("once", () => "done once");
    if (step.attempt === 1) throw new Error("between the steps");
    return [done, step.attempt];
  });
  const run = await TestRun.start(fn);
  await run.advance("1s");
  assert.deepEqual([run.output, run.executed], [["done once", 2], ["once"]]);
  const hopeless = app.function({ id: "hopeless" }, () => {
    throw new NonRetriableError("no");
  });
  const failed = await TestRun.start(hopeless);
  assert.deepEqual(
    [failed.status, failed.failure?.type, failed.failure?.message],
    ["FAILED", "NonRetriableError", "no"],
  );
});

test("invokes fail, time out, and are unknown", async () => {
  const fn = app.function({ id: "parent" }, async ({ step }) => {
    const name = async (call: Promise<unknown>) => call.catch((error: unknown) => (error as Error).name);
    return await Promise.all([
      name(step.invoke("a/fails")),
      name(step.invoke("a/slow", null, { timeout: "1h" })),
      name(step.invoke("a/unknown")),
    ]);
  });
  const run = await TestRun.start(fn, {
    invokes: {
      "a/fails": () => {
        throw new Error("no");
      },
      "a/slow": "pending",
    },
  });
  assert.deepEqual(
    run.waitingFor.map(({ kind, target }) => [kind, target]),
    [["INVOKE", "a/slow"]],
  );
  await run.advance("1h");
  assert.deepEqual(run.output, ["RunFailedError", "InvokeTimeoutError", "InvokeError"]);
});

test("sent events are noted and can be awaited", async () => {
  const fn = app.function({ id: "sender" }, async ({ step }) => {
    const id = await step.sendEvent("news", { n: 1 });
    const seen = await step.waitForEvent("news");
    return id === seen?.id;
  });
  const run = await TestRun.start(fn);
  assert.deepEqual([run.output, run.sent.map(({ name, data }) => [name, data])], [true, [["news", { n: 1 }]]]);
});

test("conditions are the test's to decide", async () => {
  const fn = app.function(
    { id: "picky" },
    async ({ step }) => (await step.waitForEvent("go", { if: "async.data.n > 1" }))?.data,
  );
  const run = await TestRun.start(fn, {
    fits: (condition, { data }) => condition !== "" && (data as { n: number }).n > 1,
  });
  await run.send("go", { n: 1 });
  await run.send("go", { n: 2 });
  assert.deepEqual(run.output, { n: 2 });
  const undecided = await TestRun.start(fn);
  await assert.rejects(undecided.send("go", { n: 2 }), {
    name: "UsageError",
    message: /CEL is not evaluated in memory/,
  });
});

test("a cancelled run cleans up", async () => {
  const fn = app.function({ id: "held" }, async ({ step }) => {
    try {
      await step.sleep("30d");
    } catch (error) {
      await step.run("release", () => (error instanceof CancelledError ? "released" : "?"));
      throw error;
    }
  });
  for (const reenter of [false, true]) {
    const run = await TestRun.start(fn, { reenter });
    await run.cancel();
    assert.deepEqual([run.status, run.executed], ["CANCELLED", ["release"]]);
  }
});

test("a run whose time is over cleans up, and has timed out", async () => {
  const fn = app.function({ id: "timed", timeout: "14d" }, async ({ step }) => {
    try {
      await step.waitForEvent("claim/decided");
    } catch (error) {
      await step.run("close", ({ input }) => input, { input: (error as Error).message });
      throw error;
    }
  });
  const run = await TestRun.start(fn);
  await run.advance("13d");
  assert.equal(run.status, "PARKED");
  await run.advance("1d");
  assert.deepEqual([run.status, run.executed], ["TIMED_OUT", ["close"]]);
});

test("code that does not do the same again is found out", async () => {
  let kind = 0;
  const fn = app.function({ id: "changing" }, async ({ step }) => {
    kind += 1;
    await step.sleep("1h");
    if (kind === 1) await step.sleep("1h", { name: "second" });
    else await step.run("second", () => null);
    await step.sleep("1h");
  });
  const run = await TestRun.start(fn);
  await run.advance("1h");
  kind = 0;
  await run.advance("1h");
  const anew = await TestRun.start(fn, { reenter: true });
  kind = 0;
  await anew.advance("1h");
  await assert.rejects(anew.advance("1h"), /step second was "sleep", and is now "run" \(testing\.test\.js:\d+\)/);
});
