// Plays a transcript against the TypeScript core and says what it did, in the transcript's own words.

import { type MessageInitShape, create } from "@bufbuild/protobuf";
import { decode, encode } from "../../src/codec.js";
import type { Body } from "../../src/context.js";
import { type App, NonRetriableError, RetryAfterError, StepTimeoutError } from "../../src/index.js";
import type { Command } from "../../src/outbox.js";
import { quiescent } from "../../src/quiescence.js";
import { Reentry, type Turns } from "../../src/reentry.js";
import { type Failure, FailureSchema, type Payload } from "../../src/v1/common_pb.js";
import type { EventSchema } from "../../src/v1/event_pb.js";
import {
  type Assign,
  AssignSchema,
  LimitsSchema,
  type Outcome,
  OutcomeSchema,
  StepKind,
} from "../../src/v1/step_pb.js";

export type Json = any;

const ORDER = ["result", "failure", "sleep", "wait", "invoke", "send", "delivered", "abandon", "park", "mismatch"];
const SPECIAL: Readonly<Record<string, unknown>> = {
  pair: [1, 2],
  "no JSON": new Map([[1, 2]]),
  "not a number": Number.NaN,
  big: 2n ** 70n,
};

/** What the core did after each input. */
export async function play(app: App, transcript: Json): Promise<Json[]> {
  const fn = app.functions.get(transcript.program);
  if (fn === undefined) throw new Error(`no program ${transcript.program}`);
  const limits = create(LimitsSchema, camel(transcript.limits ?? {}));
  const core = new Reentry(fn, assign(transcript.assign ?? {}), limits, () => undefined);
  const seen: Json[] = [];
  for (const step of transcript.steps) seen.push(await apply(core, step));
  return seen;
}

/** Lets a decision of the core be made. */
export async function decide(turns: Turns): Promise<void> {
  for (const _ of turns) await quiescent();
}

async function apply(core: Reentry, step: Json): Promise<Json> {
  let commands: Command[] | undefined;
  if ("start" in step) await decide(core.start());
  else if ("resolve" in step) await decide(core.resolve(outcome(step.resolve)));
  else if ("finish" in step) {
    const { key, attempt = 1, started_ms: startedMs = 0, ended_ms: endedMs = 0 } = step.finish;
    await decide(core.finish(key, attempt, { ...end(step.finish), startedMs, endedMs }));
  } else if ("ack" in step) core.ack(step.ack);
  else if ("cancel" in step) await decide(core.cancel(step.cancel.failure?.message));
  else if ("evict" in step) core.evict();
  else if ("reconnect" in step) commands = core.unacknowledged();
  else throw new Error(`no input ${JSON.stringify(step)}`);
  await quiescent();
  const seen: Json = { state: core.state };
  commands ??= core.takeCommands();
  if (commands.length > 0) seen.commands = commands.map(commandWords).sort(byKind);
  if (core.bodies.length > 0) seen.bodies = core.bodies.splice(0).map(bodyWords);
  if (core.interrupts.length > 0) seen.interrupts = core.interrupts.splice(0);
  return seen;
}

function byKind(a: Json, b: Json): number {
  const rank = (words: Json) => (ORDER.indexOf(Object.keys(words)[0] as string) + 100) % 100;
  return rank(a) - rank(b);
}

function end(spec: Json): { value: unknown } | { error: unknown } {
  if ("error" in spec) return { error: errorOf(spec.error) };
  if ("special" in spec) return { value: SPECIAL[spec.special] };
  if ("text_bytes" in spec) return { value: "x".repeat(spec.text_bytes) };
  return { value: spec.value };
}

function errorOf({ type, message = "", after_ms }: Json): Error {
  if (type === "RetryAfterError") return new RetryAfterError(`${after_ms}ms`, message);
  if (type === "NonRetriableError") return new NonRetriableError(message);
  if (type === "StepTimeoutError") return new StepTimeoutError(message);
  return Object.assign(new Error(message), { name: type });
}

export function outcome(spec: Json): Outcome {
  const made = create(OutcomeSchema, {
    runId: "run_1",
    turn: 1,
    key: spec.key,
    number: BigInt(spec.number ?? 0),
    kind: StepKind[(spec.kind ?? "RUN") as keyof typeof StepKind],
    target: spec.target ?? "",
    attempt: spec.attempt ?? 1,
    timeMs: BigInt(spec.time_ms ?? 0),
    inputHash: Buffer.from(spec.input_hash ?? "", "hex"),
    result: { case: "output", value: { data: "output" in spec ? encode(spec.output, "output") : new Uint8Array() } },
  });
  if ("failure" in spec) made.result = { case: "failure", value: create(FailureSchema, camel(spec.failure)) };
  return made;
}

