// What a function's code can do with steps: combinators, giving up, cancelling, time and randomness.

import assert from "node:assert/strict";
import { test } from "node:test";
import * as z from "zod";
import { App, CancelledError, type Step, type StepError, event } from "../../src/index.js";
import { StepKind } from "../../src/v1/step_pb.js";
import { Led } from "../support/runs.js";

const body = () => null;

test("Promise.allSettled and Promise.any work unchanged", async () => {
  const app = new App("test");
  app.function({ id: "f" }, async ({ step }) => {
    const all = await Promise.allSettled([step.run("a", body), step.run("b", body)]);
    const any = await Promise.any([step.run("c", body), step.run("d", body)]);
    return [all.map((one) => (one.status === "fulfilled" ? one.value : (one.reason as StepError).type)), any];
  });
  const led = await Led.start(app, "f");
  await led.fail("b", StepKind.RUN, "ValueError");
  await led.finish("a", 1);
  await led.fail("c", StepKind.RUN, "ValueError");
  await led.finish("d", 4);
  assert.deepEqual(led.ended, { output: [[1, "ValueError"], 4] });
});

test("a step that fails before it is awaited waits for that", async () => {
  const app = new App("test");
  app.function({ id: "f" }, async ({ step }) => {
    const a = step.run("a", body);
    const b = step.run("b", body);
    await b;
    return await a.catch((error: unknown) => (error as StepError).type);
  });
  const led = await Led.start(app, "f");
  await led.fail("a", StepKind.RUN, "ValueError");
  await led.finish("b");
  assert.deepEqual(led.ended, { output: "ValueError" });
});

test("Promise.race leaves the others open, step.race gives them up", async () => {
  const app = new App("test");
  app.function({ id: "plain" }, async ({ step }) => {
    const first = await Promise.race([step.run("a", body), step.run("b", body)]);
    return [first, await step.run("after", body)];
  });
  app.function({ id: "given-up" }, async ({ step }) => {
    const first = await step.race({ a: step.run("a", body), b: step.run("b", body) });
    return [first, await step.run("after", body)];
  });
  const plain = await Led.start(app, "plain");
  await plain.finish("b", 2);
  assert.deepEqual([plain.abandoned, plain.bodies], [[], ["a", "after"]]);
  const givenUp = await Led.start(app, "given-up");
  await givenUp.finish("b", 2);
  assert.deepEqual([givenUp.abandoned, givenUp.interrupted], [["a"], ["a"]]);
  await givenUp.finish("after", 3);
  assert.deepEqual(givenUp.ended, { output: [{ name: "b", value: 2 }, 3] });
});

test("branches in a race are given up with all that they have open, also in races of their own", async () => {
  const app = new App("test");
  const seen: string[] = [];
  app.function({ id: "f" }, async ({ step }) => {
    const won = await step.race({
      deep: async (step: Step) => {
        try {
          await step.run("deep", body);
          return await step.race({ inner: (step) => step.run("inner", body), nap: step.sleep("1h") });
        } catch (error) {
          seen.push((error as Error).name);
          throw error;
        } finally {
          // A lost branch begins nothing more.
          await step.run("never", body).catch((error: unknown) => seen.push((error as Error).name));
        }
      },
      quick: (step: Step) => step.run("quick", body),
    });
    return [won.name, await step.run("after", body)];
  });
  const led = await Led.start(app, "f");
  await led.finish("deep");
  assert.deepEqual(led.bodies, ["quick", "inner"]);
  await led.finish("quick", "q");
  assert.deepEqual(led.abandoned.sort(), ["inner", "sleep"]);
  assert.deepEqual(
    led.bodies.filter((key) => key !== "inner"),
    ["after"],
  );
  assert.deepEqual(seen, ["Interrupted", "Interrupted"]);
});

test("a race with a failed racer fails, and gives the others up", async () => {
  const app = new App("test");
  app.function({ id: "f" }, async ({ step }) => {
    try {
      await step.race({ a: step.run("a", body), nap: step.sleep("1h") });
    } catch (error) {
      return (error as StepError).type;
    }
    return "unreachable";
  });
  const led = await Led.start(app, "f");
  await led.fail("a", StepKind.RUN, "ValueError");
  assert.deepEqual([led.ended, led.abandoned], [{ output: "ValueError" }, ["sleep"]]);
});

