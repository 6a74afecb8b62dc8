// Commands of one run: what goes out now, what travels with the next command, what is not yet acknowledged.

import { create } from "@bufbuild/protobuf";
import {
  type Abandon,
  type Cancelled,
  type Complete,
  type Delivered,
  type DeliveredKey,
  DeliveredKeySchema,
  DeliveredSchema,
  type Fail,
  type Invoke,
  type Mismatch,
  type Park,
  type Release,
  type SendEvents,
  type Sleep,
  type StepFailure,
  type StepResult,
  type WaitForEvent,
} from "./v1/step_pb.js";

/** A command that begins a key. */
export type Beginning = Sleep | WaitForEvent | Invoke | SendEvents;

/** A command that says what the code has seen. */
type Numbered = StepResult | Delivered | Complete | Fail | Cancelled;

/** What a worker says of a run. */
export type Command = Beginning | Numbered | StepFailure | Abandon | Park | Release | Mismatch;

const BEGINNINGS: ReadonlySet<string> = new Set<Beginning["$typeName"]>([
  "stepwell.v1.Sleep",
  "stepwell.v1.WaitForEvent",
  "stepwell.v1.Invoke",
  "stepwell.v1.SendEvents",
]);
const NUMBERED: ReadonlySet<string> = new Set<Numbered["$typeName"]>([
  "stepwell.v1.StepResult",
  "stepwell.v1.Delivered",
  "stepwell.v1.Complete",
  "stepwell.v1.Fail",
  "stepwell.v1.Cancelled",
]);

/** Whether the command says what the code has seen, and so is acknowledged by its number. */
export function isNumbered(command: Command): command is Numbered {
  return NUMBERED.has(command.$typeName);
}

/** Everything emitted within one decision leaves in one frame, and so is committed together. */
export class Outbox {
  #commands: Command[] = [];
  /** Numbers of outcomes seen while nothing else was open: they travel with the next command (H1a). */
  #deferred: DeliveredKey[] = [];
  /** Commands with the number whose acknowledgement covers them, oldest first. */
  #sent: { coveredBy: number; command: Command }[] = [];
  /** What this decision emitted, and whether that holds a number. */
  #fresh: Command[] = [];
  #numbered = false;

  constructor(
    private readonly runId: string,
    private readonly turn: number,
  ) {}

  /** Adds a command; numbers that waited for one go first. */
  emit(command: Command): void {
    if (this.#deferred.length > 0) this.flush();
    this.#add(command);
  }

  /** Notes that the code has seen an outcome of the server's. */
  defer(key: string, number: number): void {
    this.#deferred.push(create(DeliveredKeySchema, { key, number: BigInt(number) }));
  }

  /** Reports the outcomes that the code has seen. */
  flush(): void {
    const keys = this.#deferred;
    this.#deferred = [];
    this.#add(create(DeliveredSchema, { runId: this.runId, turn: this.turn, keys }));
  }

  #add(command: Command): void {
    this.#commands.push(command);
    this.#fresh.push(command);
    if (isNumbered(command)) this.#numbered = true;
  }

  /** Takes out what is to be sent in one frame. */
  take(): Command[] {
    const commands = this.#commands;
    this.#commands = [];
    return commands;
  }

  /** Takes back what was emitted within this decision; false if it is too late. */
  withdraw(command: Command | undefined): boolean {
    const at = command === undefined ? -1 : this.#fresh.lastIndexOf(command);
    if (at < 0) return false;
    this.#fresh.splice(at, 1);
    this.#commands = this.#commands.filter((one) => one !== command);
    return true;
  }

  /** Before a mismatch: what this decision began must not begin. */
  withdrawBeginnings(): void {
    for (const command of this.#fresh.filter((one) => BEGINNINGS.has(one.$typeName))) this.withdraw(command);
  }

  /**
   * The decision is made: notes which acknowledgement will cover its commands. A frame that holds a number is durable with
   * it. Commands without one are known to be durable when a later number is, because a run's frames are applied in order.
   */
  close(lastNumber: number): void {
    const coveredBy = this.#numbered ? lastNumber : lastNumber + 1;
    for (const command of this.#fresh) this.#sent.push({ coveredBy, command });
    this.#fresh = [];
    this.#numbered = false;
  }

  /** Everything up to the number is durable. */
  acknowledge(number: number): void {
    if (this.#sent.length > 0) this.#sent = this.#sent.filter((entry) => entry.coveredBy > number);
  }

  /** An outcome for the key came: the server must have taken the command that began or failed it. */
  resolved(key: string): void {
    if (this.#sent.length === 0) return;
    this.#sent = this.#sent.filter(({ command }) => isNumbered(command) || !("key" in command) || command.key !== key);
  }

  /** Commands to send again, in order. A park that the code has left since is not among them, nor what is not yet taken. */
  unacknowledged(parked: boolean): Command[] {
    const last = this.#sent.at(-1)?.command;
    return this.#sent
      .map((entry) => entry.command)
      .filter((one) => one.$typeName !== "stepwell.v1.Park" || (parked && one === last))
      .filter((one) => !this.#commands.includes(one));
  }

  /** Whether something the code has seen is not yet durable. */
  get pending(): boolean {
    return this.#sent.some((entry) => isNumbered(entry.command));
  }

  /** The run is no longer this worker's: nothing of it is sent any more. */
  clear(): void {
    this.#commands = [];
    this.#deferred = [];
    this.#sent = [];
    this.#fresh = [];
  }
}
