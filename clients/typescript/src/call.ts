// A step call: the promise that the code awaits, and what the core knows of its key.

import type { StandardSchemaV1 } from "@standard-schema/spec";
import * as codec from "./codec.js";
import type { StepContext } from "./context.js";
import { LimitError, SerializationError, StepwellError } from "./errors.js";
import { invokeError, stepError } from "./failure.js";
import type { Beginning } from "./outbox.js";
import type { Failure, RetryPolicy } from "./v1/common_pb.js";
import { type Outcome, StepKind } from "./v1/step_pb.js";

const CALL = Symbol("stepwell.call");

/** The outcome of a step call. `step.race` takes these: it can give such a call up. */
export interface StepPromise<T> extends Promise<T> {
  readonly [CALL]: Call;
}

/** How the data of an outcome becomes the value of a call. */
type Read = (data: Uint8Array, call: Call) => unknown;

/** What a call of step.run executes. */
export interface BodySpec {
  readonly execute: (context: StepContext<never>) => unknown;
  readonly input: unknown;
  readonly policy: RetryPolicy;
  readonly timeoutMs: number;
  /** Nothing changes a plain value on its way back: decoding it may be skipped. */
  readonly plain: boolean;
}

/** Made by Step; the key is given and the step begun before the caller gets its promise (H5). */
export class Call {
  key = "";
  /** The key under which the server holds it open: that of the call, or "key#attempt" while it backs off. */
  openKey = "";
  hash: Uint8Array = new Uint8Array();
  attempt = 1;
  lastError: Failure | undefined;
  /** The number that must be acknowledged before the body begins. */
  need = 0;
  body: BodySpec | undefined;
  command: Beginning | undefined;
  /** Called once, when the call is over in whatever way. */
  onSettled: (() => void) | undefined;
  readonly promise: StepPromise<unknown>;
  #resolve!: (value: unknown) => void;
  #reject!: (reason: unknown) => void;

  constructor(
    readonly kind: StepKind,
    readonly target: string,
    private readonly read: Read,
  ) {
    const promise = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // The code may look at it much later, or never: that is not the process's business.
    promise.catch(() => undefined);
    this.promise = Object.defineProperty(promise, CALL, { value: this }) as StepPromise<unknown>;
  }

  resolve(value: unknown): void {
    this.#settled();
    this.#resolve(value);
  }

  reject(reason: unknown): void {
    this.#settled();
    this.#reject(reason);
  }

  #settled(): void {
    this.onSettled?.();
    this.onSettled = undefined;
  }

  /** Settles the promise with what the server or the journal says. */
  deliver(outcome: Outcome): void {
    const { result } = outcome;
    if (result.case === "failure") {
      const make = this.kind === StepKind.INVOKE ? invokeError : stepError;
      this.reject(make(result.value, this.key, outcome.attempt));
      return;
    }
    try {
      const encoding = result.value?.encoding ?? "";
      if (encoding !== "" && encoding !== "json") {
        throw new SerializationError(`${this.key}: encoding "${encoding}" is not understood`);
      }
      this.resolve(this.read(result.value?.data ?? new Uint8Array(), this));
    } catch (error) {
      if (!(error instanceof StepwellError)) throw error;
      this.reject(error);
    }
  }

  /** A result encoded, and as the code will see it: decode(encode(value)) (H2). Throws what refuses the value. */
  roundTrip(value: unknown, resultBytes: number): { data: Uint8Array; value: unknown } {
    const data = codec.encode(value, `the result of step ${this.key}`);
    if (resultBytes && data.byteLength > resultBytes) {
      throw new LimitError(
        `the result of step ${this.key} has ${data.byteLength} bytes; result_bytes is ${resultBytes}`,
      );
    }
    const same =
      this.body?.plain === true && (value === null || typeof value === "string" || typeof value === "boolean");
    return { data, value: same ? value : this.read(data, this) };
  }
}

/** The call behind a promise that Step returned. */
export function callOf(promise: unknown): Call | undefined {
  return typeof promise === "object" && promise !== null ? (promise as Partial<StepPromise<unknown>>)[CALL] : undefined;
}

/** Reads the result of a body, of a child, or of a send. */
export function readResult(schema: StandardSchemaV1 | undefined): Read {
  return (data, call) => codec.read(data, schema, `the result of step ${call.key}`);
}
