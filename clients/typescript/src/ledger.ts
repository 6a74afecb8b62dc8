// What a server keeps of one run, in memory, for the test kit: outcomes, what is open and until when, and events.

import { type MessageInitShape, create } from "@bufbuild/protobuf";
import { randomUUID } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import * as codec from "./codec.js";
import { UsageError } from "./errors.js";
import { INVOKED, type NewEvent } from "./event.js";
import type { Command } from "./outbox.js";
import type { Failure, RetryPolicy } from "./v1/common_pb.js";
import { type Assign, AssignSchema, type Outcome, OutcomeSchema, StepKind, type WaitForEvent } from "./v1/step_pb.js";

const ATTEMPTS_DEFAULT = 4;
const DELAY_MS_DEFAULT = 1000;
const DELAY_MS_MAX_DEFAULT = 600_000;
const FACTOR_DEFAULT = 2;

/** Something that the run waits for. */
export interface Open {
  readonly key: string;
  readonly kind: StepKind;
  readonly target: string;
  /** When it is over; Infinity for what has no end of its own. */
  readonly dueMs: number;
  readonly wait?: WaitForEvent;
  /** Of a back-off: the failure of the attempt before. */
  readonly failure?: Failure | undefined;
}

interface Accepted {
  readonly id: string;
  readonly event: NewEvent;
  readonly timeMs: number;
  consumed: boolean;
}

/** What a failed attempt of a body, or of the function, says. */
interface Failed {
  readonly failure?: Failure | undefined;
  readonly retry?: RetryPolicy | undefined;
  readonly retryAfterMs?: bigint | undefined;
}

/** What starts the run. */
export interface Beginning {
  readonly functionId: string;
  readonly createdMs: number;
  /** The name of the event; undefined: the function is invoked. */
  readonly event: string | undefined;
  /** The data of its events: one, unless it gathered them. */
  readonly data: readonly Uint8Array[];
}

/** One run, as a server would keep it. */
export class Ledger {
  readonly open = new Map<string, Open>();
  readonly #rows = new Map<string, Outcome>();
  readonly #events: Accepted[] = [];
  /** Outcomes that have come since the code was last told. */
  readonly arrived: Outcome[] = [];

  constructor(
    private readonly beginning: Beginning,
    private readonly fits: (condition: string, event: NewEvent) => boolean,
  ) {}

