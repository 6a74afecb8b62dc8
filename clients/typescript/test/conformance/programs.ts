// The programs that transcripts run, as tests/conformance/README.md describes them in words.

import {
  App,
  CancelledError,
  InvokeError,
  InvokeTimeoutError,
  NonRetriableError,
  RetryAfterError,
  RunCancelledError,
  RunTimedOutError,
  type Step,
  StepError,
} from "../../src/index.js";

export const app = new App("test");

/** Never executed: transcripts say how bodies end. */
function body(): never {
  throw new Error("a transcript says how this ends");
}

/** Runs a body under a name; `args` are what it is given. */
function run(step: Step, name: string, ...args: unknown[]): Promise<any> {
  return step.run(name, body, { input: args });
}

/** An error that goes by a name. */
function error(name: string, message: string): Error {
  return Object.assign(new Error(message), { name });
}

app.function({ id: "sequential" }, async ({ step }) => {
  const a = await run(step, "a");
  const b = await run(step, "b", a);
  return { a, b };
});

app.function({ id: "repeat" }, async ({ step }) => {
  const results = [];
  for (const n of [1, 2, 3]) results.push(await run(step, "charge", n));
  return results;
});

app.function({ id: "loop" }, async ({ step, event }) => {
  if (!("times" in event.data)) throw error("KeyError", "times");
  let total = 0;
  for (let n = 0; n < event.data.times; n += 1) total += (await run(step, "item", n)) as number;
  return total;
});

app.function({ id: "gather" }, async ({ step }) => {
  const [a, b] = await Promise.all([run(step, "a"), run(step, "b")]);
  return await run(step, "c", a, b);
});

app.function({ id: "branches" }, async ({ step }) => {
  const branch = async (name: string) => {
    await run(step, name);
    return await run(step, "same", name);
  };
  return await Promise.all([branch("a"), branch("b")]);
});

app.function({ id: "first" }, async ({ step }) => {
  const { name } = await step.race({
    go: step.waitForEvent("go", { timeout: "2h" }),
    limit: step.sleep("1h", { name: "limit" }),
  });
  return await run(step, name === "go" ? "x" : "y");
});

app.function({ id: "race" }, async ({ step }) => {
  const { value } = await step.race({ a: step.run("a", body), b: step.run("b", body) });
  return await run(step, "won", [value]);
});

app.function({ id: "group" }, async ({ step }) => {
  const group = new AbortController();
  const branch = async (name: string) => {
    try {
      await step.run(name, body, { signal: group.signal });
    } catch (failure) {
      group.abort();
      throw failure;
    }
  };
  try {
    await Promise.all([branch("a"), branch("b")]);
  } catch (failure) {
    if (!(failure instanceof StepError)) throw failure;
    await run(step, "undo");
  }
  return "end";
});

app.function({ id: "sleep" }, async ({ step }) => {
  await step.sleep("1h30m");
  return "slept";
});

app.function({ id: "sleep_until" }, async ({ step }) => {
  await step.sleepUntil(new Date(1_000_000_000_000));
  return "slept";
});

app.function({ id: "clock" }, async ({ step }) => {
  const times = [step.now().getTime()];
  await run(step, "a");
  times.push(step.now().getTime());
  await step.sleep("60s");
  return [...times, step.now().getTime()];
});

app.function({ id: "wait" }, async ({ step }) => {
  const options = { match: "data.user_id", if: "async.data.ok", timeout: "4d" };
  const booking = await step.waitForEvent("booking/created", options);
  return booking === null ? null : { id: booking.id, data: booking.data };
});

app.function({ id: "invoke" }, async ({ step }) => {
  try {
    return await step.invoke("billing/charge", { amount: 5 }, { timeout: "1m" });
  } catch (failure) {
    if (failure instanceof InvokeTimeoutError) return "timed out";
    if (failure instanceof RunCancelledError) return "cancelled";
    if (failure instanceof RunTimedOutError) return "out of time";
    if (failure instanceof InvokeError) return `failed with ${failure.type}`;
    throw failure;
  }
});

app.function({ id: "invoke_uncaught" }, ({ step }) => step.invoke("charge", null, { detached: true, name: "pay" }));

