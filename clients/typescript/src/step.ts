// Step: what a function's code does durably. A call gets its key and begins when it is made, not when it is awaited.

import { create, toBinary } from "@bufbuild/protobuf";
import type { StandardSchemaV1 } from "@standard-schema/spec";
import { Call, type StepPromise, readResult } from "./call.js";
import { inputHash } from "./canonical.js";
import * as codec from "./codec.js";
import type { StepContext } from "./context.js";
import type { Core } from "./core.js";
import { DURATION_MS_MAX, type Duration } from "./duration.js";
import { LimitError, UsageError, durationMs } from "./errors.js";
import {
  type Event,
  type EventType,
  type NewEvent,
  checkAwaited,
  fromWait,
  matchValue,
  toMessage,
  unixMs,
} from "./event.js";
import type { DurableFunction } from "./function.js";
import type { Jsonified } from "./jsonified.js";
import { type Raced, type Racers, race } from "./race.js";
import { type Retries, toPolicy } from "./retry.js";
import { InvokeSchema, SendEventsSchema, SleepSchema, StepKind, WaitForEventSchema } from "./v1/step_pb.js";

/** What every call takes. */
export interface CallOptions {
  /** The step's name, from which its key is made; each call has a default. */
  readonly name?: string;
  /** Gives the call up when it is aborted: its key is closed, its body stopped, and the promise rejects with the reason. */
  readonly signal?: AbortSignal;
}

export interface RunOptions<I, R> extends Omit<CallOptions, "name"> {
  /** Retries of this step; by default those of the function. */
  readonly retries?: Retries;
  /** Bounds one attempt: the body's `signal` is aborted then. */
  readonly timeout?: Duration;
  /** What the body gets as `context.input`. Strict functions compare it when the code runs again. */
  readonly input?: I;
  /** The schema of the result; the code gets what it makes of the JSON. */
  readonly returns?: StandardSchemaV1<unknown, R>;
}

export interface WaitOptions extends CallOptions {
  /** A path, for example "data.user_id", at which the awaited event holds what the one that started the run holds there. */
  readonly match?: string;
  /** CEL over `event` (the one that started the run) and `async` (the awaited one). */
  readonly if?: string;
  /** How long to wait; 366 days by default and at most. */
  readonly timeout?: Duration;
}

export interface InvokeOptions<R> extends CallOptions {
  /** The child is cancelled after this long; by default never. */
  readonly timeout?: Duration;
  /** The child goes on when its parent is cancelled or gives up. */
  readonly detached?: boolean;
  /** The schema of the output, where the function is given by name. */
  readonly returns?: StandardSchemaV1<unknown, R>;
}

type SendOptions = CallOptions & Omit<NewEvent, "name" | "data">;

/** Given to a function's code. Its calls return promises: await them, or hand them to Promise.all and allSettled. */
export class Step {
  readonly #core: Core;
  readonly #scope: AbortSignal | undefined;

  /** @internal `scope` gives up all calls that are made through this step. */
  constructor(core: Core, scope?: AbortSignal) {
    this.#core = core;
    this.#scope = scope;
  }

