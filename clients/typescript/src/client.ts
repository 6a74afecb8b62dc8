// The client: sends events, invokes functions, reads and controls runs.

import { toBinary } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import type { StandardSchemaV1 } from "@standard-schema/spec";
import { randomUUID } from "node:crypto";
import { errorOf } from "./api_errors.js";
import { Calls, type Stubs } from "./calls.js";
import * as codec from "./codec.js";
import type { Duration } from "./duration.js";
import { LimitError, durationMs } from "./errors.js";
import { type EventType, type NewEvent, toMessage, unixMs } from "./event.js";
import { type EventFilter, type FailureFilter, type RunFilter, numbersOf } from "./filters.js";
import type { DurableFunction } from "./function.js";
import { Deadline, RunHandle } from "./handle.js";
import { resolveAddress, resolveEnvironment } from "./settings.js";
import { type NewEvent as NewEventMessage, NewEventSchema } from "./v1/event_pb.js";
import type { Run as RunMessage } from "./v1/run_pb.js";
import type { Tracer } from "./trace.js";
import * as values from "./values.js";

const BATCH_EVENTS = 5000;
const BATCH_BYTES = 3500 * 1024;
// The server's limits of the same names.
const EVENT_BYTES = 1024 * 1024;
const SEND_BYTES = 4 * 1024 * 1024;
const RESULT_BYTES = 2 * 1024 * 1024;
/** A call that waits on the server may take this much longer than its wait. */
const SLACK_MS = 5000;
const TIMEOUT_DEFAULT: Duration = "30s";

export interface ClientOptions {
  readonly address?: string;
  readonly environment?: string;
  /** How long a call may take, its repetitions included; "30s" by default. */
  readonly timeout?: Duration;
  /** Names the current span in what is sent: `tracing()` of "stepwell/tracing". */
  readonly tracer?: Tracer;
}

/** How a run is started. */
export interface StartOptions<R> {
  /** The same id within 24 hours is the same run; each call makes its own. */
  readonly requestId?: string;
  readonly metadata?: Readonly<Record<string, string>>;
  /** The schema of the output, where the function is given by name. */
  readonly returns?: StandardSchemaV1<unknown, R>;
}

type AnyFunction = DurableFunction<never, unknown> | string;

/**
 * Connects when it is first used; `await using client = new Client()` closes it at the end of the block. Every method throws
 * ApiError (NotFoundError, InvalidArgumentError …). While the server is unreachable, calls that may safely be repeated are
 * tried again for as long as `timeout` says; the others fail with UnavailableError.
 */
export class Client implements AsyncDisposable {
  readonly address: string;
  readonly environment: string;
  readonly #timeoutMs: number;
  readonly #calls: Calls;

  readonly #tracer: Tracer | undefined;

  constructor({ address, environment, timeout = TIMEOUT_DEFAULT, tracer }: ClientOptions = {}) {
    this.address = resolveAddress(address);
    this.environment = resolveEnvironment(environment);
    this.#timeoutMs = durationMs(timeout, "timeout");
    this.#tracer = tracer;
    this.#calls = new Calls(this.address, this.#timeoutMs);
  }

  /** The generated clients, for what has no method here. */
  get stubs(): Stubs {
    return this.#calls.stubs;
  }

  /** Closes the connection; calls under way fail. */
  close(): void {
    this.#calls.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.close();
    return Promise.resolve();
  }

  // --- events ---

  /** Sends an event and returns its id once it is durable. With an `id` of yours, sending it twice stores it once. */
  send<In>(event: EventType<In, any>, data: In, options?: Omit<NewEvent, "name" | "data">): Promise<string>;
  send(event: string, data?: object | null, options?: Omit<NewEvent, "name" | "data">): Promise<string>;
  async send(event: EventType | string, data?: object | null, options: Omit<NewEvent, "name" | "data"> = {}) {
    const one =
      typeof event === "string" ? { ...options, name: event, data: data ?? undefined } : event.with(data, options);
    const [status] = await this.sendMany([one]);
    if (status === undefined || status.outcome === "REFUSED") {
      throw errorOf(Code.InvalidArgument, status?.message ?? "no status", { reason: status?.reason ?? "" });
    }
    return status.eventId;
  }

