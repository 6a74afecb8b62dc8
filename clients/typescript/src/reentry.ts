// The re-entry core: journal and outcomes in, commands and bodies out. It does no I/O and reads no clock.
//
// The host calls start, resolve, finish, cancel, outside; each is a generator that yields where the code of the run is to run
// until it is quiescent (see quiescence.ts). ack and evict act at once, also between two such places. When a generator has
// ended, that is one decision: the host sends `takeCommands()` in one frame, executes `bodies` and stops `interrupts`.

import type { Call } from "./call.js";
import { type BodyEnd, Decision } from "./decision.js";
import type { Settled } from "./endings.js";
import { CancelledError, OutsideStepError } from "./errors.js";
import { type Event, fromMessage } from "./event.js";
import type { DurableFunction } from "./function.js";
import { CANCEL_KEY, RUN_KEY, splitAttempt } from "./journal.js";
import type { Command } from "./outbox.js";
import { type Assign, type Limits, type Outcome, StepKind } from "./v1/step_pb.js";

/** Work of the core that lets the code of the run run at each yield. */
export type Turns = Generator<void, void, void>;

/** One run in the worker's memory. */
export class Reentry extends Decision {
  /** Why the code is to be unwound, once it has started. */
  #cancelAsked: string | undefined;
  #ending: Settled | undefined;
  /** Keys received in this turn. */
  readonly #seen = new Set<string>();

  constructor(fn: DurableFunction<never, unknown>, assign: Assign, limits: Limits, wake: () => void) {
    super(fn, assign, limits, wake);
    this.#cancelAsked = assign.cancelled ? (assign.cancelFailure?.message ?? "") : undefined;
  }

  // -- what the host calls ---------------------------------------------------------------------------------------

  /** Messages to send in one frame. */
  takeCommands(): Command[] {
    return this.outbox.take();
  }

  /** Whether the host may forget the run: it is fenced, or its end is durable. */
  get settled(): boolean {
    return this.state === "FENCED" || (this.state === "ENDED" && this.acked >= this.endNumber);
  }

  /** Whether something the code has seen is not yet durable. */
  get pending(): boolean {
    return this.outbox.pending;
  }

  /** Commands to send again after a reconnect, in order (H11). Those not yet taken are not among them. */
  unacknowledged(): Command[] {
    return this.outbox.unacknowledged(this.state === "PARKED");
  }