test("a race takes only what it can give up", async () => {
  const app = new App("test");
  app.function({ id: "foreign", retries: 0 }, ({ step }) =>
    step.race({ a: step.sleep("1h"), b: Promise.resolve() as never }),
  );
  app.function({ id: "empty", retries: 0 }, ({ step }) => step.race({}));
  const foreign = (await Led.start(app, "foreign")).ended as { error: string };
  assert.match(foreign.error, /^UsageError: step.race: "b" is a promise that step did not return/);
  assert.deepEqual((await Led.start(app, "empty")).ended, { error: "UsageError: step.race needs at least one racer" });
});

test("a signal gives calls up: what is open is closed, what is new does not begin", async () => {
  const app = new App("test");
  app.function({ id: "f" }, async ({ step }) => {
    const stop = new AbortController();
    const { signal } = stop;
    const calls = [
      step.run("work", body, { signal }),
      step.waitForEvent("go", { signal }),
      step.invoke("other", null, { signal }),
      step.invoke("detached", null, { signal, detached: true }),
    ];
    await step.run("first", body);
    stop.abort(new Error("enough"));
    const late = step.run("late", body, { signal });
    const ends = await Promise.allSettled([...calls, late]);
    return ends.map((one) => (one.status === "rejected" ? (one.reason as Error).message : one.value));
  });
  const led = await Led.start(app, "f");
  await led.finish("first");
  assert.deepEqual(led.ended, { output: Array(5).fill("enough") });
  assert.deepEqual([led.abandoned, led.interrupted], [["work", "go", "test/other", "test/detached"], ["work"]]);
});

test("many calls may share a signal", async () => {
  const app = new App("test");
  app.function({ id: "f" }, async ({ step }) => {
    const { signal } = new AbortController();
    return (await Promise.all(Array.from({ length: 50 }, () => step.run("part", body, { signal })))).length;
  });
  const warnings: string[] = [];
  const note = (warning: Error) => warnings.push(warning.message);
  process.on("warning", note);
  const led = await Led.start(app, "f");
  for (const key of led.bodies) await led.finish(key);
  await new Promise(setImmediate);
  process.off("warning", note);
  assert.deepEqual([led.ended, warnings], [{ output: 50 }, []]);
});

test("cancel rejects what is open, aborts step.signal, and lets clean-up steps run", async () => {
  const app = new App("test");
  const seen: unknown[] = [];
  app.function({ id: "f" }, async ({ step }) => {
    step.signal.addEventListener("abort", () => seen.push("aborted"));
    const ends = await Promise.allSettled([step.run("a", body), step.sleep("1h")]);
    seen.push(...ends.map((one) => one.status === "rejected" && one.reason instanceof CancelledError));
    seen.push(await step.run("clean", body));
  });
  const led = await Led.start(app, "f");
  await led.cancel();
  assert.deepEqual([led.abandoned, led.interrupted, led.bodies.at(-1)], [["a", "sleep"], ["a"], "clean"]);
  await led.finish("clean", "cleaned");
  assert.deepEqual(led.ended, { error: "cancelled" });
  assert.deepEqual(seen, ["aborted", true, true, "cleaned"]);
});

