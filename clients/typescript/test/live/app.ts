// The app of the conformance worker, and what its functions are made of.

import { appendFileSync, existsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { App, type Retries, type Step, type StepContext } from "../../src/index.js";

const FOLDER = process.env["CONFORMANCE"] ?? ".";
export const ONCE: Retries = { attempts: 1 };
const LOOK_MS = 10;

export const app = new App("conformance");

/** An error of the user's own. */
export class Declined extends Error {
  override readonly name = "Declined";
}

/** Notes that a body executes. */
export function effect({ runId, key, attempt }: StepContext<any>): void {
  appendFileSync(join(FOLDER, "effects"), `${[runId, key, attempt, "typescript"].join("\t")}\n`);
}

/** A step whose body ends at once. */
export function note(step: Step, name: string, value?: unknown): Promise<any> {
  return step.run(
    name,
    (context) => {
      effect(context);
      return context.input;
    },
    { input: value },
  );
}

/** The body of a hold: ends once its gate is open. */
export async function untilOpen(context: StepContext<any>): Promise<any> {
  effect(context);
  const gate = join(FOLDER, `${context.runId} ${context.key}`);
  while (!existsSync(gate)) await wait(LOOK_MS, undefined, { signal: context.signal });
  return context.input;
}

export function hold(step: Step, name: string, value?: unknown): Promise<any> {
  return step.run(name, untilOpen, { input: value });
}

/** The body of a step that fails. */
export function decline(context: StepContext): never {
  effect(context);
  throw new Declined("no money");
}