  /** Runs the code over its journal up to where it was, then on. */
  *start(): Turns {
    this.state = "EXECUTING";
    this.deciding = true;
    const early = this.journal.takePending();
    for (const outcome of early) {
      this.#seen.add(outcome.key);
      // Leave to run the function again is seen first of all: the code may end without asking for anything.
      if (outcome.key.startsWith(RUN_KEY)) this.#see(outcome.key);
    }
    yield* this.#enter();
    for (const outcome of this.journal.outcomes) {
      if (this.state !== "EXECUTING") break;
      yield* this.#replay(outcome);
    }
    // Cancel comes last: had the code seen it before these, that would be durable and so in the journal (H1a).
    for (const outcome of early) yield* this.#receive(outcome);
    if (this.#cancelAsked !== undefined) yield* this.#receiveCancel(this.#cancelAsked);
    this.closeDecision();
  }

  /** Takes an outcome from the server; one sent twice counts once. Before start it waits for the journal. */
  *resolve(outcome: Outcome): Turns {
    if (this.#seen.has(outcome.key)) return;
    this.#seen.add(outcome.key);
    this.received += 1;
    if (this.state === "NEW") {
      this.journal.addPending(outcome);
      return;
    }
    this.deciding = true;
    yield* this.#receive(outcome);
    this.closeDecision();
  }

  /** Takes the end of a body. An end that nobody asks for any more is ignored. */
  *finish(key: string, attempt: number, end: BodyEnd): Turns {
    const call = this.executing.get(key);
    if (call === undefined || call.attempt !== attempt) return;
    this.executing.delete(key);
    this.deciding = true;
    if ("error" in end) {
      this.bodyFailed(call, end.error, end);
    } else {
      let result: { data: Uint8Array; value: unknown } | undefined;
      try {
        result = call.roundTrip(end.value, this.limits.resultBytes);
      } catch (refused) {
        this.bodyFailed(call, refused, end);
      }
      if (result !== undefined) {
        this.bodySucceeded(call, result.data, end);
        this.#pass(end.endedMs ?? 0);
        call.resolve(result.value);
        yield* this.#advance();
      }
    }
    this.closeDecision();
  }

  /** Everything up to the number is durable: bodies that waited for it begin. */
  ack(number: number): void {
    if (number <= this.acked) return;
    this.acked = number;
    this.outbox.acknowledge(number);
    if (!this.deciding) this.closeDecision();
  }

  /** The code's open calls reject with CancelledError(why); it may clean up in further steps. At its end it is cancelled. */
  *cancel(why = ""): Turns {
    if (this.state === "NEW") {
      this.#cancelAsked = why;
      return;
    }
    if (this.cancelled || !this.#alive) return;
    this.deciding = true;
    yield* this.#receiveCancel(why);
    this.closeDecision();
  }

  /** The code went on though no outcome was delivered to it: what it does next time cannot be known, so it fails. */
  *outside(): Turns {
    if (this.foreign === undefined || !this.#alive) return;
    this.deciding = true;
    yield; // What it does in this moment is done.
    this.state = "EXECUTING";
    this.endWith(this.foreign);
    this.closeDecision();
  }

  /** The run is no longer this worker's: fences it, then unwinds its code silently (H3). */
  evict(): void {
    if (this.state === "FENCED") return;
    this.state = "FENCED";
    this.outbox.clear();
    this.bodies = [];
    this.letGo();
  }

  // -- delivery --------------------------------------------------------------------------------------------------

  get #alive(): boolean {
    return this.state === "EXECUTING" || this.state === "PARKED";
  }

  /** Calls the function. */
  *#enter(): Turns {
    let events: Event[];
    try {
      events = this.events.map((one) => fromMessage(one, this.fn.schemaOf(one.name)));
    } catch (error) {
      this.endWith(error);
      return;
    }
    this.inTurn = true;
    const main = this.fn.start(this, events);
    main.then(
      (value) => this.#codeEnded({ value }),
      (error: unknown) => this.#codeEnded({ error }),
    );
    yield* this.#advance();
  }

  #codeEnded(end: Settled): void {
    this.#ending = end;
    if (this.inTurn || !this.#alive) return;
    const error = "error" in end ? end.error : undefined;
    this.foreign ??=
      error instanceof OutsideStepError
        ? error
        : new OutsideStepError(`${this.fn.id} went on after awaiting something that is no step (${this.whereabouts})`);
    this.wake();
  }

  /** Runs the code until it is quiescent, then delivers what it asked for late, one at a time (H1b). */
  *#advance(): Turns {
    for (;;) {
      this.inTurn = true;
      yield;
      this.inTurn = false;
      if (this.state !== "EXECUTING") {
        this.letGo();
        return;
      }
      if (this.#ending !== undefined) {
        this.end(this.#ending);
        return;
      }
      const key = this.due.shift();
      if (key === undefined) return;
      const call = this.calls.get(key);
      const outcome = this.journal.take(key);
      if (call !== undefined) {
        if (outcome.number === 0n) this.#see(key);
        this.#settle(call, outcome);
      }
    }
  }

  /** Numbers an outcome made elsewhere. With another key open it was a choice: that must be durable (H1a). */
  #see(key: string): void {
    this.number += 1;
    this.outbox.defer(key, this.number);
    if (this.calls.size > 1 || key === CANCEL_KEY) {
      this.outbox.flush();
      this.watermark = this.number;
    }
  }

  #settle(call: Call, outcome: Outcome): void {
    this.calls.delete(call.key);
    this.#pass(outcome.timeMs);
    call.deliver(outcome);
  }

