// The app of the feature tests: one small function for each kind of step and option.

import { setTimeout as pause } from "node:timers/promises";
import {
  App,
  CancelledError,
  InvokeError,
  NonRetriableError,
  RetryAfterError,
  type StepContext,
  type StepError,
  StepTimeoutError,
  event,
} from "../../../src/index.js";
import { effect } from "./effects.js";

const app = new App("features");
const fast = { attempts: 4, initial: "20ms", factor: 1, jitter: false };
const once = { attempts: 1 };
const booked = event<{ user: number; n?: number }>("drip/booked");

app.function({ id: "echo" }, ({ step, event }) =>
  step.run("note", (context) => {
    effect(context);
    return event.data;
  }),
);

app.function({ id: "sequence" }, async ({ step, event }) => {
  let sum = 0;
  for (let n = 0; n < event.data; n += 1) sum += await step.run("add", () => n);
  return sum;
});

app.function({ id: "parallel" }, async ({ step }) => {
  const branch = async (name: string) => {
    for (let n = 0; n < 3; n += 1) await step.run(`${name}${n}`, () => n);
    return name;
  };
  const parts = Promise.all(Array.from({ length: 20 }, (_, n) => step.run("part", async () => (await pause(1), n))));
  const settled = Promise.allSettled([
    step.run("fails", () => Promise.reject(new NonRetriableError("no"))),
    step.sleep("20ms"),
  ]);
  const won = await step.race({
    fast: step.run("fast", () => "fast"),
    nap: step.sleep("1h"),
    branch: () => branch("x"),
  });
  return [await parts, (await settled).map((one) => one.status), won.name, await branch("y")];
});

app.function({ id: "waiter", on: "w/start" }, async ({ step, event }) => {
  const seen: unknown[] = [];
  await step.run("note", effect);
  for (const { event: name, ...options } of event.data.waits) {
    const found = await step.waitForEvent(name, options);
    seen.push(found === null ? null : found.data.n);
  }
  return seen;
});

app.function({ id: "drip", on: "drip/start" }, async ({ step }) => {
  await step.run("welcome", effect);
  const booking = await step.waitForEvent(booked, { match: "data.user", timeout: "4d" });
  if (booking !== null) return "booked";
  await step.run("reminder", effect);
  return "reminded";
});

app.function({ id: "sleeper" }, async ({ step, event }) => {
  const before = step.now().getTime();
  await (event.data.until === undefined ? step.sleep(event.data.for) : step.sleepUntil(new Date(event.data.until)));
  return [before, step.now().getTime()];
});

app.function({ id: "charge" }, ({ step, event }) => {
  if (event.data.amount < 0) throw new NonRetriableError("the amount is negative");
  return step.run("receipt", () => ({ id: "r-1", amount: event.data.amount }));
});

app.function({ id: "parent" }, async ({ step, event }) => {
  const { target, input, timeout } = event.data;
  try {
    return await step.invoke(target, input, timeout === undefined ? {} : { timeout });
  } catch (error) {
    if (!(error instanceof InvokeError)) throw error;
    return [error.name, error.failure?.reason, error.failure?.message];
  }
});

app.function({ id: "forever" }, async ({ step }) => {
  await step.run("note", effect);
  await step.waitForEvent("never/comes");
});

app.function({ id: "sender" }, async ({ step, event }) => {
  const ids = await step.sendEvents([1, 2].map((n) => ({ name: "sent/it", data: { u: event.data, n } })));
  const id = await step.sendEvent("sent/one", { u: event.data }, { id: `one-${event.data}` });
  if (step.attempt === 1) throw new Error("once more");
  return [...ids, id];
});

app.function({ id: "retrier" }, async ({ step, event }) => {
  const { fails, how, attempts = 4 } = event.data;
  const body = (context: StepContext) => {
    effect(context);
    const { attempt, lastError, token } = context;
    if (attempt > fails) return [attempt, lastError?.message, token];
    if (how === "non_retriable") throw new NonRetriableError("never again");
    if (how === "retry_after") throw new RetryAfterError("60ms", "busy");
    throw new TypeError(`attempt ${attempt}`);
  };
  try {
    return await step.run("flaky", body, { retries: { ...fast, attempts } });
  } catch (error) {
    const { type, text, attempts: made } = error as StepError;
    return ["caught", type, text, made];
  }
});

app.function({ id: "uncaught", retries: fast }, ({ step }) =>
  step.run("fails", () => Promise.reject(new Error("deep", { cause: "why" })), { retries: once }),
);

app.function({ id: "raising", retries: fast }, async ({ step, event }) => {
  const done = await step.run("note", () => step.attempt);
  if (step.attempt <= event.data) throw new Error(`attempt ${step.attempt}`);
  return [done, step.attempt];
});

app.function({ id: "outrun" }, async ({ step }) => {
  try {
    return await step.run("slow", ({ signal }) => pause(60_000, null, { signal }), { timeout: "150ms", retries: once });
  } catch (error) {
    return [(error as Error).name, error instanceof StepTimeoutError];
  }
});

app.function({ id: "cancellable" }, async ({ step, event }) => {
  try {
    if (event.data === "body") {
      await step.run("busy", (context) => {
        effect(context);
        return pause(60_000, null, { signal: context.signal });
      });
    } else if (event.data === "child") await step.invoke("forever");
    else await step.sleep("1h");
  } catch (error) {
    await step.run("clean-up", () => (error instanceof CancelledError ? "cleaned" : "?"));
    throw error;
  }
});

app.function({ id: "timed", timeout: "14d", startTimeout: "1h" }, async ({ step }) => {
  try {
    await step.waitForEvent("never/comes");
  } catch (error) {
    await step.run("clean-up", ({ input }) => input, { input: (error as Error).message });
    throw error;
  }
});

app.function({ id: "impatient", retries: 0 }, async () => {
  await pause(10);
});

app.function({ id: "blocking" }, async ({ step }) => {
  await step.run("spin", () => {
    spin(Date.now() + 3500);
  });
});

function spin(until: number): void {
  while (Date.now() < until) Math.sqrt(2);
}

app.function({ id: "large", retries: once }, async ({ step, event }) => {
  const text = await step.run("large", () => "x".repeat(event.data));
  return text.length;
});

await app.run();