export function assign(spec: Json): Assign {
  const events = (spec.events ?? []).map(started);
  return create(AssignSchema, {
    runId: "run_1",
    turn: 1,
    functionId: "test/program",
    createdMs: 1000n,
    cancelled: spec.cancelled ?? false,
    ...("cancel_failure" in spec && { cancelFailure: camel(spec.cancel_failure) }),
    event: events[0] ?? started(spec.event),
    events,
    journal: (spec.journal ?? []).map(outcome),
    open: (spec.open ?? []).map(({ key, kind, target = "" }: Json) => ({
      key,
      kind: StepKind[kind as keyof typeof StepKind],
      target,
    })),
  });
}

function started(spec: Json): MessageInitShape<typeof EventSchema> {
  const { id, name, data } = { id: "evt_1", name: "test/start", data: {}, ...spec };
  return { id, name, timeMs: 1000n, data: data === null ? {} : { data: encode(data, "data") } };
}

/** Members of a message by their names in TypeScript. */
function camel(fields: Json): Json {
  const name = (text: string) => text.replaceAll(/_(\w)/g, (_, letter: string) => letter.toUpperCase());
  return Object.fromEntries(Object.entries(fields).map(([key, value]) => [name(key), value]));
}

function bodyWords({ key, attempt, input, lastError }: Body): Json {
  const words: Json = { key, attempt };
  const args = Array.isArray(input) || input === undefined ? input : [input];
  if (Array.isArray(args) && args.length > 0) words.args = args;
  if (lastError !== undefined) words.last_error = lastError.type;
  return words;
}

function valueOf(payload: Payload | undefined): Json {
  return decode(payload?.data ?? new Uint8Array(), "a payload");
}

function failureWords(failure: Failure | undefined): Json {
  const words: Json = { type: failure?.type };
  if (failure?.reason) words.reason = failure.reason;
  if (failure?.nonRetriable) words.non_retriable = true;
  // What a language's own JSON says against a value is not the same everywhere.
  if (failure?.cause && failure.type !== "SerializationError") words.cause = failure.cause.type;
  return words;
}

function after(retryAfterMs: bigint | undefined): Json {
  return retryAfterMs === undefined ? {} : { retry_after_ms: Number(retryAfterMs) };
}

function hash({ inputHash }: { readonly inputHash: Uint8Array }): Json {
  return inputHash.length === 0 ? {} : { input_hash: Buffer.from(inputHash).toString("hex") };
}

function commandWords(command: Command): Json {
  switch (command.$typeName) {
    case "stepwell.v1.StepResult": {
      const { key, number, attempt, output } = command;
      return { result: { key, number: Number(number), attempt, output: valueOf(output), ...hash(command) } };
    }
    case "stepwell.v1.StepFailure": {
      const { key, attempt, failure, retry, retryAfterMs } = command;
      const words = { key, attempt, max_attempts: retry?.maxAttempts, failure: failureWords(failure) };
      return { failure: { ...words, ...after(retryAfterMs), ...hash(command) } };
    }
    case "stepwell.v1.Sleep": {
      const option = command.until.case === "durationMs" ? "duration_ms" : "until_ms";
      return { sleep: { key: command.key, [option]: Number(command.until.value) } };
    }
    case "stepwell.v1.WaitForEvent": {
      const { key, event, timeoutMs, matchPath, matchValue, condition } = command;
      const words: Json = { key, event, timeout_ms: Number(timeoutMs) };
      if (matchPath) Object.assign(words, { match_path: matchPath, match_value: decode(matchValue, "match") });
      return { wait: condition ? { ...words, condition } : words };
    }
    case "stepwell.v1.Invoke": {
      const words: Json = { key: command.key, function_id: command.functionId, input: valueOf(command.input) };
      if (command.timeoutMs > 0n) words.timeout_ms = Number(command.timeoutMs);
      return { invoke: { ...words, ...(command.detached && { detached: true }), ...hash(command) } };
    }
    case "stepwell.v1.SendEvents": {
      const events = command.events.map((e) => [e.name, e.data ? valueOf(e.data) : null]);
      return { send: { key: command.key, events, ...hash(command) } };
    }
    case "stepwell.v1.Delivered":
      return { delivered: command.keys.map((item) => [item.key, Number(item.number)]) };
    case "stepwell.v1.Abandon":
      return { abandon: command.key };
    case "stepwell.v1.Park":
      return { park: { any: command.tree?.keys, received: Number(command.received) } };
    case "stepwell.v1.Mismatch": {
      const { key, recorded, attempted, location } = command;
      if (!/^programs\.js:\d+$/.test(location)) throw new Error(`a mismatch names the line, not "${location}"`);
      return { mismatch: { key, recorded, attempted } };
    }
    case "stepwell.v1.Complete":
      return { complete: { number: Number(command.number), output: valueOf(command.output) } };
    case "stepwell.v1.Fail": {
      const { number, attempt, failure, retryAfterMs } = command;
      return { fail: { number: Number(number), attempt, failure: failureWords(failure), ...after(retryAfterMs) } };
    }
    case "stepwell.v1.Cancelled":
      return { cancelled: { number: Number(command.number) } };
    case "stepwell.v1.Release":
      throw new Error("the core releases nothing");
  }
}
