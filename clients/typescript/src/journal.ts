// What is known of a run's keys before its code asks: recorded outcomes, undelivered ones, keys open at the server.

import type { Failure } from "./v1/common_pb.js";
import { type Assign, type OpenKey, type Outcome, StepKind } from "./v1/step_pb.js";

export const RUN_KEY = "$run";
export const CANCEL_KEY = "$cancel";

/** What the code asks for. */
export interface Asked {
  readonly key: string;
  readonly kind: StepKind;
  readonly target: string;
  readonly hash: Uint8Array;
}

/** A failed attempt of a body: the next one, and why it is made. */
export interface FailedAttempt {
  readonly attempt: number;
  readonly lastError: Failure | undefined;
}

type Known = Pick<OpenKey, "key" | "kind" | "target" | "inputHash">;

/** The journal of an assigned run, and what came since for keys that the code has not asked for. */
export class Journal {
  /** What the code has seen, in that order. */
  readonly outcomes: readonly Outcome[];
  /** Outcomes that came in this turn for keys the code has not asked for yet. */
  readonly inbox = new Map<string, Outcome>();
  readonly open = new Map<string, Known>();
  /** Of bodies that were tried before. */
  readonly attempts = new Map<string, FailedAttempt>();
  functionAttempt = 1;
  readonly #recorded = new Map<string, Outcome>();
  /** Recorded outcomes whose turn came while the code did not ask for them. */
  readonly #skipped = new Set<string>();
  /** What the code had not seen although it was there when the run was assigned. */
  #pending: Outcome[];

  constructor(assign: Assign) {
    this.outcomes = assign.journal.filter((outcome) => outcome.number > 0n).sort((a, b) => Number(a.number - b.number));
    this.#pending = assign.journal.filter((outcome) => outcome.number === 0n);
    for (const outcome of this.outcomes) if (outcome.kind !== StepKind.RETRY) this.#recorded.set(outcome.key, outcome);
    // A back-off is found under the key of its step.
    for (const key of assign.open)
      this.open.set(key.kind === StepKind.RETRY ? splitAttempt(key.key).base : key.key, key);
    for (const outcome of assign.journal) this.#noteFunctionAttempt(outcome);
  }

  /** The number of the last outcome that the code has seen. */
  get lastNumber(): number {
    return Number(this.outcomes.at(-1)?.number ?? 0n);
  }

  /** An outcome that came before the code was started: it waits as if it had been there at the assignment. */
  addPending(outcome: Outcome): void {
    this.#pending.push(outcome);
    this.#noteFunctionAttempt(outcome);
  }

  /** Takes out what the code had not seen when the run was assigned. Their keys count as begun. */
  takePending(): Outcome[] {
    const pending = this.#pending;
    this.#pending = [];
    for (const outcome of pending) {
      if (outcome.key.startsWith("$")) continue;
      const key = outcome.kind === StepKind.RETRY ? splitAttempt(outcome.key).base : outcome.key;
      if (!this.open.has(key)) this.open.set(key, outcome);
    }
    return pending;
  }

  #noteFunctionAttempt(outcome: Outcome): void {
    const { base, attempt } = splitAttempt(outcome.key);
    if (outcome.kind === StepKind.RETRY && base === RUN_KEY)
      this.functionAttempt = Math.max(this.functionAttempt, attempt);
  }

  /** Whether anything is known of a key. */
  known(key: string): boolean {
    return this.hasOutcome(key) || this.open.has(key) || this.attempts.has(key);
  }

  /** Whether its outcome is here, its turn passed or still to come. */
  hasOutcome(key: string): boolean {
    return this.#recorded.has(key) || this.inbox.has(key);
  }

  /** What is known of a key and what the code asks for, in words, if they differ (H15). */
  difference(asked: Asked): { recorded: string; attempted: string } | undefined {
    const known = this.#recorded.get(asked.key) ?? this.inbox.get(asked.key) ?? this.open.get(asked.key);
    const attempted = words(asked.kind, asked.target);
    if (known === undefined) {
      const wasBody = this.attempts.has(asked.key) && asked.kind !== StepKind.RUN;
      return wasBody ? { recorded: words(StepKind.RUN, ""), attempted } : undefined;
    }
    const kind = known.kind === StepKind.RETRY ? StepKind.RUN : known.kind;
    const target = known.kind === StepKind.RETRY ? "" : known.target;
    const targeted = asked.kind === StepKind.EVENT || asked.kind === StepKind.INVOKE;
    if (kind !== asked.kind || (targeted && target !== asked.target)) {
      return { recorded: words(kind, target), attempted };
    }
    const otherInput = asked.hash.length > 0 && known.inputHash.length > 0 && !equal(known.inputHash, asked.hash);
    return otherInput ? { recorded: words(kind, target), attempted: `${attempted} with another input` } : undefined;
  }

  /** The recorded outcome, taken out because its turn has come and the code asks for it. */
  deliver(key: string): void {
    this.#recorded.delete(key);
  }

  /** Notes that the turn of a recorded outcome has passed. */
  skip(key: string): void {
    this.#skipped.add(key);
  }

  /** Whether the outcome's turn has passed, so that it is delivered as soon as the code asks. */
  isDue(key: string): boolean {
    return this.#skipped.has(key) || this.inbox.has(key);
  }

  /** Takes out the outcome whose turn had passed. */
  take(key: string): Outcome {
    const from = this.#skipped.delete(key) ? this.#recorded : this.inbox;
    const outcome = from.get(key) as Outcome;
    from.delete(key);
    return outcome;
  }
}

/** {base: "charge", attempt: 2} for "charge#2"; attempt 0 for a plain key. */
export function splitAttempt(key: string): { base: string; attempt: number } {
  const at = key.lastIndexOf("#");
  const digits = at < 0 ? "" : key.slice(at + 1);
  return /^[0-9]+$/.test(digits) ? { base: key.slice(0, at), attempt: Number(digits) } : { base: key, attempt: 0 };
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}

const WORDS: Readonly<Partial<Record<StepKind, string>>> = {
  [StepKind.RUN]: "run",
  [StepKind.SLEEP]: "sleep",
  [StepKind.EVENT]: "wait for event",
  [StepKind.INVOKE]: "invoke",
  [StepKind.SEND]: "send",
};

/** Kind and target for people: the same words in every SDK. */
function words(kind: StepKind, target: string): string {
  const word = WORDS[kind] ?? `kind ${kind}`;
  return target ? `${word} ${target}` : word;
}
