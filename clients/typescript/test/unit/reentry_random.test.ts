// Random programs under random orders, losses and crashes: what was durable never runs again and never changes.

import { create } from "@bufbuild/protobuf";
import assert from "node:assert/strict";
import { test } from "node:test";
import { RunRandom } from "../../src/chance.js";
import { decode, encode } from "../../src/codec.js";
import type { Body } from "../../src/context.js";
import { App, type Step, StepError } from "../../src/index.js";
import type { Keys } from "../../src/keys.js";
import type { Command } from "../../src/outbox.js";
import { Reentry } from "../../src/reentry.js";
import { FailureSchema } from "../../src/v1/common_pb.js";
import { AssignSchema, LimitsSchema, type Outcome, OutcomeSchema, StepKind } from "../../src/v1/step_pb.js";
import { decide } from "../conformance/replay.js";

const SEEDS = 150;
const MOVES_MAX = 3000;

/** Random choices that are the same for a seed. */
class Chance {
  readonly #numbers: RunRandom;
  constructor(seed: string) {
    this.#numbers = new RunRandom(seed);
  }
  next(): number {
    return this.#numbers.random();
  }
  upTo(limit: number): number {
    return Math.floor(this.next() * limit);
  }
  of<T>(items: readonly T[]): T {
    return items[this.upTo(items.length)] as T;
  }
}

const app = new App("test");

async function branch(step: Step, chance: Chance, trace: unknown[], depth: number, root = ""): Promise<void> {
  const turns = 1 + chance.upTo(3);
  let path = root;
  for (let turn = 0; turn < turns; turn += 1) {
    // Names tell what the code had seen: another order of outcomes gives other names.
    path += `.${turn}`;
    const seed = chance.upTo(100);
    const choice = chance.of(depth > 0 ? ["run", "run", "sleep", "all", "race", "signal"] : ["run", "sleep"]);
    const subs = Array.from({ length: 2 + chance.upTo(2) }, (_, n) => ({
      n,
      chance: new Chance(`${seed}${n}${path}`),
    }));
    const enter = (sub: (typeof subs)[number]) => (scoped: Step) =>
      branch(scoped, sub.chance, trace, depth - 1, `${path}/${sub.n}`);
    if (choice === "run") {
      try {
        const name = `s${path}-${trace.length}`.slice(0, 100);
        trace.push(await step.run(name, () => undefined, { retries: 1 }));
      } catch (error) {
        if (!(error instanceof StepError)) throw error;
        trace.push(error.key);
      }
    } else if (choice === "sleep") {
      await step.sleep(`${seed + 1}s`);
      trace.push("slept");
    } else if (choice === "all") {
      await Promise.all(subs.map((sub) => enter(sub)(step)));
    } else if (choice === "race") {
      const racers = Object.fromEntries(subs.map((sub) => [String(sub.n), enter(sub)]));
      trace.push((await step.race(racers)).name);
    } else {
      const group = new AbortController();
      const nap = step.sleep("1h", { signal: group.signal, name: "nap" }).catch((error: unknown) => String(error));
      trace.push(await step.run(`in${path}`.slice(0, 100), () => undefined).catch(() => "failed"));
      group.abort("enough");
      trace.push(await nap);
    }
  }
}

const program = app.function({ id: "program" }, async ({ step, event }) => {
  const trace: unknown[] = [];
  await branch(step, new Chance(`program ${event.data.seed}`), trace, 2);
  return [trace, step.random()];
});

/** Keeps what is durable of one run, and loses what a crash loses. */
class Server {
  readonly #chance: Chance;
  readonly rows = new Map<string, Outcome>();
  readonly open = new Map<string, StepKind>();
  readonly closed = new Set<string>();
  readonly begun = new Set<string>();
  frames: Command[][] = [];
  bodies: Body[] = [];
  output: unknown;
  turn = 0;
  core!: Reentry;

  constructor(
    private readonly seed: number,
    /** Bodies do not wait for the acknowledgement of what was seen before them. */
    private readonly hasty = false,
  ) {
    this.#chance = new Chance(`schedule ${seed}`);
  }

