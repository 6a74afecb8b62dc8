// The test kit: a function runs in memory, without a server, on a clock that the test moves.

import { create } from "@bufbuild/protobuf";
import * as codec from "./codec.js";
import { type Body, BodyContext, type StepContext } from "./context.js";
import type { Duration } from "./duration.js";
import { Interrupted, UsageError, durationMs } from "./errors.js";
import { type EventType, type NewEvent, checkEventName } from "./event.js";
import { toFailure } from "./failure.js";
import type { DurableFunction } from "./function.js";
import { Ledger, noConditions } from "./ledger.js";
import type { Command } from "./outbox.js";
import { quiescent } from "./quiescence.js";
import { Reentry, type Turns } from "./reentry.js";
import { type FailureInfo, failureOf } from "./values.js";
import { type Fail, LimitsSchema, type SendEvents, type StepFailure, StepKind } from "./v1/step_pb.js";

const START = new Date(Date.UTC(2026, 0, 1));
const LIMITS = create(LimitsSchema, {
  eventBytes: 1024 * 1024,
  resultBytes: 2 * 1024 * 1024,
  failureBytes: 64 * 1024,
  journalSteps: 10_000,
  keyBytes: 128,
  branches: 1000,
  frameBytes: 4 * 1024 * 1024,
});

/** How a run is set up. */
export interface TestOptions<In> {
  /** The data of the event that starts it, or the input of a function that is invoked. */
  readonly data?: In;
  /** The data of all events of a run that gathered a batch, in order, instead of `data`. */
  readonly batch?: readonly In[];
  /** The name of the event that starts it; without one the function is invoked. */
  readonly event?: string;
  /** Bodies that are executed instead of those of these keys. */
  readonly steps?: Readonly<Record<string, (context: StepContext<any>) => unknown>>;
  /** Functions that it may invoke, by id: their output for an input, or "pending" for one that does not end. */
  readonly invokes?: Readonly<Record<string, "pending" | ((input: any) => unknown)>>;
  /** Whether an event fits the condition of a wait; CEL is not evaluated here. */
  readonly fits?: (condition: string, event: NewEvent) => boolean;
  /** The time at the start; 2026-01-01 by default. */
  readonly now?: Date;
  /** Run the code anew over its journal whenever something comes while no body executes, as after a crash. */
  readonly reenter?: boolean;
}

/** One thing that a run waits for. */
export interface TestWait {
  readonly key: string;
  readonly kind: "SLEEP" | "EVENT" | "INVOKE" | "RETRY";
  /** The event's name, or the function's id. */
  readonly target: string;
  /** When it is over by itself. */
  readonly until: Date | undefined;
}

/** What is under way outside the code: a body, or an invoked function. `done` gives what follows. */
interface Working {
  readonly context?: BodyContext;
  readonly done: Promise<() => Turns | undefined>;
}

/** A run of one function. Its methods resolve once the run has ended, or waits for something. */
export class TestRun<Out> {
  /** Events that the code sent. */
  readonly sent: NewEvent[] = [];
  /** Keys of the bodies that were executed, once for each attempt, in the order in which they began. */
  readonly executed: string[] = [];
  status: "PARKED" | "COMPLETED" | "FAILED" | "CANCELLED" | "TIMED_OUT" = "PARKED";
  output: Out | undefined;
  failure: FailureInfo | undefined;
  #nowMs: number;
  /** When the time-out of the function is over. */
  #deadlineMs: number;
  #timedOut = false;
  #turn = 0;
  #core!: Reentry;
  readonly #ledger: Ledger;
  readonly #working = new Map<string, Working>();

  private constructor(
    private readonly fn: DurableFunction<never, unknown>,
    private readonly options: TestOptions<never>,
  ) {
    const { data, batch, event, now = START, fits = noConditions } = options;
    if (event !== undefined) checkEventName(event);
    if (batch !== undefined && (batch.length === 0 || fn.flow?.batch === undefined)) {
      throw new UsageError(
        `batch: ${batch.length} events for ${fn.id}, which takes ${fn.flow?.batch ? "more" : "one"}`,
      );
    }
    this.#nowMs = now.getTime();
    this.#deadlineMs = fn.timeoutMs > 0 ? this.#nowMs + fn.timeoutMs : Infinity;
    const beginning = {
      functionId: fn.id,
      createdMs: this.#nowMs,
      event,
      data: (batch ?? [data]).map((one) => codec.encode(one, "data")),
    };
    this.#ledger = new Ledger(beginning, fits);
  }