  /**
   * Sends events, in requests of at most 5,000; one status for each, in order. A refused one stops no other. Throws UsageError,
   * SerializationError or LimitError, before it sends any, for what cannot be an event. The same `requestId` (within 24 hours, with
   * the same events) stores nothing twice; each call makes its own.
   */
  async sendMany(
    events: readonly NewEvent[],
    { requestId = randomUUID(), timeout }: { readonly requestId?: string; readonly timeout?: Duration } = {},
  ): Promise<values.EventStatus[]> {
    const timeoutMs = timeout === undefined ? undefined : durationMs(timeout, "timeout");
    const statuses: values.EventStatus[] = [];
    for (const [number, batch] of batches(events).entries()) {
      if (this.#tracer !== undefined) {
        for (const one of batch) one.metadata = { ...this.#tracer.carried(one.metadata) };
      }
      const id = number > 0 ? `${requestId}:${number}` : requestId;
      const request = { environment: this.environment, requestId: id, events: batch };
      const response = await this.#calls.unary(({ events: stub }, o) => stub.sendEvents(request, o), { timeoutMs });
      statuses.push(...response.statuses.map(values.eventStatusOf));
    }
    return statuses;
  }

  /** One event with the runs it started. */
  async getEvent(eventId: string): Promise<values.StoredEvent> {
    const request = { environment: this.environment, eventId };
    const response = await this.#calls.unary(({ events }, options) => events.getEvent(request, options));
    return values.storedEventOf(response.event, response.runIds);
  }

  /** Events, newest first; a trailing * in the name matches any rest. Asks for pages as they are needed. */
  async *listEvents(
    name = "",
    { since, until, condition = "", oldestFirst = false, pageSize = 100 }: EventFilter = {},
  ): AsyncGenerator<values.StoredEvent> {
    const times = { fromMs: msOf(since), untilMs: msOf(until) };
    const filter = { environment: this.environment, name, ...times, condition, oldestFirst, pageSize };
    const pages = this.#pages((pageToken) =>
      this.#calls.unary(({ events }, options) => events.listEvents({ ...filter, pageToken }, options)),
    );
    for await (const page of pages) for (const one of page.events) yield values.storedEventOf(one);
  }

  /** Events as they are accepted, from now on, until the signal is aborted. */
  async *watchEvents(name = "", signal?: AbortSignal): AsyncGenerator<values.StoredEvent> {
    const request = { environment: this.environment, name };
    for await (const response of this.#calls.stream(({ events }, o) => events.watchEvents(request, o), signal)) {
      for (const one of response.events) yield values.storedEventOf(one);
    }
  }

  // --- functions ---

  /** The registered functions, of one app or of all. */
  async functions(app = ""): Promise<values.FunctionInfo[]> {
    const request = { environment: this.environment, app };
    const response = await this.#calls.unary(({ functions }, options) => functions.listFunctions(request, options));
    return response.functions.map(values.functionOf);
  }

  /** One function, by "app/name". */
  async getFunction(functionId: string): Promise<values.FunctionInfo> {
    const request = { environment: this.environment, functionId };
    const response = await this.#calls.unary(({ functions }, options) => functions.getFunction(request, options));
    return values.functionOf(present(response.function));
  }

  /** Starts a run of a function, or of "app/name", and returns once it is durable. */
  start<In, Out>(fn: DurableFunction<In, Out>, input: In, options?: StartOptions<Out>): Promise<RunHandle<Out>>;
  start<R = any>(fn: string, input?: unknown, options?: StartOptions<R>): Promise<RunHandle<R>>;
  async start(
    fn: AnyFunction,
    input: unknown = null,
    options: StartOptions<unknown> = {},
  ): Promise<RunHandle<unknown>> {
    const run = await this.#invoke(fn, input, options, 0);
    return new RunHandle(this, run, options.returns ?? schemaOf(fn));
  }

