// What limits, gathers and orders the runs of a function: options of App.function.
//
// A `key` is a CEL expression over `event`; runs whose key has the same value share what the option says.

import { type MessageInitShape, create } from "@bufbuild/protobuf";
import { inspect } from "node:util";
import { type Duration, DURATION_MS_MAX } from "./duration.js";
import { UsageError, durationMs } from "./errors.js";
import {
  type ConcurrencySchema,
  Concurrency_Hold,
  Concurrency_Scope,
  type Flow,
  FlowSchema,
  Singleton_Mode,
} from "./v1/function_pb.js";

const KEY_BYTES_MAX = 2048;
const COUNT_MAX = 1_000_000;
const CONCURRENCY_MAX = 4;
const BATCH_MAX = 1000;
const LABELS_MAX = 16;
const LABEL_BYTES_MAX = 128;
const UNPRINTABLE = /(?! )[\p{C}\p{Z}]/u;

const SCOPES = {
  function: Concurrency_Scope.FUNCTION,
  app: Concurrency_Scope.APP,
  environment: Concurrency_Scope.ENVIRONMENT,
} as const;
const HOLDS = { executing: Concurrency_Hold.EXECUTING, run: Concurrency_Hold.RUN } as const;
const MODES = { skip: Singleton_Mode.SKIP, cancel: Singleton_Mode.CANCEL } as const;

/** At most `limit` runs of one key at once; the others wait in the queue. */
export interface Concurrency {
  readonly limit: number;
  readonly key?: string;
  /**
   * Among whose runs it counts; "function" by default. In a wider scope all limits whose keys have the same value count the
   * same runs.
   */
  readonly scope?: keyof typeof SCOPES;
  /** A run counts while it executes, not while it sleeps or waits; with "run" from its first start to its end. */
  readonly hold?: keyof typeof HOLDS;
}

/** At most `limit` starts of one key in each `period`, evenly spread, `burst` more at once; the others wait. */
export interface Throttle {
  readonly limit: number;
  readonly period: Duration;
  readonly burst?: number;
  readonly key?: string;
}

/** At most `limit` runs of one key in any `period`; an event too many is recorded as a skipped run. */
export interface RateLimit {
  readonly limit: number;
  readonly period: Duration;
  readonly key?: string;
}

/** One run for a flurry of events of one key: it starts once none has come for `period`, with the last one. */
export interface Debounce {
  readonly period: Duration;
  readonly key?: string;
  /** It starts so long after the first one at the latest. */
  readonly maxWait?: Duration;
}

/** One run for many events of one key: it starts with `maxSize` of them, or `timeout` after the first. */
export interface Batch {
  readonly maxSize: number;
  readonly timeout: Duration;
  readonly key?: string;
  /** An event that does not fit this condition starts a run alone, at once. */
  readonly if?: string;
}

/**
 * While a run of one key lives no other one starts: the new one is skipped, or the old one cancelled. Not together with a batch
 * or a debounce.
 */
export interface Singleton {
  readonly key?: string;
  /** "skip" by default. */
  readonly mode?: keyof typeof MODES;
}

/** Names and values that workers have, and functions ask for. */
export type Labels = Readonly<Record<string, string>>;

/** The options of a function that are about flow. */
export interface FlowOptions {
  /** A number, a Concurrency, or up to four of them, which all hold. */
  readonly concurrency?: number | Concurrency | readonly (number | Concurrency)[];
  readonly throttle?: Throttle;
  readonly rateLimit?: RateLimit;
  readonly debounce?: Debounce;
  readonly batch?: Batch;
  /** `true` is one live run of the function. */
  readonly singleton?: boolean | Singleton;
  /** CEL over `event`: whole seconds by which a run goes before others that were queued later, or after them if negative. */
  readonly priority?: string;
}

/** What the worker says of a function's flow; undefined where nothing was given. Throws UsageError naming the option. */
export function flowOf(options: FlowOptions): Flow | undefined {
  const { concurrency = [], throttle, rateLimit, debounce, batch, singleton = false, priority = "" } = options;
  const flow = create(FlowSchema, {
    concurrency: option("concurrency", () => limitsOf(concurrency)),
    ...(throttle !== undefined && { throttle: option("throttle", () => throttleOf(throttle)) }),
    ...(rateLimit !== undefined && { rateLimit: option("rateLimit", () => rateLimitOf(rateLimit)) }),
    ...(debounce !== undefined && { debounce: option("debounce", () => debounceOf(debounce)) }),
    ...(batch !== undefined && { batch: option("batch", () => batchOf(batch)) }),
    ...(singleton !== false && { singleton: option("singleton", () => singletonOf(singleton)) }),
    priority: option("priority", () => expression(priority)),
  });
  if (batch !== undefined && debounce !== undefined) {
    throw new UsageError("batch: a function gathers events by batch or by debounce, not by both");
  }
  if (flow.singleton !== undefined && (batch !== undefined || debounce !== undefined)) {
    throw new UsageError("singleton: not together with batch or debounce");
  }
  const parts = [throttle, rateLimit, debounce, batch].some((one) => one !== undefined);
  return parts || flow.concurrency.length > 0 || flow.singleton !== undefined || priority !== "" ? flow : undefined;
}