  /** Starts a run of a function. */
  static async start<In, Out>(fn: DurableFunction<In, Out>, options: TestOptions<In> = {}): Promise<TestRun<Out>> {
    const run = new TestRun<Out>(fn, options as TestOptions<never>);
    await run.#enter();
    await run.#work();
    return run;
  }

  /** The time of the virtual clock. */
  get now(): Date {
    return new Date(this.#nowMs);
  }

  /** What it waits for; empty once it has ended. */
  get waitingFor(): TestWait[] {
    if (this.#ended) return [];
    return Array.from(this.#ledger.open.values(), ({ key, kind, target, dueMs }) => ({
      key,
      kind: StepKind[kind] as TestWait["kind"],
      target,
      until: dueMs === Infinity ? undefined : new Date(dueMs),
    }));
  }

  /** Moves the clock. What falls due on the way happens in order, and each is worked off before the next. */
  async advance(duration: Duration): Promise<void> {
    const untilMs = this.#nowMs + durationMs(duration, "advance");
    while (!this.#ended) {
      const dueMs = Math.min(this.#ledger.nextDue(untilMs)?.dueMs ?? Infinity, this.#deadlineMs);
      if (dueMs > untilMs) break;
      this.#nowMs = Math.max(this.#nowMs, dueMs);
      if (dueMs === this.#deadlineMs) await this.#timeOut();
      else await this.#work();
    }
    this.#nowMs = untilMs;
  }

  /** Sends an event. The waits that it fits are over; it counts for waits that begin later, too. */
  send<In>(event: EventType<In, any>, data: In): Promise<void>;
  send(event: string, data?: object): Promise<void>;
  async send(event: EventType | string, data: object = {}): Promise<void> {
    const one = typeof event === "string" ? { name: event, data } : event.with(data);
    checkEventName(one.name);
    this.#ledger.accept(one, this.#nowMs);
    await this.#work();
  }

  /** Asks for the end of the run. It may run clean-up steps. */
  async cancel(): Promise<void> {
    await this.#decide(this.#core.cancel());
    await this.#work();
  }

  async #timeOut(): Promise<void> {
    this.#deadlineMs = Infinity;
    this.#timedOut = true;
    const { timeoutMs } = this.fn;
    await this.#decide(this.#core.cancel(`the run had not ended ${timeoutMs} ms after its start (timeout)`));
    await this.#work();
  }

  get #ended(): boolean {
    return this.status !== "PARKED";
  }

  /** Calls the code, over what it has seen and what has come since. */
  async #enter(): Promise<void> {
    this.#turn += 1;
    this.#ledger.arrived.length = 0;
    const assign = this.#ledger.assign(this.#turn);
    const core: Reentry = new Reentry(this.fn, assign, LIMITS, () => void this.#decide(core.outside()));
    this.#core = core;
    await this.#decide(core.start());
  }

