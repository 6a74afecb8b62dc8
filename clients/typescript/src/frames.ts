// Packs what the code did into Commands frames, and a worker's Hello into Hello frames.

import { create, toBinary } from "@bufbuild/protobuf";
import type { Labels } from "./flow.js";
import type { Command } from "./outbox.js";
import type { Listed } from "./residents.js";
import type { FunctionSpec } from "./v1/function_pb.js";
import {
  CommandsSchema,
  type ConnectRequest,
  ConnectRequestSchema,
  FailSchema,
  type Commands,
  HelloSchema,
  InvokeSchema,
  MismatchSchema,
  ParkSchema,
  SendEventsSchema,
  StepFailureSchema,
  WaitForEventSchema,
} from "./v1/step_pb.js";

const FRAME_ITEMS = 128;
const FRAME_BYTES = 64 * 1024;
const DECISION_BYTES = 4 * 1024 * 1024;
const HELLO_RESIDENTS = 1000;
const SMALL_BYTES = 96;
/** Capabilities: time-outs of functions, and their flow. A server without them would ignore them in silence. */
const NEEDS: readonly { readonly capability: string; readonly of: (fn: FunctionSpec) => boolean }[] = [
  { capability: "timeouts", of: (fn) => fn.timeoutMs > 0n || fn.startTimeoutMs > 0n },
  { capability: "flow", of: (fn) => fn.flow !== undefined },
];

/** A run's id and commands of it that belong together: they travel in one frame. */
export interface Decision {
  readonly runId: string;
  readonly commands: readonly Command[];
}

/** Yields frames of at most 128 commands or 64 KiB, unless one decision alone is larger. */
export function* pack(decisions: Iterable<Decision>, epoch: bigint): Generator<ConnectRequest> {
  let frame = new Frame();
  for (const { runId, commands } of decisions) {
    const bytes = commands.reduce((sum, command) => sum + weight(command), 0);
    if (bytes > DECISION_BYTES && commands.length > 1) {
      // Larger than a message may be: it is committed in parts, in order.
      if (frame.items > 0) yield frame.finish(epoch);
      yield* pack(split(runId, commands), epoch);
      frame = new Frame();
      continue;
    }
    if (!frame.hasRoom(runId, commands.length, bytes)) {
      yield frame.finish(epoch);
      frame = new Frame();
    }
    frame.add(runId, commands, bytes);
  }
  if (frame.items > 0) yield frame.finish(epoch);
}

class Frame {
  items = 0;
  #bytes = 0;
  readonly #commands = create(CommandsSchema);
  /**
   * What follows a Park of the same run must not share its frame: the lists of a frame do not tell which came first.
   */
  readonly #parked = new Set<string>();

  hasRoom(runId: string, items: number, bytes: number): boolean {
    if (this.items === 0) return true;
    return this.items + items <= FRAME_ITEMS && this.#bytes + bytes <= FRAME_BYTES && !this.#parked.has(runId);
  }

  add(runId: string, commands: readonly Command[], bytes: number): void {
    for (const command of commands) {
      (this.#commands[FIELDS[command.$typeName]] as Command[]).push(command);
      if (command.$typeName === "stepwell.v1.Park") this.#parked.add(runId);
    }
    this.items += commands.length;
    this.#bytes += bytes;
  }

  finish(epoch: bigint): ConnectRequest {
    this.#commands.epoch = epoch;
    return create(ConnectRequestSchema, { frame: { case: "commands", value: this.#commands } });
  }
}

/** Decisions of at most 64 KiB out of commands of one run, in order: what is sent again was once many decisions. */
export function* split(runId: string, commands: readonly Command[]): Generator<Decision> {
  let part: Command[] = [];
  let bytes = 0;
  for (const command of commands) {
    const more = weight(command);
    if (part.length > 0 && bytes + more > FRAME_BYTES) {
      yield { runId, commands: part };
      part = [];
      bytes = 0;
    }
    part.push(command);
    bytes += more;
  }
  if (part.length > 0) yield { runId, commands: part };
}

type Lists = Exclude<keyof Commands, "$typeName" | "$unknown" | "epoch">;

const FIELDS: Readonly<Record<Command["$typeName"], Lists>> = {
  "stepwell.v1.StepResult": "results",
  "stepwell.v1.StepFailure": "failures",
  "stepwell.v1.Sleep": "sleeps",
  "stepwell.v1.WaitForEvent": "waits",
  "stepwell.v1.Invoke": "invokes",
  "stepwell.v1.SendEvents": "sends",
  "stepwell.v1.Delivered": "delivered",
  "stepwell.v1.Abandon": "abandons",
  "stepwell.v1.Park": "parks",
  "stepwell.v1.Release": "releases",
  "stepwell.v1.Mismatch": "mismatches",
  "stepwell.v1.Complete": "completes",
  "stepwell.v1.Fail": "fails",
  "stepwell.v1.Cancelled": "cancelled",
};

/** About how many bytes a command takes; to encode the usual ones twice would cost more than the difference. */
function weight(command: Command): number {
  switch (command.$typeName) {
    case "stepwell.v1.StepResult":
    case "stepwell.v1.Complete":
      return SMALL_BYTES + (command.output?.data.byteLength ?? 0);
    case "stepwell.v1.StepFailure":
      return toBinary(StepFailureSchema, command).byteLength;
    case "stepwell.v1.Fail":
      return toBinary(FailSchema, command).byteLength;
    case "stepwell.v1.WaitForEvent":
      return toBinary(WaitForEventSchema, command).byteLength;
    case "stepwell.v1.Invoke":
      return toBinary(InvokeSchema, command).byteLength;
    case "stepwell.v1.SendEvents":
      return toBinary(SendEventsSchema, command).byteLength;
    case "stepwell.v1.Park":
      return toBinary(ParkSchema, command).byteLength;
    case "stepwell.v1.Mismatch":
      return toBinary(MismatchSchema, command).byteLength;
    default:
      return SMALL_BYTES;
  }
}

/** What Hello says of the worker, apart from its residents. */
export interface Introduction {
  readonly environment: string;
  readonly app: string;
  readonly deployment: string;
  readonly instance: string;
  readonly sdkVersion: string;
  readonly functions: readonly FunctionSpec[];
  readonly labels: Labels;
}

/** What a server would have to have and has not, and the first function that needs it; empty if all is there. */
export function missing(worker: Introduction, capabilities: readonly string[]): string {
  for (const { capability, of } of NEEDS) {
    const first = worker.functions.find(of);
    if (first !== undefined && !capabilities.includes(capability)) {
      return `${capability} of functions, which ${first.name} has`;
    }
  }
  return "";
}

/** Yields the frames that open a stream; only the last says that no other follows. */
export function* helloFrames(
  worker: Introduction,
  sessionId: string,
  capacity: number,
  residents: readonly Listed[],
): Generator<ConnectRequest> {
  const functions = [...worker.functions];
  const capabilities = NEEDS.map((one) => one.capability);
  const introduction = { ...worker, functions, sdk: "typescript", sessionId, capacity, capabilities };
  for (let at = 0; ; at += HELLO_RESIDENTS) {
    const part = residents.slice(at, at + HELLO_RESIDENTS);
    const more = at + HELLO_RESIDENTS < residents.length;
    const value = create(HelloSchema, { ...(at === 0 && introduction), residents: part, more });
    yield create(ConnectRequestSchema, { frame: { case: "hello", value } });
    if (!more) return;
  }
}
