// The half of the re-entry core that faces the code of a run: calls get their keys, begin and are given up.

import { create } from "@bufbuild/protobuf";
import type { Call } from "./call.js";
import { RunRandom } from "./chance.js";
import { Fenced, LimitError, OutsideStepError } from "./errors.js";
import type { DurableFunction } from "./function.js";
import { Journal } from "./journal.js";
import { Keys } from "./keys.js";
import { LazySignal } from "./lazy_signal.js";
import { location } from "./location.js";
import { Outbox } from "./outbox.js";
import type { RunTrace } from "./trace.js";
import type { Event as EventMessage } from "./v1/event_pb.js";
import { EventSchema } from "./v1/event_pb.js";
import { AbandonSchema, type Assign, type Limits, MismatchSchema, StepKind } from "./v1/step_pb.js";

const FENCED_CALLS_MAX = 100;

/** Where the core is. NEW → EXECUTING ⇄ PARKED → ENDED; FENCED from anywhere. */
export type State = "NEW" | "EXECUTING" | "PARKED" | "ENDED" | "FENCED";

/** Calls that a signal gives up. */
interface Watch {
  readonly calls: Set<Call>;
  readonly aborted: () => void;
}

/** What Step sees of one run; reentry.ts adds the half that faces the host. */
export abstract class Core {
  readonly runId: string;
  readonly turn: number;
  /** The time of the last outcome that the code has seen. */
  nowMs: number;
  readonly event: EventMessage;
  /** All events of a run that gathered them, else the one. */
  readonly events: readonly EventMessage[];
  readonly chance: RunRandom;
  /** Aborted when the run is cancelled. */
  readonly cancellation = new LazySignal();
  /** Keys whose bodies the host is to interrupt. */
  interrupts: string[] = [];
  state: State = "NEW";
  /** Set by the host where it traces. */
  trace: RunTrace | undefined;

  protected readonly journal: Journal;
  protected readonly outbox: Outbox;
  protected readonly keys: Keys;
  /** What must be durable before a body called now may begin. */
  protected watermark: number;
  /** Open calls by key, in the order in which they were made. */
  protected readonly calls = new Map<string, Call>();
  /** Bodies that were called and have not begun. */
  protected waiting: Call[] = [];
  protected readonly executing = new Map<string, Call>();
  /** Keys that were asked for after their outcome's turn had passed. */
  protected due: string[] = [];
  /** The code runs because an outcome was delivered to it. At any other time something foreign has resumed it. */
  protected inTurn = false;
  /** What the code did while it should have been waiting. */
  protected foreign: OutsideStepError | undefined;
  readonly #watched = new Map<AbortSignal, Watch>();
  #lastCall = "";
  #fencedCalls = 0;

  constructor(
    readonly fn: DurableFunction<never, unknown>,
    assign: Assign,
    readonly limits: Limits,
    /** Called when the code went on by itself: the host then calls `outside`. */
    protected readonly wake: () => void,
  ) {
    this.runId = assign.runId;
    this.chance = new RunRandom(assign.runId);
    this.turn = assign.turn;
    this.nowMs = Number(assign.createdMs);
    this.event = assign.event ?? create(EventSchema);
    this.events = assign.events.length > 0 ? assign.events : [this.event];
    this.journal = new Journal(assign);
    this.outbox = new Outbox(assign.runId, assign.turn);
    this.keys = new Keys(limits);
    this.watermark = this.journal.lastNumber;
  }

  /** Which attempt of the function this is, from 1. */
  get attempt(): number {
    return this.journal.functionAttempt;
  }

  /** What the code did last, for people who look for the place where it hangs. */
  protected get whereabouts(): string {
    return this.#lastCall
      ? `after step ${JSON.stringify(this.#lastCall)} of ${this.fn.id}`
      : `at the start of ${this.fn.id}`;
  }

  /** Throws OutsideStepError unless the code of this run is calling, in its turn. */
  checkCaller(what: string): void {
    if (this.inTurn || this.state === "ENDED" || this.state === "FENCED") return;
    throw new OutsideStepError(
      `${what} was called where the code of ${this.fn.id} should not run: in the body of a step, or after awaiting ` +
        `something that is no step (${this.whereabouts})`,
    );
  }