/** Labels of a function or a worker, checked. Throws UsageError. */
export function labelsOf(labels: unknown): Record<string, string> {
  if (typeof labels !== "object" || labels === null || Array.isArray(labels)) {
    throw new UsageError(`labels: ${show(labels)} is not a mapping of names to values`);
  }
  const found = Object.entries(labels as Record<string, unknown>);
  if (found.length > LABELS_MAX) throw new UsageError(`labels: at most ${LABELS_MAX}`);
  for (const [name, value] of found) {
    for (const text of [name, value]) {
      const fits = typeof text === "string" && !UNPRINTABLE.test(text) && Buffer.byteLength(text) <= LABEL_BYTES_MAX;
      if (!fits || name === "") {
        throw new UsageError(`labels: ${show(name)}: names and values are printable text of at most 128 bytes`);
      }
    }
  }
  return Object.fromEntries(found) as Record<string, string>;
}

/** Names the option in what its check throws. */
function option<T>(name: string, check: () => T): T {
  try {
    return check();
  } catch (error) {
    if (error instanceof UsageError) throw new UsageError(`${name}: ${error.message}`);
    throw error;
  }
}

function limitsOf(given: NonNullable<FlowOptions["concurrency"]>): MessageInitShape<typeof ConcurrencySchema>[] {
  const items: readonly (number | Concurrency)[] = Array.isArray(given) ? given : [given as number | Concurrency];
  if (items.length > CONCURRENCY_MAX) throw new UsageError(`at most ${CONCURRENCY_MAX} limits`);
  const limits = items.map((item) => {
    const limit = typeof item === "number" ? { limit: item } : object(item, "neither a number nor a Concurrency");
    return {
      limit: count("limit", limit.limit),
      key: expression(limit.key),
      scope: choice("scope", limit.scope ?? "function", SCOPES),
      hold: choice("hold", limit.hold ?? "executing", HOLDS),
    };
  });
  if (new Set(limits.map(({ key, scope, hold }) => `${scope} ${hold} ${key}`)).size < limits.length) {
    throw new UsageError("two limits count the same runs");
  }
  return limits;
}

function throttleOf(given: Throttle) {
  const { limit, period, burst = 0, key } = object(given, "not a Throttle");
  return {
    limit: count("limit", limit),
    periodMs: span("period", period, 1000),
    burst: count("burst", burst, 0),
    key: expression(key),
  };
}

function rateLimitOf(given: RateLimit) {
  const { limit, period, key } = object(given, "not a RateLimit");
  return { limit: count("limit", limit), periodMs: span("period", period, 1000), key: expression(key) };
}

function debounceOf(given: Debounce) {
  const { period, key, maxWait } = object(given, "not a Debounce");
  const periodMs = span("period", period, 100);
  const maxWaitMs = maxWait === undefined ? 0n : span("maxWait", maxWait, Number(periodMs));
  return { periodMs, key: expression(key), maxWaitMs };
}

function batchOf(given: Batch) {
  const { maxSize, timeout, key, if: condition } = object(given, "not a Batch");
  return {
    maxSize: count("maxSize", maxSize, 2, BATCH_MAX),
    timeoutMs: span("timeout", timeout, 100),
    key: expression(key),
    condition: expression(condition),
  };
}

function singletonOf(given: true | Singleton) {
  const { key, mode = "skip" } = given === true ? {} : object(given, "neither true nor a Singleton");
  return { key: expression(key), mode: choice("mode", mode, MODES) };
}

function object<T>(given: T, what: string): T & object {
  if (typeof given === "object" && given !== null && !Array.isArray(given)) return given;
  throw new UsageError(`${show(given)} is ${what}`);
}

function count(name: string, value: unknown, least = 1, most = COUNT_MAX): number {
  if (Number.isInteger(value) && (value as number) >= least && (value as number) <= most) return value as number;
  throw new UsageError(`${name} ${show(value)} is not a whole number from ${least} to ${most}`);
}

function span(name: string, value: Duration, leastMs: number): bigint {
  const ms = durationMs(value, name);
  if (ms >= leastMs && ms <= DURATION_MS_MAX) return BigInt(ms);
  throw new UsageError(`${name} ${show(value)} is not ${leastMs} ms to 366 days`);
}

function expression(value: unknown = ""): string {
  if (typeof value !== "string" || !value.isWellFormed())
    throw new UsageError(`${show(value)} is not a CEL expression`);
  if (Buffer.byteLength(value) > KEY_BYTES_MAX) {
    throw new UsageError(`an expression is at most ${KEY_BYTES_MAX} bytes`);
  }
  return value;
}

function choice<C extends Readonly<Record<string, number>>>(name: string, value: unknown, choices: C): C[keyof C] {
  if (typeof value === "string" && Object.hasOwn(choices, value)) return choices[value] as C[keyof C];
  throw new UsageError(`${name} ${show(value)} is none of ${Object.keys(choices).join(", ")}`);
}

function show(value: unknown): string {
  return typeof value === "string" ? JSON.stringify(value) : inspect(value, { depth: 0 });
}
