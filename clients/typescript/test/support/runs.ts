// One run of a function, led by hand: its outcomes come when the test says.

import { type MessageInitShape, create } from "@bufbuild/protobuf";
import { decode, encode } from "../../src/codec.js";
import { type App, type DurableFunction } from "../../src/index.js";
import type { Command } from "../../src/outbox.js";
import { Reentry } from "../../src/reentry.js";
import { AssignSchema, LimitsSchema, type Outcome, OutcomeSchema, StepKind } from "../../src/v1/step_pb.js";
import { decide } from "../conformance/replay.js";

type Ended = { readonly output: unknown } | { readonly error: string } | undefined;

/** A run in the core, everything acknowledged at once. */
export class Led {
  readonly core: Reentry;
  readonly commands: Command[] = [];
  readonly interrupted: string[] = [];
  /** What became durable, in the order in which the code saw it. */
  readonly journal: Outcome[] = [];
  foreign = 0;

  constructor(
    fn: DurableFunction<never, unknown>,
    { data = {}, journal = [] }: { data?: unknown; journal?: Outcome[] } = {},
  ) {
    const assign = create(AssignSchema, {
      runId: "run_1",
      turn: 1,
      createdMs: 1_000_000n,
      event: { id: "evt_1", name: "test/start", data: { data: encode(data, "data") } },
      journal: journal.map((one) => ({ ...one })) as MessageInitShape<typeof AssignSchema>["journal"] & object,
    });
    this.core = new Reentry(fn, assign, create(LimitsSchema, { resultBytes: 1000, eventBytes: 1000 }), () => {
      this.foreign += 1;
    });
  }

  static async start(app: App, id: string, options?: ConstructorParameters<typeof Led>[1]): Promise<Led> {
    const fn = app.functions.get(id);
    if (fn === undefined) throw new Error(`no function ${id}`);
    const led = new Led(fn, options);
    await decide(led.core.start());
    led.#take();
    return led;
  }

  /** A body ends with a value. */
  async finish(key: string, value: unknown = null): Promise<void> {
    const at = this.core.bodies.findIndex((body) => body.key === key);
    const [body] = this.core.bodies.splice(at, 1);
    if (at < 0 || body === undefined) throw new Error(`no body ${key} executes: ${this.bodies.join()}`);
    await decide(this.core.finish(key, body.attempt, { value }));
    this.#take();
  }

  /** The server has an outcome. */
  async resolve(key: string, kind: StepKind, value?: unknown): Promise<void> {
    const data = value === undefined ? new Uint8Array() : encode(value, "value");
    const result = { case: "output" as const, value: { data } };
    await decide(this.core.resolve(create(OutcomeSchema, { key, kind, result, timeMs: 2_000_000n })));
    this.#take();
  }

  async fail(key: string, kind: StepKind, type: string, reason = ""): Promise<void> {
    const result = { case: "failure" as const, value: { type, message: "no", reason } };
    await decide(this.core.resolve(create(OutcomeSchema, { key, kind, result })));
    this.#take();
  }

  async cancel(): Promise<void> {
    await decide(this.core.cancel());
    this.#take();
  }

  /** Keys of bodies that execute. */
  get bodies(): string[] {
    return this.core.bodies.map((body) => body.key);
  }

  /** Keys that were given up. */
  get abandoned(): string[] {
    return this.commands.flatMap((one) => (one.$typeName === "stepwell.v1.Abandon" ? [one.key] : []));
  }

  get ended(): Ended {
    for (const one of this.commands) {
      if (one.$typeName === "stepwell.v1.Complete") {
        return { output: decode(one.output?.data ?? new Uint8Array(), "output") };
      }
      if (one.$typeName === "stepwell.v1.Fail") return { error: `${one.failure?.type}: ${one.failure?.message}` };
      if (one.$typeName === "stepwell.v1.Cancelled") return { error: "cancelled" };
    }
    return undefined;
  }

  /** The same code over what it has seen so far. */
  again(app: App, id: string, data: unknown = {}): Promise<Led> {
    return Led.start(app, id, { data, journal: this.journal });
  }

  #take(): void {
    const commands = this.core.takeCommands();
    this.commands.push(...commands);
    this.interrupted.push(...this.core.interrupts.splice(0));
    for (const one of commands) {
      if (one.$typeName !== "stepwell.v1.StepResult") continue;
      const { key, number, attempt, output } = one;
      const result = { case: "output" as const, value: output ?? {} };
      this.journal.push(
        create(OutcomeSchema, { key, kind: StepKind.RUN, number, attempt, result, timeMs: one.endedMs }),
      );
    }
    const numbers = commands.flatMap((one) => {
      if (one.$typeName === "stepwell.v1.Delivered") return one.keys.map((key) => key.number);
      return "number" in one ? [one.number] : [];
    });
    const highest = numbers.reduce((a, b) => (a > b ? a : b), 0n);
    if (highest > 0n) this.core.ack(Number(highest));
  }
}