  #pass(timeMs: bigint | number): void {
    this.nowMs = Math.max(this.nowMs, Number(timeMs));
  }

  /** Delivers a recorded outcome; one that the code does not ask for is skipped, never awaited (H1b). */
  *#replay(outcome: Outcome): Turns {
    const { key } = outcome;
    if (key === CANCEL_KEY) {
      yield* this.#deliverCancel(messageOf(outcome), outcome.timeMs);
      return;
    }
    if (outcome.kind === StepKind.RETRY) {
      const { base, attempt } = splitAttempt(key);
      const lastError = outcome.result.case === "failure" ? outcome.result.value : undefined;
      this.#pass(outcome.timeMs);
      const call = this.calls.get(base);
      if (call === undefined) this.journal.attempts.set(base, { attempt, lastError });
      else if (call.kind === StepKind.RUN) Object.assign(call, { attempt, lastError });
      return;
    }
    const call = this.calls.get(key);
    if (call !== undefined) {
      this.journal.deliver(key);
      this.#settle(call, outcome);
      yield* this.#advance();
    } else if (!this.keys.has(key)) {
      this.journal.skip(key);
    }
  }

  *#receive(outcome: Outcome): Turns {
    const { key } = outcome;
    if (!this.#alive) return;
    if (key === CANCEL_KEY) {
      yield* this.#receiveCancel(messageOf(outcome));
      return;
    }
    if (outcome.kind === StepKind.RETRY) {
      this.#receiveRetry(outcome);
      return;
    }
    const call = this.calls.get(key);
    if (call === undefined) {
      if (!this.keys.has(key)) this.journal.inbox.set(key, outcome);
      return;
    }
    // Of a body: decided elsewhere, by an operator for example.
    if (this.executing.delete(key)) this.interrupts.push(key);
    this.waiting = this.waiting.filter((one) => one !== call);
    this.outbox.resolved(key);
    this.state = "EXECUTING";
    this.#see(key);
    this.#settle(call, outcome);
    yield* this.#advance();
  }

  /** Leave for another attempt of a body: numbered like all outcomes, though the code does not see it. */
  #receiveRetry(outcome: Outcome): void {
    const { base, attempt } = splitAttempt(outcome.key);
    const lastError = outcome.result.case === "failure" ? outcome.result.value : undefined;
    this.#pass(outcome.timeMs);
    if (base === RUN_KEY) return;
    const call = this.calls.get(base);
    if (call === undefined) {
      if (this.keys.has(base)) return;
      this.#see(outcome.key);
      this.journal.open.delete(base);
      this.journal.attempts.set(base, { attempt, lastError });
      return;
    }
    const stale = attempt <= call.attempt && call.openKey === "";
    if (call.kind !== StepKind.RUN || this.executing.has(base) || stale) return;
    this.outbox.resolved(base);
    this.state = "EXECUTING";
    this.#see(outcome.key);
    Object.assign(call, { attempt, lastError, openKey: "", need: this.watermark });
    this.waiting.push(call);
  }

  *#receiveCancel(why: string): Turns {
    if (this.cancelled || !this.#alive) return;
    this.state = "EXECUTING";
    this.#see(CANCEL_KEY);
    yield* this.#deliverCancel(why, 0);
  }

  *#deliverCancel(why: string, timeMs: bigint | number): Turns {
    this.cancelled = true;
    this.#pass(timeMs);
    const reason = new CancelledError(why);
    this.inTurn = true;
    for (const call of [...this.calls.values()]) {
      this.abandon(call);
      call.reject(reason);
    }
    this.cancellation.abort(reason);
    yield* this.#advance();
  }
}

function messageOf({ result }: Outcome): string {
  return result.case === "failure" ? result.value.message : "";
}
