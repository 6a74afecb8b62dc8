// step.race: the first of several calls or branches, with the others given up.

import { type StepPromise, callOf } from "./call.js";
import type { Core } from "./core.js";
import { Interrupted, UsageError } from "./errors.js";
import { Step } from "./step.js";

/** What step returned, or a branch: a function that makes its calls through the step that it is given. */
export type Racer<T> = StepPromise<T> | ((step: Step) => PromiseLike<T>);
export type Racers = Readonly<Record<string, Racer<any>>>;

type Prize<R> = R extends StepPromise<infer T> ? T : R extends (step: Step) => PromiseLike<infer T> ? T : never;

/** Who came first, and with what. */
export type Raced<R extends Racers> = {
  [K in keyof R & string]: { readonly name: K; readonly value: Prize<R[K]> };
}[keyof R & string];

export async function race<R extends Racers>(racers: R, core: Core, outer: AbortSignal | undefined): Promise<Raced<R>> {
  const entries = Object.entries(racers);
  if (entries.length === 0) throw new UsageError("step.race needs at least one racer");
  const losers = new AbortController();
  const scope = outer === undefined ? losers.signal : AbortSignal.any([outer, losers.signal]);
  const lanes = entries.map(([name, racer]) => ({ name, ...enter(name, racer, core, scope) }));
  const over = new Interrupted("another racer of step.race came first");
  try {
    const running = lanes.map(async ({ name, promise }) => ({ name, value: await promise }));
    for (const one of running) one.catch(() => undefined);
    return (await Promise.race(running)) as Raced<R>;
  } finally {
    losers.abort(over);
    for (const { call } of lanes) if (call !== undefined) core.giveUp(call, over);
  }
}

function enter(name: string, racer: Racer<unknown>, core: Core, scope: AbortSignal) {
  if (typeof racer === "function") return { promise: racer(new Step(core, scope)), call: undefined };
  const call = callOf(racer);
  if (call === undefined) {
    throw new UsageError(
      `step.race: ${JSON.stringify(name)} is a promise that step did not return, so it could not be given up; ` +
        "write a function instead: (step) => …",
    );
  }
  return { promise: racer, call };
}