test("time and randomness are the same when the code runs again", async () => {
  const app = new App("test");
  const notes: unknown[][] = [];
  app.function({ id: "f" }, async ({ step }) => {
    const note = [step.now(), step.uuid(), step.random(), step.random()];
    await step.run("a", body);
    note.push(step.now(), step.uuid(), step.random());
    notes.push(note);
    return note[1];
  });
  const led = await Led.start(app, "f");
  await led.finish("a");
  await led.again(app, "f");
  assert.equal(notes.length, 2);
  assert.deepEqual(notes[0], notes[1]);
  const [now, uuid, a, b] = notes[0] as [Date, string, number, number];
  assert.equal(now.getTime(), 1_000_000);
  assert.match(uuid, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.ok(a >= 0 && a < 1 && a !== b);
});

test("events and results pass their schemas, and say where they do not fit", async () => {
  const app = new App("test");
  const came = event("came", z.object({ at: z.coerce.date() }));
  app.function({ id: "f", on: event("test/start", z.object({ n: z.number() })) }, async ({ event, step }) => {
    const found = await step.waitForEvent(came);
    const sum = await step.run("sum", () => "5", { returns: z.coerce.number() });
    return [event.data.n, found?.data.at.getTime(), sum];
  });
  const led = await Led.start(app, "f", { data: { n: 1 } });
  await led.resolve("came", StepKind.EVENT, { id: "evt_2", name: "came", data: { at: "1970-01-01T00:00:01Z" } });
  await led.finish("sum", "5");
  assert.deepEqual(led.ended, { output: [1, 1000, 5] });
  const wrong = (await Led.start(app, "f", { data: { n: "x" } })).ended as { error: string };
  assert.match(wrong.error, /^SerializationError: the data of event "test\/start" does not fit its schema: n: /);
});

test("events that are none are no step", async () => {
  const app = new App("test");
  app.function({ id: "f" }, async ({ step }) => {
    const none = await step.sendEvents([]);
    const first = await step.race({ nap: step.sleep("1h"), sent: step.sendEvents([]) });
    return [none, first];
  });
  const led = await Led.start(app, "f");
  assert.deepEqual(led.ended, { output: [[], { name: "sent", value: [] }] });
});

test("a path of a match leads through objects, not through lists", async () => {
  const app = new App("test");
  app.function({ id: "f" }, ({ step, event }) => step.waitForEvent("a", { match: event.data.path }));
  for (const path of ["data.l.0", "data.o.x", "data.path.0"]) {
    const led = await Led.start(app, "f", { data: { path, l: ["a"], o: {} } });
    assert.match((led.ended as { error: string }).error, /^UsageError: match .* holds nothing there/);
  }
});

test("what is asked for wrongly is an error that names the step", async () => {
  const cases: [(step: Step) => unknown, RegExp][] = [
    [(step) => step.run("x", 5 as never), /^UsageError: step.run\("x"\) needs a function/],
    [(step) => step.run("x", body, { retries: 500 }), /^UsageError: step x, retries: 500/],
    [(step) => step.run("x", body, { timeout: "soon" }), /^UsageError: step x, timeout: "soon"/],
    [(step) => step.sleep("400d"), /^UsageError: step sleep, duration: "400d" is longer than 366 days/],
    [(step) => step.sleepUntil(new Date(Number.NaN)), /^UsageError: step sleep_until, instant: Invalid Date/],
    [(step) => step.sleepUntil(new Date(Date.now() + 4e10)), /is more than 366 days ahead/],
    [(step) => step.waitForEvent("a*"), /^UsageError: event name "a\*"/],
    [(step) => step.waitForEvent("stepwell/a"), /^UsageError: event name "stepwell\/a".* reach no wait/],
    [(step) => step.waitForEvent("a", { match: "data.missing" }), /^UsageError: match "data.missing"/],
    [(step) => step.waitForEvent("a", { match: "nothing.x" }), /^UsageError: match "nothing.x"/],
    [(step) => step.sendEvent("x", [] as never), /^UsageError: the data of event "x" must be a JSON object/],
    [(step) => step.sendEvent("x", { a: "x".repeat(2000) }), /^LimitError: the data of event "x" has 2008 bytes/],
    [(step) => step.invoke("x", "x".repeat(2000)), /^LimitError: the input of test\/x has 2002 bytes/],
    [(step) => step.invoke("x", () => 1), /^SerializationError: the input of test\/x: a function has no JSON form/],
  ];
  for (const [ask, message] of cases) {
    const app = new App("test");
    app.function({ id: "f" }, async ({ step }) => {
      await ask(step);
    });
    const { error } = (await Led.start(app, "f")).ended as { error: string };
    assert.match(error, message);
  }
});
