// App and functions: the declaration, what it refuses, and what a worker registers.

import { create } from "@bufbuild/protobuf";
import type { StandardSchemaV1 } from "@standard-schema/spec";
import type { Core } from "./core.js";
import type { Duration } from "./duration.js";
import { RegistrationError, UsageError, durationMs } from "./errors.js";
import { type Event, type EventType, INVOKED, checkEventName } from "./event.js";
import { type Batch, type FlowOptions, type Labels, flowOf, labelsOf } from "./flow.js";
import type { Jsonified } from "./jsonified.js";
import { type Retries, toPolicy } from "./retry.js";
import { type JsonSchema, derived, given } from "./schema.js";
import type { WorkerOptions } from "./settings.js";
import { Step } from "./step.js";
import type { RetryPolicy } from "./v1/common_pb.js";
import { type Flow, type FunctionSpec, FunctionSpecSchema } from "./v1/function_pb.js";

const CONDITION_BYTES_MAX = 2048;
const TRIGGERS_MAX = 10;
const NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/;

/** Starts a function when an event of this name fits the CEL condition; a trailing `*` matches any rest. */
export interface Trigger<E extends EventType | string = EventType | string> {
  readonly event: E;
  readonly if?: string;
}

type One = EventType | string | Trigger;

/** What starts a function: an event's type or name, one with a condition, or several of these. */
export type On = One | readonly One[];

type DataOfOne<O> =
  O extends EventType<any, infer Out>
    ? Out
    : O extends Trigger<infer E>
      ? E extends EventType<any, infer Out>
        ? Out
        : any
      : any;

/** The data that a function gets for its triggers. */
export type DataOf<O> = O extends readonly (infer E)[] ? DataOfOne<E> : DataOfOne<O>;

/** What a function's code is given. */
export interface Context<Data> {
  readonly event: Event<Data>;
  readonly step: Step;
}

/** What the code of a function with `batch` is given: the events that the server gathered, in the same order each time. */
export interface BatchContext<Data> {
  readonly events: readonly Event<Data>[];
  readonly step: Step;
}

type Handler<Data, Out> = (context: Context<Data>) => Out;
type BatchHandler<Data, Out> = (context: BatchContext<Data>) => Out;
type AnyHandler = Handler<any, unknown> | BatchHandler<any, unknown>;

/** What every function may say of itself. */
interface CommonOptions extends FlowOptions {
  /** Its name within the app; the function's id is "app/name". */
  readonly id: string;
  /** The default of its steps, and of an exception that leaves it; 3 by default. */
  readonly retries?: Retries;
  /** Makes a changed input of a recorded step a mismatch too. */
  readonly strict?: boolean;
  /** A run that has not ended this long after its first start is unwound as by a cancel, and ends as TIMED_OUT. */
  readonly timeout?: Duration;
  /** A run that has not started this long after it was created ends as TIMED_OUT. */
  readonly startTimeout?: Duration;
  /**
   * JSON Schema (2020-12) of what it takes, by invoke and from its events, instead of what `input` and the events' schemas
   * say. The server refuses what does not fit. {} takes anything.
   */
  readonly inputSchema?: JsonSchema;
  /** Only workers that have all these labels, with these values, serve it. */
  readonly labels?: Labels;
}

export interface FunctionOptions<O, I, Out> extends CommonOptions {
  readonly on?: O;
  /** The schema of the input, for functions that are invoked. */
  readonly input?: StandardSchemaV1<any, I>;
  /** The schema of the output: those who invoke the function get what it makes of the JSON. */
  readonly output?: StandardSchemaV1<any, Out>;
}

/** What a function is made of. */
interface Declared<Out> {
  readonly app: string;
  readonly options: FunctionOptions<On, any, Out>;
  readonly handler: AnyHandler;
}

/** A registered function. `handler` is its code, to be called as it is in tests. */
export class DurableFunction<in In, out Out> {
  readonly id: string;
  readonly app: string;
  readonly name: string;
  readonly handler: AnyHandler;
  readonly triggers: readonly Trigger[];
  readonly policy: RetryPolicy;
  readonly strict: boolean;
  /** 0: none. */
  readonly timeoutMs: number;
  readonly startTimeoutMs: number;
  readonly input: StandardSchemaV1 | undefined;
  readonly output: StandardSchemaV1<unknown, Out> | undefined;
  readonly flow: Flow | undefined;
  readonly labels: Labels;
  readonly #given: Uint8Array | undefined;
  /** Holds the types of input and output; there is nothing in it. */
  declare readonly types: (input: In) => Out;

  /** @internal */
  constructor({ app, options, handler }: Declared<Out>) {
    const { id, on, retries = 3, strict = false, timeout, startTimeout, input, output, inputSchema, labels } = options;
    this.id = `${app}/${id}`;
    this.app = app;
    this.name = id;
    this.handler = handler;
    this.triggers = triggersOf(on);
    this.policy = toPolicy(retries);
    this.strict = strict;
    this.timeoutMs = timeoutOf("timeout", timeout);
    this.startTimeoutMs = timeoutOf("startTimeout", startTimeout);
    this.flow = flowOf(options);
    this.labels = labelsOf(labels ?? {});
    this.input = input;
    this.output = output;
    this.#given = inputSchema === undefined ? undefined : given(inputSchema);
  }

  /** The schema for the data of an event of this name. */
  schemaOf(event: string): StandardSchemaV1 | undefined {
    if (event === INVOKED) return this.input ?? this.#soleSchema();
    const types = this.triggers.map((one) => one.event).filter((one) => typeof one !== "string");
    return types.find((type) => fits(type.name, event))?.schema;
  }