app.function({ id: "send" }, async ({ step }) => {
  const one = await step.sendEvent("x/y", { n: 1 });
  const two = await step.sendEvents([{ name: "x/a", data: { n: 2 } }, { name: "x/b" }]);
  return [one, ...two];
});

app.function({ id: "caught", retries: 1 }, async ({ step }) => {
  try {
    await run(step, "charge");
  } catch (failure) {
    if (!(failure instanceof StepError)) throw failure;
    return await run(step, "refund", failure.type, failure.attempts);
  }
  return "charged";
});

app.function({ id: "raises" }, async ({ step }) => {
  await run(step, "a");
  throw error("ValueError", "boom");
});

app.function({ id: "second_try" }, async ({ step }) => {
  const a = await run(step, "a");
  if (step.attempt === 1) throw error("ValueError", "boom");
  return [a, await run(step, "b"), step.attempt];
});

app.function({ id: "hopeless" }, () => {
  throw new NonRetriableError("no use");
});

app.function({ id: "later" }, () => {
  throw new RetryAfterError("30s", "busy");
});

app.function({ id: "cleanup" }, async ({ step }) => {
  try {
    await run(step, "work");
    await step.sleep("1d");
  } finally {
    await run(step, "clean");
  }
  return "end";
});

app.function({ id: "stubborn" }, async ({ step }) => {
  try {
    await step.sleep("1d");
  } catch (failure) {
    if (!(failure instanceof CancelledError)) throw failure;
  }
  return "went on";
});

app.function({ id: "told" }, async ({ step }) => {
  try {
    await step.sleep("1d");
  } catch (failure) {
    if (failure instanceof CancelledError) await run(step, "note", failure.message);
    throw failure;
  }
});

app.function({ id: "deaf" }, async ({ step }) => {
  for (;;) {
    try {
      await step.sleep("1d");
    } catch (failure) {
      if (!(failure instanceof CancelledError)) throw failure;
    }
  }
});

app.function({ id: "foreign" }, async ({ step }) => {
  await run(step, "a");
  await new Promise(() => undefined);
});

app.function({ id: "pass_on" }, async ({ step }) => await run(step, "b", await run(step, "a")));

app.function({ id: "keys" }, ({ step, event }) => run(step, event.data.key));

app.function({ id: "other_kind" }, async ({ step }) => {
  await run(step, "a");
  await step.sleep("1h", { name: "charge" });
});

app.function({ id: "other_target" }, async ({ step }) => {
  await step.waitForEvent("new/name", { name: "answer", timeout: "1h" });
});

app.function({ id: "strict", strict: true }, ({ step }) => step.run("a", body, { input: 1 }));

app.function({ id: "strict_nothing", strict: true }, ({ step }) => step.run("a", body));

app.function({ id: "strict_values", strict: true }, async ({ step, event }) => {
  const results: unknown[] = [];
  for (const value of event.data.values) results.push(await step.run("item", body, { input: value }));
  return results;
});

app.function({ id: "strict_calls", strict: true }, async ({ step }) => {
  await step.invoke("billing/charge", { cents: 5, amount: 0.05 });
  return await step.sendEvents([{ name: "x/a", data: { n: 2 }, id: "mine" }, { name: "x/b" }]);
});

app.function({ id: "chance" }, async ({ step }) => {
  const drawn = [step.uuid(), step.random(), step.uuid(), step.random()];
  await run(step, "a", ...drawn);
  return [...drawn, step.uuid(), step.random()];
});

app.function({ id: "two_waits" }, async ({ step }) => {
  const a = step.waitForEvent("a", { timeout: "1h" });
  const b = step.waitForEvent("b", { timeout: "1h" });
  await b;
  await a;
  return await run(step, "end");
});

app.function({ id: "late_question" }, async ({ step }) => [
  await run(step, "a"),
  await run(step, "b"),
  await run(step, "c"),
]);

app.function({ id: "unasked" }, async ({ step }) => {
  void run(step, "never awaited");
  return await run(step, "a");
});

app.function({ id: "batch", batch: { maxSize: 10, timeout: "1s" } }, async ({ events, step }) => {
  await run(step, "note", ...events.map((one) => one.id));
  return events.map((one) => one.data.n);
});