  async assign(): Promise<void> {
    this.turn += 1;
    this.frames = [];
    this.bodies = [];
    const numbered = [...this.rows.values()].filter((row) => row.number > 0n);
    const message = create(AssignSchema, {
      runId: "run_1",
      turn: this.turn,
      createdMs: 1000n,
      event: { name: "test/start", data: { data: encode({ seed: this.seed }, "data") } },
      journal: numbered.sort((a, b) => Number(a.number - b.number)),
      open: Array.from(this.open, ([key, kind]) => ({ key, kind })),
    });
    this.core = new Reentry(program, message, create(LimitsSchema), () => assert.fail("nothing is foreign here"));
    if (this.hasty) this.core.acked = Infinity;
    const waiting = [...this.rows.values()].filter((row) => row.number === 0n);
    while (waiting.length > 0) {
      await decide(this.core.resolve(waiting.splice(this.#chance.upTo(waiting.length), 1)[0] as Outcome));
    }
    await decide(this.core.start());
    this.drain();
  }

  drain(): void {
    const commands = this.core.takeCommands();
    if (commands.length > 0) this.frames.push(commands);
    for (const { key } of this.core.bodies) {
      assert.ok(!this.rows.has(key), `${key} was durable and ran again`);
      assert.ok(!this.closed.has(key), `${key} was given up and ran again`);
      this.begun.add(key);
    }
    this.bodies.push(...this.core.bodies.splice(0));
    const stopped = this.core.interrupts.splice(0);
    this.bodies = this.bodies.filter(({ key }) => !stopped.includes(key));
  }

  /** One frame becomes durable, and is acknowledged. */
  async take(): Promise<void> {
    let acked = 0;
    for (const command of this.frames.shift() ?? []) acked = Math.max(acked, await this.#store(command));
    const numbers = Array.from(this.rows.values(), (row) => Number(row.number)).filter((number) => number > 0);
    numbers.sort((a, b) => a - b);
    assert.deepEqual(
      numbers,
      numbers.map((_, index) => index + 1),
      "numbers have neither holes nor doubles",
    );
    if (acked > 0) this.core.ack(acked);
    this.drain();
  }

  async #store(command: Command): Promise<number> {
    switch (command.$typeName) {
      case "stepwell.v1.Sleep":
        if (!this.closed.has(command.key) && !this.rows.has(command.key)) this.open.set(command.key, StepKind.SLEEP);
        return 0;
      case "stepwell.v1.StepResult": {
        const { key, number, attempt, output } = command;
        assert.ok(!this.rows.has(key), `${key} has two results`);
        const result = { case: "output" as const, value: output ?? {} };
        this.rows.set(key, create(OutcomeSchema, { key, kind: StepKind.RUN, number, attempt, result }));
        return Number(number);
      }
      case "stepwell.v1.StepFailure": {
        const { key, attempt, retry, failure = {} } = command;
        if (this.rows.has(key)) return 0;
        if (attempt < (retry?.maxAttempts ?? 0)) {
          this.open.set(`${key}#${attempt + 1}`, StepKind.RETRY);
        } else {
          const result = { case: "failure" as const, value: failure };
          await this.#resolve(create(OutcomeSchema, { key, kind: StepKind.RUN, attempt, result }));
        }
        return 0;
      }
      case "stepwell.v1.Delivered":
        for (const { key, number } of command.keys) {
          const row = this.rows.get(key);
          assert.ok(row !== undefined && (row.number === 0n || row.number === number), `${key} was numbered twice`);
          row.number = number;
        }
        return Math.max(...command.keys.map(({ number }) => Number(number)));
      case "stepwell.v1.Abandon":
        this.open.delete(command.key);
        this.closed.add(command.key);
        if (this.rows.get(command.key)?.number === 0n) this.rows.delete(command.key);
        return 0;
      case "stepwell.v1.Park":
        for (const key of command.tree?.keys ?? [])
          assert.ok(this.open.has(key) || this.rows.has(key), `${key} is not open`);
        return 0;
      case "stepwell.v1.Complete":
        this.output = decode(command.output?.data ?? new Uint8Array(), "output");
        return Number(command.number);
      default:
        throw new Error(`${command.$typeName} is not expected`);
    }
  }

  async #resolve(row: Outcome): Promise<void> {
    this.rows.set(row.key, row);
    await decide(this.core.resolve(row));
    this.drain();
  }

  /** A timer is due. */
  async fire(): Promise<void> {
    const [key, kind] = this.#chance.of([...this.open]);
    this.open.delete(key);
    const row = create(OutcomeSchema, { key, kind, attempt: 2, result: { case: "output", value: {} } });
    if (kind === StepKind.RETRY) row.result = { case: "failure", value: create(FailureSchema, { type: "ValueError" }) };
    await this.#resolve(row);
  }

  /** A body ends. */
  async finish(): Promise<void> {
    const [{ key, attempt }] = this.bodies.splice(this.#chance.upTo(this.bodies.length), 1) as [Body];
    const fails = this.#chance.next() < 0.3;
    const end = fails ? { error: new Error("boom") } : { value: [key, this.turn, this.#chance.next()] };
    await decide(this.core.finish(key, attempt, end));
    this.drain();
  }

  async crash(): Promise<void> {
    this.core.evict();
    await this.assign();
  }

  async play(): Promise<void> {
    await this.assign();
    for (let move = 0; move < MOVES_MAX && this.output === undefined; move += 1) {
      const moves: (() => Promise<void>)[] = [];
      if (this.frames.length > 0)
        moves.push(
          () => this.take(),
          () => this.take(),
        );
      if (this.bodies.length > 0)
        moves.push(
          () => this.finish(),
          () => this.finish(),
        );
      if (this.open.size > 0) moves.push(() => this.fire());
      assert.ok(moves.length > 0, `stuck: ${this.core.state}`);
      await (this.#chance.next() < 0.05 ? this.crash() : this.#chance.of(moves)());
      assert.notEqual(this.core.state, "FENCED", "a mismatch");
    }
    assert.notEqual(this.output, undefined, "it does not end");
  }
}

async function staysAsItWas(server: Server): Promise<void> {
  await server.play();
  const first = server.output;
  // Once more over the whole journal: the same output, and nothing runs.
  server.output = undefined;
  server.open.clear();
  await server.crash();
  assert.deepEqual(server.bodies, []);
  while (server.output === undefined) await server.take();
  assert.deepEqual(server.output, first);
  // What a body was begun for did not turn out otherwise after a crash (H1a).
  const { keys } = server.core as unknown as { keys: Keys };
  for (const key of server.begun) assert.ok(keys.has(key), `${key} was begun, and is not asked for any more`);
}

for (let seed = 0; seed < SEEDS; seed += 1) {
  test(`what is durable stays as it was, seed ${seed}`, () => staysAsItWas(new Server(seed)));
}

test("bodies that do not wait for the acknowledgement are found out", async () => {
  await assert.rejects(async () => {
    for (let seed = 0; seed < SEEDS; seed += 1) await staysAsItWas(new Server(seed, true));
  }, assert.AssertionError);
});
