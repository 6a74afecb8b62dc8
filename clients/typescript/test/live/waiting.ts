// Functions about time, events, other functions, failures, and ends that come from outside.

import {
  CancelledError,
  type Event,
  InvokeError,
  InvokeTimeoutError,
  NonRetriableError,
  type Retries,
  RetryAfterError,
  RunCancelledError,
  RunFailedError,
  RunTimedOutError,
  type Step,
  type StepContext,
  StepError,
} from "../../src/index.js";
import { Declined, ONCE, app, decline, effect, hold, note, untilOpen } from "./app.js";

// --- time and events ---

app.function({ id: "sleeper" }, async ({ event, step }) => {
  for (const duration of event.data.sleeps) await step.sleep(duration);
  return event.data.sleeps.length;
});

app.function({ id: "until" }, async ({ event, step }) => {
  await step.sleepUntil(new Date(event.data.at_ms));
  return "slept";
});

app.function({ id: "waiter", on: "conformance/wait" }, async ({ event, step }) => {
  const seen = [];
  if (event.data.held) await hold(step, "held");
  for (const { event: name, ...options } of event.data.waits) {
    seen.push((await step.waitForEvent(name, options))?.data ?? null);
  }
  return seen;
});

/** What a function says of an event. */
const toldOf = ({ name, data, metadata, senderId }: Event) => ({ name, data, metadata, sender_id: senderId });

app.function({ id: "seen" }, async ({ event, step }) => {
  const came = await step.waitForEvent(event.data.event, { timeout: "720h" });
  return came && toldOf(came);
});

const judged = { event: "conformance/judged", if: "event.data.amount > 10 && event.metadata.kind == 'big'" };

app.function({ id: "triggered", on: ["conformance/exact", judged, "conformance/wild/*"] }, ({ event }) =>
  toldOf(event),
);

app.function({ id: "sender" }, async ({ event, step }) => {
  const own = event.data.id;
  const second = { name: "conformance/sent", data: { to: own, n: 2 }, id: own };
  const one = await step.sendEvent("conformance/sent", { to: own, n: 1 });
  const more = await step.sendEvents([second, { name: "conformance/other" }]);
  const again = await step.sendEvents([second], { name: "again" });
  const options = { match: "data.id", if: "async.data.n == 2", timeout: "24h" };
  const back = await step.waitForEvent("conformance/back", options);
  return { ids: [one, ...more], again: again[0] === more[0], back: back?.data.n ?? null };
});

app.function({ id: "receiver", on: "conformance/sent" }, async ({ event, step }) => {
  await step.sendEvent("conformance/back", { id: event.data.to, n: event.data.n });
  return event.data.n;
});

// --- other functions ---

/** Invokes as told; says what came. */
app.function({ id: "parent" }, async ({ event, step }) => {
  const { function: name, input, ...options } = event.data;
  try {
    return { output: await step.invoke(name, input, options) };
  } catch (error) {
    if (!(error instanceof InvokeError)) throw error;
    return { error: kindOf(error), type: error.type, message: error.text };
  }
});

function kindOf(error: InvokeError): string {
  if (error instanceof RunFailedError) return "failed";
  if (error instanceof RunCancelledError) return "cancelled";
  if (error instanceof RunTimedOutError) return "timed out";
  return error instanceof InvokeTimeoutError ? "took too long" : "not begun";
}

app.function({ id: "forever" }, async ({ step }) => {
  await note(step, "began");
  await step.waitForEvent("conformance/never");
});

app.function({ id: "deep" }, async ({ event, step }) => {
  if (event.data === 0) return await note(step, "bottom", 0);
  return 1 + (await step.invoke<number>("deep", event.data - 1));
});

// --- failures ---

function failing(how: string): never {
  if (how === "non_retriable") throw new NonRetriableError("never again");
  if (how === "retry_after") throw new RetryAfterError("1h", "busy");
  throw new Declined("no money");
}

app.function({ id: "flaky" }, async ({ event, step }) => {
  const { fails, how, attempts } = event.data;
  const charge = (context: StepContext) => {
    effect(context);
    if (context.attempt <= fails) failing(how);
    return [context.attempt, context.lastError?.message ?? null, context.token];
  };
  try {
    return await step.run("charge", charge, { retries: { attempts, initial: "1m", factor: 2, jitter: false } });
  } catch (error) {
    if (!(error instanceof StepError)) throw error;
    return await note(step, "refund", { type: error.type, message: error.text, attempts: error.attempts });
  }
});

const thrice: Retries = { attempts: 3, initial: "1h", factor: 2, max: "24h", jitter: false };

app.function({ id: "fails", retries: thrice }, async ({ event, step }) => {
  const before = await note(step, "before", step.attempt);
  if (step.attempt <= event.data.times) failing(event.data.how);
  return [before, step.attempt];
});

app.function({ id: "uncaught", retries: ONCE }, async ({ step }) => {
  await note(step, "a");
  await step.run("charge", decline);
});

app.function({ id: "slow" }, async ({ step }) => {
  const retries = { attempts: 2, initial: "1m", jitter: false };
  try {
    await step.run("slow", untilOpen, { timeout: "50ms", retries });
  } catch (error) {
    if (!(error instanceof StepError)) throw error;
    return { error: error.name, type: error.type, attempts: error.attempts };
  }
  return "in time";
});

// --- the end, from outside ---

app.function({ id: "cleanup" }, async ({ event, step }) => {
  try {
    await (event.data.held ? hold : note)(step, "work");
    await step.sleep("720h");
  } finally {
    await note(step, "clean");
  }
  return "end";
});

const told = async ({ step }: { readonly step: Step }) => {
  try {
    await step.sleep("720h");
  } catch (error) {
    if (error instanceof CancelledError) await note(step, "told", error.message);
    throw error;
  }
};

app.function({ id: "told" }, told);

app.function({ id: "deadline", timeout: "1h" }, told);

app.function({ id: "stubborn" }, async ({ step }) => {
  try {
    await step.sleep("720h");
  } catch (error) {
    if (!(error instanceof CancelledError)) throw error;
    await note(step, "so what");
  }
  return "went on";
});
