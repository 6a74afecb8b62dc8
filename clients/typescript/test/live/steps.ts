// Functions about steps, their values, and branches of them.

import { StepError } from "../../src/index.js";
import { ONCE, app, decline, hold, note } from "./app.js";

/** What a function says of a step that it caught. */
function failed(error: unknown) {
  if (error instanceof StepError) return { type: error.type, attempts: error.attempts };
  throw error;
}

// --- steps and values ---

app.function({ id: "sequential" }, async ({ event, step }) => {
  const a = await note(step, "a", event.data.a);
  const b = await note(step, "b", [a, event.data.b]);
  return { a, b };
});

app.function({ id: "echo" }, ({ event, step }) => note(step, "echo", event.data));

app.function({ id: "numbers" }, async ({ event, step }) => {
  const whole = await note(step, "whole", event.data.whole);
  const real = await note(step, "real", event.data.real);
  return { whole, real };
});

app.function({ id: "nothing" }, async ({ step }) => {
  await note(step, "nothing");
});

app.function({ id: "absent" }, ({ event }) => ({
  has: "value" in event.data,
  null: (event.data.value ?? null) === null,
}));

app.function({ id: "loop" }, async ({ event, step }) => {
  let total = 0;
  for (let n = 0; n < event.data.times; n += 1) total += (await note(step, "item", n)) as number;
  return total;
});

app.function({ id: "nested" }, async ({ step }) => {
  const inner = (value: string) => note(step, "inner", value);
  const first = await inner("x");
  await note(step, "between");
  return [first, await inner("y")];
});

app.function({ id: "large" }, async ({ event, step }) => {
  try {
    const text = await note(step, "large", "x".repeat(event.data.bytes));
    return text.length;
  } catch (error) {
    return failed(error);
  }
});

app.function({ id: "unserializable" }, async ({ step }) => {
  try {
    await note(step, "odd", NaN);
  } catch (error) {
    return failed(error);
  }
  return "it passed";
});

app.function({ id: "misuse" }, ({ step }) => note(step, ""));

app.function({ id: "stable" }, async ({ step }) => {
  const began = step.now();
  const made = [step.uuid(), step.random()] as const;
  const recorded = await note(step, "recorded", made);
  await step.sleep("1h");
  const slept = step.now().getTime() - began.getTime();
  const same = recorded[0] === made[0] && recorded[1] === made[1];
  return { same, slept: slept >= 3_600_000, again: step.uuid() === made[0] };
});

app.function({ id: "strict", strict: true }, async ({ event, step }) => {
  const a = await note(step, "a", event.data);
  await step.sleep("1h");
  const echoed = await step.invoke("echo", event.data);
  await step.sendEvent("conformance/noted", event.data);
  await step.waitForEvent(event.data.event, { timeout: "720h", name: "come" });
  return [a, echoed];
});

// --- side by side ---

app.function({ id: "together" }, async ({ step }) => {
  const [a, b]: number[] = await Promise.all([note(step, "a", 1), note(step, "b", 2)]);
  return await note(step, "c", (a ?? 0) + (b ?? 0));
});

app.function({ id: "branches" }, async ({ step }) => {
  const branch = async (name: string, pause: string) => {
    await step.sleep(pause, { name: `pause ${name}` });
    return await note(step, "same", name);
  };
  return await Promise.all([branch("a", "2h"), branch("b", "1h")]);
});

app.function({ id: "spread" }, async ({ event, step }) => {
  const parts: number[] = await Promise.all(Array.from({ length: event.data.parts }, (_, n) => note(step, "part", n)));
  return parts.reduce((total, part) => total + part, 0);
});

app.function({ id: "timers" }, async ({ event, step }) => {
  const sleeps = Array.from({ length: event.data.timers }, (_, n) => step.sleep(`${n + 1}m`));
  return (await Promise.all(sleeps)).length;
});

app.function({ id: "first" }, async ({ event, step }) => {
  const { name } = await step.race({
    go: step.waitForEvent(event.data.event, { timeout: "2h", name: "go" }),
    limit: step.sleep("1h", { name: "limit" }),
  });
  const which = name === "go" ? "x" : "y";
  return await note(step, which, which);
});

app.function({ id: "race" }, async ({ step }) => {
  const { value } = await step.race({
    fast: (step) => note(step, "fast", "fast"),
    slow: step.sleep("24h", { name: "slow" }),
  });
  return await note(step, "won", value);
});

app.function({ id: "undone" }, async ({ step }) => {
  const group = new AbortController();
  const charge = async () => {
    try {
      await step.run("charge", decline, { retries: ONCE });
    } catch (error) {
      group.abort(error);
      throw error;
    }
  };
  try {
    await Promise.all([step.sleep("24h", { name: "pause", signal: group.signal }), charge()]);
  } catch (error) {
    if (!(error instanceof StepError)) throw error;
    await note(step, "undo");
  }
  return "undone";
});

app.function({ id: "mixed" }, async ({ event, step }) => {
  const [, came, noted, child] = await Promise.all([
    step.sleep("1h", { name: "pause" }),
    step.waitForEvent(event.data.event, { timeout: "720h", name: "come" }),
    note(step, "note", "n"),
    step.invoke("echo", { n: 1 }),
  ]);
  return [null, came?.data ?? null, noted, child];
});

// --- from one worker to the next ---

app.function({ id: "carried" }, async ({ event, step }) => {
  const a = await hold(step, "a", "a");
  const b = await note(step, "b", [a, "b"]);
  await step.sleep("1h");
  const came = await step.waitForEvent(event.data.event, { timeout: "720h", name: "come" });
  const child = await step.invoke("echo", b);
  const c = await hold(step, "c", child);
  return [c, came?.data ?? null];
});

app.function({ id: "held_pair" }, async ({ step }) => {
  const branch = async (name: string) => [await hold(step, name, name), await note(step, "same", name)];
  return await Promise.all([branch("left"), branch("right")]);
});
