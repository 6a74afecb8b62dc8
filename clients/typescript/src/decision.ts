// How decisions close: bodies begin, the run parks, or it ends. The middle of the re-entry core.

import { type MessageInitShape, create } from "@bufbuild/protobuf";
import type { Call } from "./call.js";
import type { Body } from "./context.js";
import { Core } from "./core.js";
import * as endings from "./endings.js";
import { Fenced, OutsideStepError } from "./errors.js";
import { retryAfterMs, toFailure } from "./failure.js";
import { type TracedEnd, tracedEnd } from "./trace.js";
import {
  AwaitTree_Combine,
  type Cancelled,
  CancelledSchema,
  type Complete,
  type Fail,
  ParkSchema,
  StepFailureSchema,
  StepResultSchema,
} from "./v1/step_pb.js";

const ATTEMPTS_DEFAULT = 4;

/** How a body ended, and when it began and ended. */
export type BodyEnd = ({ readonly value: unknown } | { readonly error: unknown }) & {
  readonly startedMs?: number;
  readonly endedMs?: number;
};

/** What closes a decision of one run. */
export abstract class Decision extends Core {
  /** Outcomes received in this turn, each counted once. */
  received = 0;
  /** Cancel was delivered. */
  cancelled = false;
  /** The number of the command that ended the run. */
  endNumber = 0;
  /** How it ended, where it is traced and this was for good. */
  traced: TracedEnd | undefined;
  acked = this.watermark;
  /** What the host executes, and empties. */
  bodies: Body[] = [];
  /** The last number given. */
  protected number = this.watermark;
  /** A decision is under way: its end will see to the bodies. */
  protected deciding = false;

  /** The last act of every decision: bodies begin, or the run parks. */
  protected closeDecision(): void {
    this.deciding = false;
    if (this.state === "EXECUTING") {
      this.#beginBodies();
      if (this.executing.size === 0 && this.waiting.length === 0) this.#rest();
    }
    this.outbox.close(this.number);
  }

  #rest(): void {
    if (this.calls.size === 0) {
      this.endWith(
        new OutsideStepError(
          `the code awaits something that is no step, ${this.whereabouts}: nothing that is open could resolve it; ` +
            `I/O, timers and other waiting belong in step.run(…)${activeResources()}`,
        ),
      );
      return;
    }
    this.state = "PARKED";
    const keys = Array.from(this.calls.values(), (call) => call.openKey);
    this.outbox.emit(
      create(ParkSchema, {
        runId: this.runId,
        turn: this.turn,
        tree: { combine: AwaitTree_Combine.ANY, keys },
        received: BigInt(this.received),
      }),
    );
  }

  #beginBodies(): void {
    const held: Call[] = [];
    for (const call of this.waiting) {
      const { body } = call;
      if (body === undefined || call.need > this.acked) {
        held.push(call);
        continue;
      }
      this.executing.set(call.key, call);
      const { execute, input, timeoutMs } = body;
      const { key, attempt, lastError } = call;
      this.bodies.push({
        runId: this.runId,
        functionId: this.fn.id,
        key,
        attempt,
        lastError,
        input,
        timeoutMs,
        execute,
        trace: this.trace,
      });
    }
    this.waiting = held;
  }

  // -- the end of a body -----------------------------------------------------------------------------------------

  protected bodySucceeded(call: Call, data: Uint8Array, end: BodyEnd): void {
    this.calls.delete(call.key);
    this.number += 1;
    this.watermark = this.number;
    const number = BigInt(this.number);
    this.outbox.emit(create(StepResultSchema, { ...this.#of(call, end), number, output: { data } }));
  }

  protected bodyFailed(call: Call, error: unknown, end: BodyEnd): void {
    const failure = toFailure(error, this.limits.failureBytes);
    const policy = call.body?.policy;
    const final = failure.nonRetriable || call.attempt >= (policy?.maxAttempts || ATTEMPTS_DEFAULT);
    // The server decides; this names the key under which it will answer, for the park.
    call.openKey = final ? call.key : `${call.key}#${call.attempt + 1}`;
    const after = retryAfterMs(error);
    this.outbox.emit(
      create(StepFailureSchema, {
        ...this.#of(call, end),
        failure,
        ...(policy !== undefined && { retry: policy }),
        ...(after !== undefined && { retryAfterMs: BigInt(after) }),
      }),
    );
  }

  #of(
    call: Call,
    end: BodyEnd,
  ): MessageInitShape<typeof StepResultSchema> & MessageInitShape<typeof StepFailureSchema> {
    return {
      runId: this.runId,
      turn: this.turn,
      key: call.key,
      attempt: call.attempt,
      startedMs: BigInt(end.startedMs ?? 0),
      endedMs: BigInt(end.endedMs ?? 0),
      inputHash: call.hash,
    };
  }

  // -- the end ---------------------------------------------------------------------------------------------------

  /** The code has ended; once cancel was delivered to it, it is cancelled, however it ended. */
  protected end(ending: endings.Settled): void {
    const what = `the output of ${this.fn.id}`;
    if (this.foreign !== undefined) this.endWith(this.foreign);
    else this.#ended(endings.ofCode(ending, what, this.limits, this.attempt));
  }

  /** The core ends a run that cannot go on. */
  protected endWith(error: unknown): void {
    this.#ended(endings.failed(error, this.limits, this.attempt));
  }

  #ended(how: Complete | Fail): void {
    this.number += 1;
    this.endNumber = this.number;
    const command: Complete | Fail | Cancelled = this.cancelled ? create(CancelledSchema) : how;
    if (this.trace !== undefined) {
      this.traced = tracedEnd(command, this.fn.policy.maxAttempts || ATTEMPTS_DEFAULT);
    }
    command.runId = this.runId;
    command.turn = this.turn;
    command.number = BigInt(this.number);
    this.outbox.emit(command);
    this.state = "ENDED";
    this.letGo();
  }

  /** Stops what still runs of a run that ended or was fenced; what its code awaits rejects, so that `finally` runs. */
  protected letGo(): void {
    this.inTurn = false;
    this.interrupts.push(...this.executing.keys());
    this.executing.clear();
    this.waiting = [];
    this.due = [];
    if (this.calls.size === 0) return; // nearly always; an error with its stack costs as much as a step
    const open = [...this.calls.values()];
    this.calls.clear();
    const reason = new Fenced(`run ${this.runId} is over here`);
    for (const call of open) call.reject(reason);
  }
}

/** What the process waits for, if Node says: a hint at what the code awaits. */
function activeResources(): string {
  const kinds = new Set(process.getActiveResourcesInfo().filter((kind) => !IDLE.has(kind)));
  return kinds.size > 0 ? `; active in this process: ${[...kinds].join(", ")}` : "";
}

const IDLE: ReadonlySet<string> = new Set(["MessagePort", "PipeWrap", "TTYWrap", "SignalWrap", "Immediate"]);