  /**
   * Executes the body once, durably, under a key made from `name`. The result comes back through JSON. Rejects with
   * StepError when the last attempt failed.
   */
  run<T, I = undefined, R = Jsonified<Awaited<T>>>(
    name: string,
    body: (context: StepContext<I>) => T,
    options: RunOptions<I, R> = {},
  ): StepPromise<R> {
    const { retries, timeout, input, returns } = options;
    if (typeof body !== "function") {
      throw new UsageError(`step.run(${JSON.stringify(name)}) needs a function: () => …, not what calling it gave`);
    }
    const call = new Call(StepKind.RUN, "", readResult(returns));
    call.body = {
      execute: body,
      input,
      policy: retries === undefined ? this.#core.fn.policy : named(name, () => toPolicy(retries)),
      timeoutMs: timeout === undefined ? 0 : durationMs(timeout, `step ${name}, timeout`),
      plain: returns === undefined,
    };
    if (this.#core.fn.strict && input !== undefined) call.hash = inputHash([input], `the input of ${name}`);
    return this.#begin("step.run", call, name, options);
  }

  /** Sleeps for "4d"; at most 366 days. The run is parked meanwhile. */
  sleep(duration: Duration, options: CallOptions = {}): StepPromise<void> {
    const name = options.name ?? "sleep";
    const call = new Call(StepKind.SLEEP, "", () => undefined);
    const value = BigInt(durationMs(duration, `step ${name}, duration`));
    call.command = create(SleepSchema, { until: { case: "durationMs", value } });
    return this.#begin("step.sleep", call, name, options);
  }

  /** Sleeps until an instant, at most 366 days off; a past one is due at once. */
  sleepUntil(instant: Date, options: CallOptions = {}): StepPromise<void> {
    const name = options.name ?? "sleep_until";
    const ms = unixMs(instant, `step ${name}, instant`);
    // The clock of the run stands still between outcomes, that of this machine may be wrong: the later one decides.
    if (ms > Math.max(this.#core.nowMs, Date.now()) + DURATION_MS_MAX) {
      throw new UsageError(`step ${name}, instant: ${instant.toISOString()} is more than 366 days ahead`);
    }
    const call = new Call(StepKind.SLEEP, "", () => undefined);
    call.command = create(SleepSchema, { until: { case: "untilMs", value: BigInt(ms) } });
    return this.#begin("step.sleepUntil", call, name, options);
  }

  /** Waits for an event accepted since this run began; null at the time-out. */
  waitForEvent<Out = any>(
    event: EventType<any, Out> | string,
    options: WaitOptions = {},
  ): StepPromise<Event<Out> | null> {
    const type = typeof event === "string" ? undefined : event;
    const target = typeof event === "string" ? event : event.name;
    checkAwaited(target);
    const name = options.name ?? target;
    const { match = "", if: condition = "", timeout } = options;
    const timeoutMs = timeout === undefined ? DURATION_MS_MAX : durationMs(timeout, `step ${name}, timeout`);
    const call = new Call(StepKind.EVENT, target, (data, { key }) =>
      fromWait(data, type?.schema, `the event of step ${key}`),
    );
    call.command = create(WaitForEventSchema, {
      event: target,
      matchPath: match,
      matchValue: match ? matchValue(this.#core.event, match) : new Uint8Array(),
      condition,
      // Zero stands for the longest time on the wire.
      timeoutMs: BigInt(Math.max(1, timeoutMs)),
    });
    return this.#begin("step.waitForEvent", call, name, options);
  }

  /**
   * Runs a function of any app and language ("app/name"; a plain name is of the own app; or a function declared here) and
   * returns its output. Rejects with RunFailedError, RunCancelledError, RunTimedOutError, InvokeTimeoutError
   * or InvokeError.
   */
  invoke<In, Out>(fn: DurableFunction<In, Out>, input: In, options?: InvokeOptions<Out>): StepPromise<Out>;
  invoke<R = any>(fn: string, input?: unknown, options?: InvokeOptions<R>): StepPromise<R>;
  invoke(fn: DurableFunction<never, unknown> | string, input: unknown = null, options: InvokeOptions<unknown> = {}) {
    const target = targetOf(this.#core.fn.app, fn);
    const name = options.name ?? target;
    const returns = options.returns ?? (typeof fn === "string" ? undefined : fn.output);
    const data = codec.encode(input, `the input of ${target}`);
    const { resultBytes } = this.#core.limits;
    if (resultBytes && data.byteLength > resultBytes) {
      throw new LimitError(`the input of ${target} has ${data.byteLength} bytes; result_bytes is ${resultBytes}`);
    }
    const call = new Call(StepKind.INVOKE, target, readResult(returns));
    if (this.#core.fn.strict) call.hash = inputHash([input], `the input of ${target}`);
    const command = create(InvokeSchema, {
      functionId: target,
      input: { data },
      detached: options.detached ?? false,
      inputHash: call.hash,
      // Zero stands for "no time-out" on the wire.
      timeoutMs: BigInt(
        options.timeout === undefined ? 0 : Math.max(1, durationMs(options.timeout, `step ${name}, timeout`)),
      ),
    });
    call.command = command;
    if (this.#core.trace !== undefined) command.metadata = { ...this.#core.trace.carried({}) };
    return this.#begin("step.invoke", call, name, options);
  }

  /** Sends one event, once; returns its id. */
  sendEvent<In>(event: EventType<In, any>, data: In, options?: SendOptions): StepPromise<string>;
  sendEvent(event: string, data?: object | null, options?: SendOptions): StepPromise<string>;
  sendEvent(event: EventType | string, data?: object | null, options: SendOptions = {}): StepPromise<string> {
    const { name = "send_event", signal, ...rest } = options;
    const one = typeof event === "string" ? { ...rest, name: event, data: data ?? undefined } : event.with(data, rest);
    return this.#send("step.sendEvent", [one], name, signal, (ids) => ids[0]);
  }

  /** Sends events, once, together; returns their ids in order. None to send: no step, and no ids. */
  sendEvents(events: readonly NewEvent[], options: CallOptions = {}): StepPromise<string[]> {
    return this.#send("step.sendEvents", events, options.name ?? "send_events", options.signal, (ids) => ids);
  }

  #send<T>(
    what: string,
    events: readonly NewEvent[],
    name: string,
    signal: AbortSignal | undefined,
    read: (ids: string[]) => unknown,
  ): StepPromise<T> {
    const [first] = events;
    if (first === undefined) {
      this.#core.checkCaller(what);
      const nothing = new Call(StepKind.SEND, "", () => []);
      nothing.resolve(read([]));
      return nothing.promise as StepPromise<T>;
    }
    const { eventBytes, frameBytes } = this.#core.limits;
    const command = create(SendEventsSchema, { events: events.map((one) => toMessage(one, eventBytes)) });
    const { trace } = this.#core;
    if (trace !== undefined) {
      for (const one of command.events) one.metadata = { ...trace.carried(one.metadata) };
    }
    const size = toBinary(SendEventsSchema, command).byteLength;
    if (frameBytes && size > frameBytes) {
      throw new LimitError(`${what}: ${size} bytes of events; frame_bytes is ${frameBytes}`);
    }
    const call = new Call(StepKind.SEND, first.name, (data, { key }) =>
      read(codec.decode(data, `the result of step ${key}`) as string[]),
    );
    if (this.#core.fn.strict) {
      const sent = events.map((one) => [one.name, one.id ?? "", one.data]);
      call.hash = command.inputHash = inputHash(sent, "the events");
    }
    call.command = command;
    return this.#begin(what, call, name, signal === undefined ? {} : { signal });
  }

  /**
   * The first of several to settle; the others are given up. A racer is what a call of step returned, or a function that
   * makes its calls through the step that it is given. (Promise.race would leave the others open.)
   */
  race<R extends Racers>(racers: R): Promise<Raced<R>> {
    this.#core.checkCaller("step.race");
    return race(racers, this.#core, this.#scope);
  }

  #begin<T>(what: string, call: Call, name: string, { signal }: Pick<CallOptions, "signal">): StepPromise<T> {
    const core = this.#core;
    core.checkCaller(what);
    const signals = [this.#scope, signal].filter((one) => one !== undefined);
    const over = signals.find((one) => one.aborted);
    if (over !== undefined) {
      call.reject(over.reason);
      return call.promise as StepPromise<T>;
    }
    core.begin(call, name);
    for (const one of signals) core.watch(call, one);
    return call.promise as StepPromise<T>;
  }

  get runId(): string {
    return this.#core.runId;
  }

  /** Which attempt of the function this is, from 1. */
  get attempt(): number {
    return this.#core.attempt;
  }

  /** Aborted when the run is cancelled. Open calls reject by themselves; loops that make none can look here. */
  get signal(): AbortSignal {
    return this.#core.cancellation.signal;
  }

  /** The time of the last outcome the code has seen (at the start, of the run's creation): the same in replay. */
  now(): Date {
    return new Date(this.#core.nowMs);
  }

  /** A random number in [0, 1) that is the same in replay and in all languages. */
  random(): number {
    return this.#core.chance.random();
  }

  /** A random id (version 4) that is the same in replay and in all languages; no secret, for the run's id decides it. */
  uuid(): string {
    return this.#core.chance.uuid();
  }
}

/** The id "app/name" of what is invoked; a plain name is one of the own app's. */
export function targetOf(app: string, fn: { readonly id: string } | string): string {
  if (typeof fn !== "string") return fn.id;
  return fn.includes("/") ? fn : `${app}/${fn}`;
}

function named<T>(name: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    if (error instanceof UsageError) throw new UsageError(`step ${name}, ${error.message}`);
    throw error;
  }
}