  /** Gives a call its key and begins the step, unless the journal or the server knows it already. */
  begin(call: Call, name: string): void {
    if (this.state !== "EXECUTING") {
      this.#refuse();
      return;
    }
    const { branches } = this.limits;
    if (branches && this.calls.size >= branches) {
      throw new LimitError(`step ${name} is one more than the ${branches} open at once (branches)`);
    }
    const key = (call.key = this.#lastCall = this.keys.give(name));
    this.calls.set(key, call);
    if (this.journal.known(key) && this.#isKnown(call)) return;
    if (call.kind === StepKind.RUN) {
      call.need = this.watermark;
      this.waiting.push(call);
      return;
    }
    call.openKey = key;
    const command = call.command;
    if (command === undefined) throw new Error("a call that is no body has a command");
    command.runId = this.runId;
    command.turn = this.turn;
    command.key = key;
    this.outbox.emit(command);
  }

  /** Whether the call has only to wait: its outcome is here, or the server holds it open. */
  #isKnown(call: Call): boolean {
    const { journal } = this;
    const difference = journal.difference(call);
    if (difference !== undefined) this.#mismatch(call.key, difference);
    if (journal.hasOutcome(call.key)) {
      if (journal.isDue(call.key)) this.due.push(call.key);
      return true;
    }
    const failed = journal.attempts.get(call.key);
    if (failed !== undefined) {
      journal.attempts.delete(call.key);
      call.attempt = failed.attempt;
      call.lastError = failed.lastError;
    }
    const opened = journal.open.get(call.key);
    if (opened === undefined) return false;
    journal.open.delete(call.key);
    call.openKey = opened.key;
    return true;
  }

  /** Gives the call up when the signal is aborted. However many calls share a signal, it has one listener. */
  watch(call: Call, signal: AbortSignal): void {
    const watch = this.#watched.get(signal) ?? this.#listen(signal);
    watch.calls.add(call);
    const before = call.onSettled;
    call.onSettled = () => {
      before?.();
      watch.calls.delete(call);
      if (watch.calls.size > 0) return;
      signal.removeEventListener("abort", watch.aborted);
      this.#watched.delete(signal);
    };
  }

  #listen(signal: AbortSignal): Watch {
    const calls = new Set<Call>();
    const aborted = () => {
      for (const one of calls) this.giveUp(one, signal.reason);
    };
    const watch = { calls, aborted };
    this.#watched.set(signal, watch);
    signal.addEventListener("abort", aborted, { once: true });
    return watch;
  }

  /** The code gave a call up: tells the server, unless it has not heard of it yet (H18c). The promise rejects. */
  giveUp(call: Call, reason: unknown): void {
    if (this.calls.get(call.key) !== call) return;
    if (!this.inTurn) {
      // A signal that something foreign aborts comes at another time when the code runs again.
      this.foreign ??= new OutsideStepError(
        `the signal of step ${JSON.stringify(call.key)} of ${this.fn.id} was aborted from outside the function's code`,
      );
      this.wake();
      return;
    }
    this.abandon(call);
    call.reject(reason);
  }

  protected abandon(call: Call): void {
    const { key } = call;
    this.calls.delete(key);
    if (this.state !== "EXECUTING") return;
    if (this.executing.delete(key)) {
      this.interrupts.push(key);
      this.#emitAbandon(key);
      return;
    }
    const at = this.waiting.indexOf(call);
    if (at >= 0) {
      this.waiting.splice(at, 1);
      if (call.attempt > 1) this.#emitAbandon(key);
      return;
    }
    if (!call.openKey) return;
    const { command } = call;
    const lasting =
      call.kind === StepKind.RUN ||
      call.kind === StepKind.SEND ||
      (command?.$typeName === "stepwell.v1.Invoke" && command.detached);
    if (lasting || !this.outbox.withdraw(command)) this.#emitAbandon(call.openKey);
  }

  #emitAbandon(key: string): void {
    this.outbox.emit(create(AbandonSchema, { runId: this.runId, turn: this.turn, key }));
  }

  /** A step call of a fenced or ended run. Code that catches everything and tries for ever is left hanging. */
  #refuse(): void {
    this.#fencedCalls += 1;
    if (this.#fencedCalls <= FENCED_CALLS_MAX) throw new Fenced(`run ${this.runId} is no longer this worker's`);
  }

  #mismatch(key: string, { recorded, attempted }: { recorded: string; attempted: string }): never {
    this.outbox.withdrawBeginnings();
    const place = { runId: this.runId, turn: this.turn, key, location: location() };
    this.outbox.emit(create(MismatchSchema, { ...place, recorded, attempted }));
    this.state = "FENCED";
    throw new Fenced(`step ${key}: the journal holds ${recorded}, the code asks for ${attempted}`);
  }
}
