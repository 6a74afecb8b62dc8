// What a tracer is asked for: the spans of runs and of the attempts of their steps. tracing.ts has OpenTelemetry's.

import type { Assign, Cancelled, Complete, Fail } from "./v1/step_pb.js";
import { INVOKED } from "./event.js";

export type Metadata = Readonly<Record<string, string>>;

/** Makes the spans of a worker, and names the current span in what a client sends. */
export interface Tracer {
  /** The metadata of what is sent, with the span that is current. */
  carried(metadata: Metadata): Metadata;
  /** Finds the place of a run in its trace. */
  run(run: TracedRun): RunTrace;
}

/** What a tracer knows of a run. */
export interface TracedRun {
  readonly runId: string;
  readonly app: string;
  readonly function: string;
  /** When the run was created, by the server's clock; how far that is ahead of this machine's. */
  readonly createdMs: number;
  readonly aheadMs: () => number;
  /** The run was invoked; causes are the metadata of the invoke, else of the events that started it. */
  readonly invoked: boolean;
  readonly causes: readonly Metadata[];
}

/** The place of one run in its trace. */
export interface RunTrace {
  /** The metadata of what the run sends or invokes, with the run's span. */
  carried(metadata: Metadata): Metadata;
  /** Begins the span of an attempt of a step. */
  attempt(key: string, attempt: number): AttemptSpan;
  /** Makes the span of the run, once its end is durable. */
  end(ending: TracedEnd): void;
}

/** The span of an attempt. */
export interface AttemptSpan {
  /** Calls the body; the span is current in it, and in what it awaits. */
  within<T>(body: () => T): T;
  end(error?: unknown): void;
}

/** How a run ended. */
export interface TracedEnd {
  readonly status: "completed" | "failed" | "cancelled";
  readonly failure: string;
}

/** How the code ended, if this was for good: the server decides by the same policy. */
export function tracedEnd(command: Complete | Fail | Cancelled, maxAttempts: number): TracedEnd | undefined {
  if (command.$typeName === "stepwell.v1.Complete") return { status: "completed", failure: "" };
  if (command.$typeName === "stepwell.v1.Cancelled") return { status: "cancelled", failure: "" };
  const { failure, attempt } = command;
  if (failure?.nonRetriable !== true && attempt < maxAttempts) return undefined;
  return { status: "failed", failure: `${failure?.type ?? ""}: ${failure?.message ?? ""}` };
}

/** What a tracer is told of an assigned run. */
export function tracedRun(app: string, fn: string, assign: Assign, aheadMs: () => number): TracedRun {
  const events = assign.events.length > 0 ? assign.events : assign.event === undefined ? [] : [assign.event];
  return {
    runId: assign.runId,
    app,
    function: fn,
    createdMs: Number(assign.createdMs),
    aheadMs,
    invoked: assign.event?.name === INVOKED,
    causes: events.map((event) => event.metadata),
  };
}