  /** Goes on until nothing is left to do at this time. */
  async #work(): Promise<void> {
    while (!this.#ended) {
      this.#ledger.match(this.#nowMs);
      const [outcome] = this.#ledger.arrived;
      if (outcome !== undefined) {
        const anew = outcome.key.startsWith("$run#") || (this.options.reenter === true && this.#working.size === 0);
        this.#ledger.arrived.shift();
        if (anew) {
          this.#core.evict();
          await this.#enter();
        } else await this.#decide(this.#core.resolve(outcome));
      } else if (this.#working.size > 0) {
        const next = await Promise.race(Array.from(this.#working.values(), ({ done }) => done));
        const turns = next();
        if (turns !== undefined) await this.#decide(turns);
      } else {
        const due = this.#ledger.nextDue(this.#nowMs);
        if (due === undefined) return;
        this.#ledger.fire(due, this.#nowMs);
      }
    }
  }

  async #decide(turns: Turns): Promise<void> {
    for (const _ of turns) await quiescent();
    for (const command of this.#core.takeCommands()) this.#take(command);
    for (const key of this.#core.interrupts.splice(0)) {
      this.#working.get(key)?.context?.abort(new Interrupted(`step ${key} was given up`));
      this.#working.delete(key);
    }
    for (const body of this.#core.bodies.splice(0)) this.#execute(body);
  }

  #execute(body: Body): void {
    const { key, attempt } = body;
    const core = this.#core;
    const context = new BodyContext(body);
    const execute = this.options.steps?.[key] ?? body.execute;
    const startedMs = this.#nowMs;
    this.executed.push(key);
    const done = settled(() => execute(context as never)).then((end) => () => {
      this.#working.delete(key);
      return core.finish(key, attempt, { ...end, startedMs, endedMs: this.#nowMs });
    });
    this.#working.set(key, { context, done });
  }

  #take(command: Command): void {
    const number = this.#ledger.take(command, this.#nowMs);
    if (number > 0) this.#core.ack(number);
    switch (command.$typeName) {
      case "stepwell.v1.StepFailure":
        this.#bodyFailed(command);
        return;
      case "stepwell.v1.Invoke":
        this.#invoke(command.key, command.functionId, command.input?.data ?? new Uint8Array());
        return;
      case "stepwell.v1.SendEvents":
        this.#send(command);
        return;
      case "stepwell.v1.Complete":
        this.status = "COMPLETED";
        this.output = codec.read(command.output?.data ?? new Uint8Array(), this.fn.output, "the output") as Out;
        return;
      case "stepwell.v1.Fail":
        this.#codeFailed(command);
        return;
      case "stepwell.v1.Cancelled":
        this.status = this.#timedOut ? "TIMED_OUT" : "CANCELLED";
        return;
      case "stepwell.v1.Mismatch": {
        const { key, recorded, attempted, location } = command;
        throw new UsageError(
          `${this.fn.id} does not do the same again: step ${key} was "${recorded}", and is now "${attempted}" (${location})`,
        );
      }
    }
  }

  #bodyFailed(failed: StepFailure): void {
    const { key, attempt, failure = toFailure(undefined) } = failed;
    if (this.#ledger.backOff(key, attempt, failed, this.#nowMs)) return;
    this.#ledger.resolve(key, StepKind.RUN, { case: "failure", value: failure }, this.#nowMs, attempt);
  }

  #codeFailed(failed: Fail): void {
    if (this.#ledger.backOff("$run", failed.attempt, { ...failed, retry: this.fn.policy }, this.#nowMs)) return;
    this.status = "FAILED";
    this.failure = failureOf(failed.failure);
  }

  #invoke(key: string, id: string, data: Uint8Array): void {
    const invoke = this.options.invokes?.[id];
    if (invoke === "pending") return;
    if (invoke === undefined) {
      const value = { type: "FunctionNotFound", message: `the test has no ${id}`, reason: "FUNCTION_NOT_FOUND" };
      this.#ledger.resolve(key, StepKind.INVOKE, { case: "failure", value }, this.#nowMs);
      return;
    }
    const done = settled(() => invoke(codec.read(data, undefined, `the input of ${id}`))).then((end) => () => {
      this.#working.delete(key);
      if (!this.#ledger.open.has(key)) return undefined;
      const result =
        "error" in end
          ? { case: "failure" as const, value: { ...toFailure(end.error), reason: "RUN_FAILED" } }
          : { case: "output" as const, value: { data: codec.encode(end.value, `the output of ${id}`) } };
      this.#ledger.resolve(key, StepKind.INVOKE, result, this.#nowMs);
      return undefined;
    });
    this.#working.set(key, { done });
  }

  #send({ key, events }: SendEvents): void {
    const ids = events.map(({ name, id, data, metadata }) => {
      const one = {
        name,
        id,
        metadata,
        data: codec.read(data?.data ?? new Uint8Array(), undefined, name, {}) as object,
      };
      this.sent.push(one);
      return this.#ledger.accept(one, this.#nowMs);
    });
    this.#ledger.resolve(
      key,
      StepKind.SEND,
      { case: "output", value: { data: codec.encode(ids, "ids") } },
      this.#nowMs,
    );
  }
}

/** How a call ends, whether it throws at once or later. */
async function settled(call: () => unknown): Promise<{ value: unknown } | { error: unknown }> {
  try {
    return { value: await call() };
  } catch (error) {
    return { error };
  }
}
