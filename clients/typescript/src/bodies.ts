// Executes the bodies of steps: times out, interrupts, and names those that do not stop.

import { type Body, BodyContext } from "./context.js";
import { Interrupted, StepTimeoutError } from "./errors.js";
import type { Resident } from "./residents.js";
import type { Log } from "./settings.js";

/** A body that still executes this long after it was asked to stop is named in the log. */
const STUCK_MS = 10_000;
/** setTimeout knows no longer time. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** One execution of a body, for the run that owns it. */
export class Attempt {
  readonly context: BodyContext;
  endedMs = 0;
  end: { readonly value: unknown } | { readonly error: unknown } = { value: undefined };
  /** Nobody waits for what it makes: it was interrupted. */
  dropped = false;
  timedOut: StepTimeoutError | undefined;
  timer: NodeJS.Timeout | undefined;

  constructor(
    readonly owner: Resident,
    readonly body: Body,
    readonly startedMs: number,
  ) {
    this.context = new BodyContext(body);
  }
}

/**
 * All bodies of a worker. `ended` is called for each attempt when it has ended, unless it was interrupted. An attempt ends only
 * when its code has, timed out as it may be: the next one must not run beside it (H39).
 */
export class Bodies {
  readonly #executing = new Set<Attempt>();

  constructor(
    private readonly nowMs: () => number,
    private readonly ended: (attempt: Attempt) => void,
    private readonly log: Log,
  ) {}

  /** Bodies whose code has not ended, interrupted ones included. */
  get executing(): number {
    return this.#executing.size;
  }

  /** The bodies that execute, in words. */
  names(): string[] {
    return Array.from(this.#executing, ({ body }) => `step ${body.key} of ${body.functionId} (${body.runId})`);
  }

  /** Begins a body; one that throws at once has ended on return. */
  start(owner: Resident, body: Body): void {
    const attempt = new Attempt(owner, body, this.nowMs());
    owner.attempts.set(body.key, attempt);
    this.#executing.add(attempt);
    if (body.timeoutMs > 0) this.#arm(attempt, body.timeoutMs);
    void this.#execute(attempt);
  }

  /** Asks a body to stop; what it makes is dropped. */
  interrupt(attempt: Attempt): void {
    if (attempt.dropped || !this.#executing.has(attempt)) return;
    attempt.dropped = true;
    const why = new Interrupted(`step ${attempt.body.key} of ${attempt.body.runId} was interrupted`);
    this.#strike(attempt, why, "was interrupted");
  }

  async #execute(attempt: Attempt): Promise<void> {
    const { body, context } = attempt;
    const span = body.trace?.attempt(body.key, body.attempt);
    try {
      const value =
        span === undefined ? body.execute(context as never) : span.within(() => body.execute(context as never));
      attempt.end = { value: await value };
    } catch (error) {
      attempt.end = { error };
    }
    span?.end(attempt.timedOut ?? ("error" in attempt.end ? attempt.end.error : undefined));
    clearTimeout(attempt.timer);
    this.#executing.delete(attempt);
    if (attempt.dropped) return;
    attempt.endedMs = this.nowMs();
    if (attempt.timedOut !== undefined) attempt.end = { error: attempt.timedOut };
    this.ended(attempt);
  }

  #arm(attempt: Attempt, remainingMs: number): void {
    attempt.timer = setTimeout(
      () => {
        if (remainingMs > TIMER_MS_MAX) this.#arm(attempt, remainingMs - TIMER_MS_MAX);
        else this.#timeOut(attempt);
      },
      Math.min(remainingMs, TIMER_MS_MAX),
    );
  }

  #timeOut(attempt: Attempt): void {
    const { key, timeoutMs } = attempt.body;
    attempt.timedOut = new StepTimeoutError(`the body took longer than ${timeoutMs} ms`, { key });
    this.#strike(attempt, attempt.timedOut, `was out of time after ${timeoutMs} ms`);
  }

  /** Aborts the body's signal, and looks later whether that was heard. */
  #strike(attempt: Attempt, reason: Error, what: string): void {
    clearTimeout(attempt.timer);
    const { key, functionId, runId } = attempt.body;
    attempt.timer = setTimeout(() => {
      this.log.warn(
        `step ${key} of ${functionId} (${runId}) ${what} and still executes ${STUCK_MS / 1000} s later: ` +
          "give context.signal to what it waits for",
      );
    }, STUCK_MS).unref();
    attempt.context.abort(reason);
  }
}
