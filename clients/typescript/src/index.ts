// Stepwell: durable functions in TypeScript.

export type { StepPromise } from "./call.js";
export type { StepContext } from "./context.js";
export type { Duration } from "./duration.js";
export * from "./errors.js";
export { type Event, type EventType, type NewEvent, event } from "./event.js";
export { App, type Context, DurableFunction, type FunctionOptions, type On, type Trigger } from "./function.js";
export type { Jsonified } from "./jsonified.js";
export type { Raced, Racer } from "./race.js";
export type { Retries, Retry } from "./retry.js";
export type { Log, WorkerOptions } from "./settings.js";
export type { CallOptions, InvokeOptions, RunOptions, Step, WaitOptions } from "./step.js";
