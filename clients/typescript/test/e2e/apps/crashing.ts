// The app of the crash tests: every body notes that it executes, and the output holds what each of them made.

import { setTimeout as pause } from "node:timers/promises";
import { App } from "../../../src/index.js";
import { effect } from "./effects.js";

const app = new App("crashing");

app.function({ id: "chain", on: "crash/chain" }, async ({ step, event }) => {
  const nonces: Record<string, string> = {};
  for (let n = 0; n < event.data.steps; n += 1) {
    nonces[`s${n}`] = await step.run(`s${n}`, async (context) => {
      await pause(Math.random() * 20);
      return effect(context);
    });
    if (n % 5 === 4) await step.sleep("30ms");
  }
  return nonces;
});

app.function({ id: "fan", on: "crash/fan" }, async ({ step, event }) => {
  const nonces: Record<string, string> = {};
  const branch = async (name: string) => {
    nonces[`${name}a`] = await step.run(`${name}a`, effect);
    await step.race({
      event: step.waitForEvent("crash/never", { match: "data.u" }),
      nap: step.sleep(`${10 + Number(event.data.n)}ms`, { name: `${name}nap` }),
    });
    nonces[`${name}b`] = await step.run(`${name}b`, effect);
  };
  await Promise.all(["x", "y", "z"].map(branch));
  nonces["child"] = await step.invoke("child", event.data.n);
  return nonces;
});

app.function({ id: "child" }, ({ step }) => step.run("child", effect));

app.function({ id: "once" }, async ({ step }) => {
  const before = await step.run("before", effect);
  const held = await step.run("held", async (context) => {
    effect(context);
    await pause(60_000, null, { signal: context.signal });
    return "unreachable";
  });
  return [before, held];
});

await app.run(process.env["DRAIN"] === undefined ? {} : { drain: process.env["DRAIN"] });