  /** The assignment of the run, with all that is known of it. */
  assign(turn: number): Assign {
    const { functionId, createdMs, event = INVOKED, data } = this.beginning;
    const rows = [...this.#rows.values()].sort((a, b) => Number(a.number - b.number));
    const events = data.map((one, n) => ({
      id: n === 0 ? "evt_test" : `evt_test:${n + 1}`,
      name: event,
      data: { data: one },
      timeMs: BigInt(createdMs),
    }));
    return create(AssignSchema, {
      runId: "run_test",
      turn,
      functionId,
      createdMs: BigInt(createdMs),
      event: events[0],
      ...(events.length > 1 && { events }),
      journal: rows.map((row) => ({ ...row })),
      open: Array.from(this.open.values(), ({ key, kind, target }) => ({ key, kind, target })),
    });
  }

  /** Takes a command; answers the number that is durable with it, or 0. */
  take(command: Command, nowMs: number): number {
    switch (command.$typeName) {
      case "stepwell.v1.StepResult": {
        const { key, number, attempt, output, endedMs: timeMs } = command;
        const result = { case: "output" as const, value: output ?? {} };
        this.#rows.set(key, create(OutcomeSchema, { key, kind: StepKind.RUN, number, attempt, result, timeMs }));
        return Number(number);
      }
      case "stepwell.v1.Delivered":
        for (const { key, number } of command.keys) {
          const row = this.#rows.get(key) ?? create(OutcomeSchema, { key });
          row.number = number;
          this.#rows.set(key, row);
        }
        return Number(command.keys.at(-1)?.number ?? 0n);
      case "stepwell.v1.Sleep": {
        const { case: how, value = 0n } = command.until;
        this.#begin(command.key, StepKind.SLEEP, "", Number(value) + (how === "durationMs" ? nowMs : 0));
        return 0;
      }
      case "stepwell.v1.WaitForEvent":
        this.#begin(command.key, StepKind.EVENT, command.event, nowMs + Number(command.timeoutMs), command);
        return 0;
      case "stepwell.v1.Invoke": {
        const dueMs = command.timeoutMs > 0n ? nowMs + Number(command.timeoutMs) : Infinity;
        this.#begin(command.key, StepKind.INVOKE, command.functionId, dueMs);
        return 0;
      }
      case "stepwell.v1.Abandon":
        this.open.delete(command.key);
        if (this.#rows.get(command.key)?.number === 0n) this.#rows.delete(command.key);
        return 0;
      default:
        return 0;
    }
  }

  #begin(key: string, kind: StepKind, target: string, dueMs: number, wait?: WaitForEvent): void {
    if (!this.#rows.has(key)) this.open.set(key, { key, kind, target, dueMs, ...(wait && { wait }) });
  }

  /** An attempt failed: opens a back-off, or answers false where none is left. */
  backOff(key: string, attempt: number, { failure, retry, retryAfterMs }: Failed, nowMs: number): boolean {
    if (failure?.nonRetriable === true || attempt >= (retry?.maxAttempts || ATTEMPTS_DEFAULT)) return false;
    const initialMs = Number(retry?.initialMs ?? 0n) || DELAY_MS_DEFAULT;
    const factor = (retry?.factor ?? 0) || FACTOR_DEFAULT;
    const maxMs = Number(retry?.maxMs ?? 0n) || DELAY_MS_MAX_DEFAULT;
    // Without jitter: a test wants to know when.
    const delayMs = Number(retryAfterMs ?? Math.min(initialMs * factor ** (attempt - 1), maxMs));
    const next = `${key}#${attempt + 1}`;
    this.open.set(next, { key: next, kind: StepKind.RETRY, target: "", dueMs: nowMs + delayMs, failure });
    return true;
  }

  /** The first of what is due by then. */
  nextDue(untilMs: number): Open | undefined {
    let first: Open | undefined;
    for (const one of this.open.values()) {
      if (one.dueMs <= untilMs && (first === undefined || one.dueMs < first.dueMs)) first = one;
    }
    return first;
  }

  /** What is due, is over. */
  fire({ key, kind, failure }: Open, nowMs: number): void {
    if (kind === StepKind.INVOKE) {
      this.resolve(key, kind, { case: "failure", value: { type: "Timeout", reason: "TIMEOUT" } }, nowMs);
    } else if (kind === StepKind.RETRY) {
      const attempt = Number(key.slice(key.lastIndexOf("#") + 1));
      this.resolve(key, kind, { case: "failure", value: failure ?? {} }, nowMs, attempt);
    } else this.resolve(key, kind, { case: "output", value: {} }, nowMs);
  }

  /** An outcome has come. */
  resolve(
    key: string,
    kind: StepKind,
    result: NonNullable<MessageInitShape<typeof OutcomeSchema>["result"]>,
    nowMs: number,
    attempt = 1,
  ): void {
    const target = this.open.get(key)?.target ?? "";
    this.open.delete(key);
    const row = create(OutcomeSchema, { key, kind, target, attempt, result, timeMs: BigInt(nowMs) });
    this.#rows.set(key, row);
    this.arrived.push(row);
  }

  /** Takes an event; answers its id. */
  accept(event: NewEvent, nowMs: number): string {
    const id = `evt_${randomUUID().replaceAll("-", "")}`;
    this.#events.push({ id, event, timeMs: event.time?.getTime() ?? nowMs, consumed: false });
    return id;
  }

  /** Resolves the waits that an event fits, each event once. */
  match(nowMs: number): void {
    for (const accepted of this.#events) {
      if (accepted.consumed) continue;
      const { id, event, timeMs } = accepted;
      const waits = [...this.open.values()].filter(({ wait }) => wait !== undefined && this.#fit(wait, event));
      const data = { id, name: event.name, data: event.data ?? {}, time_ms: timeMs, metadata: event.metadata ?? {} };
      for (const { key } of waits) {
        accepted.consumed = true;
        const value = { data: codec.encode(data, "an event") };
        this.resolve(key, StepKind.EVENT, { case: "output", value }, nowMs);
      }
    }
  }

  #fit(wait: WaitForEvent, event: NewEvent): boolean {
    if (wait.event !== event.name) return false;
    if (wait.matchPath) {
      const wanted = codec.decode(wait.matchValue, "match");
      if (!isDeepStrictEqual(at({ ...event, data: through(event.data ?? {}) }, wait.matchPath), wanted)) return false;
    }
    return wait.condition === "" || this.fits(wait.condition, event);
  }
}

/** A value as it is after its way through JSON. */
function through(value: unknown): unknown {
  return codec.decode(codec.encode(value, "an event"), "an event");
}

function at(value: unknown, path: string): unknown {
  let found = value;
  for (const part of path.split(".")) {
    if (typeof found !== "object" || found === null || Array.isArray(found)) return undefined;
    found = (found as Record<string, unknown>)[part];
  }
  return found;
}

/** For runs whose waits have conditions, while the test does not say which events fit. */
export function noConditions(condition: string): never {
  throw new UsageError(
    `CEL is not evaluated in memory: give the run "fits" to decide about ${JSON.stringify(condition)}`,
  );
}