  /** @internal Calls the code for one run, with its events: one, unless it gathers them. */
  start(core: Core, events: readonly Event[]): Promise<unknown> {
    const step = new Step(core);
    return new Promise((resolve) => {
      if (this.flow?.batch !== undefined) resolve((this.handler as BatchHandler<any, unknown>)({ events, step }));
      else resolve((this.handler as Handler<any, unknown>)({ event: events[0] as Event, step }));
    });
  }

  /** @internal What the worker says of this function in Hello. */
  spec(): FunctionSpec {
    return create(FunctionSpecSchema, {
      name: this.name,
      triggers: this.triggers.map(({ event, if: condition = "" }) => {
        const schema = this.#given ?? derived(typeof event === "string" ? undefined : event.schema);
        return { event: nameOf(event), condition, schema };
      }),
      retry: this.policy,
      inputSchema: this.#given ?? derived(this.input ?? this.#soleSchema()),
      outputSchema: derived(this.output),
      strict: this.strict,
      timeoutMs: BigInt(this.timeoutMs),
      startTimeoutMs: BigInt(this.startTimeoutMs),
      ...(this.flow !== undefined && { flow: this.flow }),
      labels: this.labels,
    });
  }

  #soleSchema(): StandardSchemaV1 | undefined {
    const [first, ...more] = this.triggers;
    return more.length === 0 && typeof first?.event === "object" ? first.event.schema : undefined;
  }
}

/** Functions that one worker serves under one name. */
export class App {
  readonly functions = new Map<string, DurableFunction<never, unknown>>();
  /** The id of this build, if it was given. */
  readonly deployment: string;

  constructor(
    readonly name: string,
    { deployment = "" }: { readonly deployment?: string } = {},
  ) {
    checkName("app", name);
    this.deployment = deployment;
  }

  /**
   * Registers a function: `on` is what starts it (nothing: it is only invoked). Throws RegistrationError naming the function
   * and the option that is wrong. With `batch` its code is given `events`, else `event`.
   */
  function<R, const O extends On = never, I = [O] extends [never] ? any : DataOf<O>, Out = Jsonified<Awaited<R>>>(
    options: FunctionOptions<O, I, Out> & { readonly batch: Batch },
    handler: BatchHandler<I, R>,
  ): DurableFunction<I, Out>;
  function<R, const O extends On = never, I = [O] extends [never] ? any : DataOf<O>, Out = Jsonified<Awaited<R>>>(
    options: FunctionOptions<O, I, Out> & { readonly batch?: never },
    handler: Handler<I, R>,
  ): DurableFunction<I, Out>;
  function<I, Out>(options: FunctionOptions<On, I, Out>, handler: AnyHandler): DurableFunction<I, Out> {
    const { id } = options;
    checkName("function", id);
    if (this.functions.has(id))
      throw new RegistrationError(`function ${id}: app ${this.name} has one of this name already`);
    if (typeof handler !== "function") throw new RegistrationError(`function ${id}: its handler is no function`);
    let fn: DurableFunction<I, Out>;
    try {
      fn = new DurableFunction({ app: this.name, options, handler });
    } catch (error) {
      if (error instanceof UsageError) throw new RegistrationError(`function ${id}: ${error.message}`);
      throw error;
    }
    this.functions.set(id, fn);
    return fn;
  }

  /** @internal What the worker registers. */
  specs(): FunctionSpec[] {
    return Array.from(this.functions.values(), (fn) => fn.spec());
  }

  /** Serves the functions until SIGTERM or SIGINT, then drains; a second signal leaves at once. */
  async run(options: WorkerOptions = {}): Promise<void> {
    const { run } = await import("./worker.js");
    await run(this, options);
  }
}

function checkName(what: string, name: unknown): void {
  if (typeof name !== "string" || !NAME.test(name)) {
    throw new RegistrationError(
      `${what} name ${JSON.stringify(name)} must be 1 to 128 letters, digits, "-", "_" or "." of ASCII, and begin with a letter or digit`,
    );
  }
}

function triggersOf(on: On | undefined): Trigger[] {
  const items: readonly One[] = on === undefined ? [] : Array.isArray(on) ? (on as readonly One[]) : [on as One];
  const triggers: Trigger[] = [];
  for (const item of items) {
    const trigger = typeof item === "object" && "event" in item ? item : { event: item };
    const name = nameOf(trigger.event);
    checkEventName(name, true);
    if (Buffer.byteLength(trigger.if ?? "") > CONDITION_BYTES_MAX) {
      throw new UsageError(`on: the condition of ${name} is longer than ${CONDITION_BYTES_MAX} bytes`);
    }
    if (!triggers.some((one) => nameOf(one.event) === name && one.if === trigger.if)) triggers.push(trigger);
  }
  if (triggers.length > TRIGGERS_MAX) {
    throw new UsageError(`on: a function has at most ${TRIGGERS_MAX} triggers, not ${triggers.length}`);
  }
  return triggers;
}

function timeoutOf(option: string, value: Duration | undefined): number {
  if (value === undefined) return 0;
  const ms = durationMs(value, option);
  if (ms === 0) throw new UsageError(`${option} must be longer than zero`);
  return ms;
}

function nameOf(event: EventType | string): string {
  return typeof event === "string" ? event : event.name;
}

function fits(pattern: string, name: string): boolean {
  return pattern.endsWith("*") ? name.startsWith(pattern.slice(0, -1)) : name === pattern;
}