  /**
   * Starts a run and returns its output. Throws RunFailedError, RunCancelledError or RunTimedOutError. If `timeout` passes
   * first it throws WaitTimeoutError, and the run goes on.
   */
  invoke<In, Out>(
    fn: DurableFunction<In, Out>,
    input: In,
    options?: StartOptions<Out> & { readonly timeout?: Duration },
  ): Promise<Out>;
  invoke<R = any>(fn: string, input?: unknown, options?: StartOptions<R> & { readonly timeout?: Duration }): Promise<R>;
  async invoke(
    fn: AnyFunction,
    input: unknown = null,
    options: StartOptions<unknown> & { readonly timeout?: Duration } = {},
  ): Promise<unknown> {
    const deadline = new Deadline(options.timeout);
    const run = await this.#invoke(fn, input, options, deadline.nextWaitMs());
    return new RunHandle(this, run, options.returns ?? schemaOf(fn)).wait(deadline);
  }

  // --- runs ---

  /** One run, with what it waits for. */
  async getRun(runId: string): Promise<values.Run> {
    const request = { environment: this.environment, runId };
    const response = await this.#calls.unary(({ runs }, options) => runs.getRun(request, options));
    return values.runOf(present(response.run), response.waitingFor);
  }

  /** Runs that fit all filters, newest first, without their outputs. Asks for pages as they are needed. */
  async *listRuns(filter: RunFilter = {}): AsyncGenerator<values.Run> {
    const { app = "", eventId = "", parentRunId = "", statuses = [], since, until, pageSize = 100 } = filter;
    const { condition = "", errorType = "" } = filter;
    const request = {
      environment: this.environment,
      functionId: filter.function ?? "",
      app,
      statuses: numbersOf(statuses),
      eventId,
      parentRunId,
      fromMs: msOf(since),
      untilMs: msOf(until),
      condition,
      errorType,
      pageSize,
    };
    const pages = this.#pages((pageToken) =>
      this.#calls.unary(({ runs }, options) => runs.listRuns({ ...request, pageToken }, options)),
    );
    for await (const page of pages) for (const one of page.runs) yield values.runOf(one);
  }

  /**
   * Runs that came to grief, gathered by function and error. A page looks at a bounded number of runs; where it has a
   * `nextPageToken`, the next one looks at older runs.
   */
  async listFailures(filter: FailureFilter = {}): Promise<values.FailurePage> {
    const { functions = [], app = "", statuses = [], since, until, pageSize = 0, pageToken = "" } = filter;
    const request = {
      environment: this.environment,
      functionIds: [...functions],
      app,
      statuses: numbersOf(statuses),
      fromMs: msOf(since),
      untilMs: msOf(until),
      pageSize,
      pageToken,
    };
    return values.failurePageOf(await this.#calls.unary(({ runs }, options) => runs.listFailures(request, options)));
  }

  /** What a run did: outcomes its code saw, in order; then those on their way; then what is open. */
  async journal(runId: string): Promise<values.JournalEntry[]> {
    const request = { environment: this.environment, runId };
    const entries: values.JournalEntry[] = [];
    const pages = this.#pages((pageToken) =>
      this.#calls.unary(({ runs }, options) => runs.getJournal({ ...request, pageToken }, options)),
    );
    for await (const page of pages) entries.push(...page.entries.map(values.journalEntryOf));
    return entries;
  }

  /** Waits until a run has ended, or the time is over: look at `run.ended`. */
  async waitRun(runId: string, timeout?: Duration): Promise<values.Run> {
    return values.runOf(await this.awaitEnd(runId, new Deadline(timeout)));
  }

  /** The run each time something changes, until it has ended or the signal is aborted. */
  async *watchRun(runId: string, signal?: AbortSignal): AsyncGenerator<values.RunChange> {
    const request = { environment: this.environment, runId };
    for await (const response of this.#calls.stream(({ runs }, o) => runs.watchRun(request, o), signal)) {
      const run = values.runOf(present(response.run), response.waitingFor);
      yield { run, entries: response.entries.map(values.journalEntryOf) };
    }
  }

  /** Asks a run to end. It may still run clean-up steps; waitRun tells when it has ended. */
  async cancelRun(runId: string, reason = ""): Promise<values.Run> {
    const request = { environment: this.environment, runId, reason };
    const response = await this.#calls.unary(({ runs }, options) => runs.cancelRun(request, options));
    return values.runOf(present(response.run));
  }

  // --- operating ---

  /** The workers that are connected, or were until just now. */
  async workers(): Promise<values.WorkerInfo[]> {
    const request = { environment: this.environment };
    const response = await this.#calls.unary(({ admin }, options) => admin.listWorkers(request, options));
    return response.workers.map(values.workerOf);
  }

  /** Moves a dev server's clock, due instant by due instant, for at most `deadline` ("30s") of real time. */
  async advanceClock(duration: Duration, { deadline = "30s" }: { readonly deadline?: Duration } = {}) {
    const deadlineMs = durationMs(deadline, "deadline");
    const request = { advanceMs: BigInt(durationMs(duration, "duration")), deadlineMs };
    const response = await this.#calls.unary(({ admin }, options) => admin.advanceClock(request, options), {
      timeoutMs: deadlineMs + SLACK_MS,
      repeatable: false,
    });
    const { nowMs, offsetMs, complete, fired } = response;
    const advance: values.ClockAdvance = {
      now: values.timeOf(nowMs),
      offsetMs: Number(offsetMs),
      complete,
      fired: Number(fired),
    };
    return advance;
  }

  /** What the server is. */
  async serverInfo(): Promise<values.ServerInfo> {
    const info = await this.#calls.unary(({ admin }, options) => admin.getServerInfo({}, options));
    const { version, profile, defaultEnvironment, database, nowMs } = info;
    return { version, profile, defaultEnvironment, database, now: values.timeOf(nowMs) };
  }

  // --- inside ---

  async *#pages<T extends { readonly nextPageToken: string }>(page: (token: string) => Promise<T>): AsyncGenerator<T> {
    for (let token = ""; ;) {
      const one = await page(token);
      yield one;
      token = one.nextPageToken;
      if (token === "") return;
    }
  }

  async #invoke(fn: AnyFunction, input: unknown, options: StartOptions<unknown>, waitMs: number): Promise<RunMessage> {
    const functionId = typeof fn === "string" ? fn : fn.id;
    const data = codec.encode(input, `the input of ${functionId}`);
    if (data.byteLength > RESULT_BYTES) {
      throw new LimitError(`the input of ${functionId} has ${data.byteLength} bytes; result_bytes is ${RESULT_BYTES}`);
    }
    const { requestId = randomUUID(), metadata: given = {} } = options;
    const metadata = { ...(this.#tracer?.carried(given) ?? given) };
    const request = { environment: this.environment, functionId, input: { data }, requestId, waitMs, metadata };
    const response = await this.#calls.unary(({ functions }, o) => functions.invoke(request, o), {
      timeoutMs: Math.max(this.#timeoutMs, waitMs + SLACK_MS),
    });
    return present(response.run);
  }

  /** @internal WaitRun again and again until the run has ended or the deadline is over. */
  async awaitEnd(runId: string, deadline: Deadline): Promise<RunMessage> {
    for (;;) {
      const waitMs = deadline.nextWaitMs();
      const request = { environment: this.environment, runId, timeoutMs: Math.max(waitMs, 1) };
      const response = await this.#calls.unary(({ runs }, options) => runs.waitRun(request, options), {
        timeoutMs: Math.max(this.#timeoutMs, waitMs + SLACK_MS),
      });
      const run = present(response.run);
      if (values.hasEnded(values.statusOf(run.status)) || deadline.passed()) return run;
    }
  }
}

function batches(events: readonly NewEvent[]): NewEventMessage[][] {
  const made: NewEventMessage[][] = [];
  let room = 0;
  for (const event of events) {
    const message = toMessage(event, EVENT_BYTES);
    const bytes = toBinary(NewEventSchema, message).byteLength + 8;
    // Its metadata, say.
    if (bytes > SEND_BYTES) throw new LimitError(`event ${event.name} has ${bytes} bytes; send_bytes is ${SEND_BYTES}`);
    let batch = made.at(-1);
    if (batch === undefined || batch.length === BATCH_EVENTS || bytes > room) {
      batch = [];
      made.push(batch);
      room = BATCH_BYTES;
    }
    batch.push(message);
    room -= bytes;
  }
  return made;
}

function schemaOf(fn: AnyFunction): StandardSchemaV1 | undefined {
  return typeof fn === "string" ? undefined : fn.output;
}

function msOf(instant: Date | undefined): bigint {
  return instant === undefined ? 0n : BigInt(unixMs(instant, "time"));
}

function present<T>(message: T | undefined): T {
  if (message === undefined) throw errorOf(Code.Internal, "the server left out what was asked for", {});
  return message;
}
