// Stepwell: durable functions in TypeScript.

export {
  AbortedError,
  AlreadyExistsError,
  ApiError,
  DeadlineExceededError,
  FailedPreconditionError,
  type FieldViolation,
  InvalidArgumentError,
  NotFoundError,
  PermissionDeniedError,
  ResourceExhaustedError,
  UnavailableError,
} from "./api_errors.js";
export type { StepPromise } from "./call.js";
export { Client, type ClientOptions, type StartOptions } from "./client.js";
export type { StepContext } from "./context.js";
export type { Duration } from "./duration.js";
export {
  CancelledError,
  Fenced,
  Interrupted,
  InvokeError,
  InvokeTimeoutError,
  LimitError,
  NonRetriableError,
  OutsideStepError,
  RegistrationError,
  RetryAfterError,
  RunCancelledError,
  RunFailedError,
  RunTimedOutError,
  SerializationError,
  StepError,
  StepTimeoutError,
  StepwellError,
  UsageError,
  WaitTimeoutError,
} from "./errors.js";
export { type Event, type EventType, type NewEvent, event } from "./event.js";
export type { EventFilter, FailureFilter, RunFilter } from "./filters.js";
export type { Batch, Concurrency, Debounce, FlowOptions, Labels, RateLimit, Singleton, Throttle } from "./flow.js";
export {
  App,
  type BatchContext,
  type Context,
  type DurableFunction,
  type FunctionOptions,
  type On,
  type Trigger,
} from "./function.js";
export type { RunHandle } from "./handle.js";
export type { Jsonified } from "./jsonified.js";
export type { Raced, Racer } from "./race.js";
export type { Retries, Retry } from "./retry.js";
export type { JsonSchema } from "./schema.js";
export type { Log, WorkerOptions } from "./settings.js";
export type { CallOptions, InvokeOptions, RunOptions, Step, WaitOptions } from "./step.js";
export type { AttemptSpan, RunTrace, TracedEnd, TracedRun, Tracer } from "./trace.js";
export type * from "./values.js";
export { Worker } from "./worker.js";
