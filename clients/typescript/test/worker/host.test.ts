// The host without a session: frames of streams that were left, and code that does what it should not.

import { type MessageInitShape, create, toBinary } from "@bufbuild/protobuf";
import assert from "node:assert/strict";
import { test } from "node:test";
import { decode } from "../../src/codec.js";
import type { Decision } from "../../src/frames.js";
import { Host } from "../../src/host.js";
import { App, type Step } from "../../src/index.js";
import { Pulse } from "../../src/pulse.js";
import { ConnectResponseSchema, StepKind, type WorkSchema } from "../../src/v1/step_pb.js";
import { Lines } from "../support/lines.js";
import { until } from "../support/queue.js";

type WorkInit = MessageInitShape<typeof WorkSchema>;

/** A host that is told what to do, and what it sent. */
class Told {
  readonly log = new Lines();
  readonly sent: Decision[] = [];
  readonly host: Host;
  /** Of the stream that was opened last. */
  pulse = new Pulse();

  constructor(app: App) {
    this.host = new Host(app, {
      maxParked: 100,
      log: this.log,
      send: (decisions) => this.sent.push(...decisions),
      idle: () => undefined,
    });
    this.open(1);
  }

  open(stream: number): void {
    const welcome = create(ConnectResponseSchema, { frame: { case: "welcome", value: { epoch: BigInt(stream) } } });
    const listed = this.host.listing();
    this.pulse = new Pulse();
    const { memory } = this.pulse;
    const frame = toBinary(ConnectResponseSchema, welcome);
    this.host.apply({ kind: "opened", stream, pulse: memory, welcome: frame, listed });
  }

  work(stream: number, work: WorkInit): void {
    const frame = create(ConnectResponseSchema, { frame: { case: "work", value: work } });
    this.host.apply({ kind: "arrived", stream, frame: toBinary(ConnectResponseSchema, frame) });
  }

  assign(fn: string, runId = "run_1"): void {
    this.work(1, { assigns: [{ runId, turn: 1, functionId: `test/${fn}`, event: { name: "test/event" } }] });
  }

  /** What was sent so far, by kind. */
  get kinds(): string[] {
    return this.sent.flatMap(({ commands }) => commands.map((one) => one.$typeName.replace("stepwell.v1.", "")));
  }

  /** How the run ended. */
  async end(): Promise<unknown> {
    const commands = () => this.sent.flatMap((one) => one.commands);
    const find = () => commands().find(({ $typeName }) => /Complete|Fail$/.test($typeName));
    const end = await until(find, "the end");
    if (end.$typeName === "stepwell.v1.Complete") return decode(end.output?.data ?? new Uint8Array(), "output");
    return end.$typeName === "stepwell.v1.Fail" ? `${end.failure?.type}: ${end.failure?.message}` : end.$typeName;
  }
}

test("on a stream that was left outcomes still count, and evictions do not", async () => {
  const app = new App("test");
  app.function({ id: "sleeper" }, async ({ step }) => {
    await step.sleep("1d");
    return "slept";
  });
  const told = new Told(app);
  told.assign("sleeper");
  await until(() => told.kinds.includes("Park"), "the park");
  told.open(2);
  told.work(1, { evicts: [{ runId: "run_1", turn: 1 }] });
  const result = { case: "output" as const, value: {} };
  told.work(1, { outcomes: [{ runId: "run_1", turn: 1, key: "sleep", kind: StepKind.SLEEP, result }] });
  assert.equal(await told.end(), "slept");
});

test("what waited while the process stood still for most of a lease begins nothing", async () => {
  const app = new App("test");
  const entered: string[] = [];
  app.function({ id: "enters" }, ({ step }) => void entered.push(step.runId));
  const told = new Told(app);
  told.pulse.beat();
  told.pulse.trust(60_000);
  told.assign("enters", "run_1");
  await until(() => entered.length === 1, "the entry");
  told.pulse.trust(1);
  await until(() => told.pulse.overslept, "the lease is over");
  told.assign("enters", "run_2");
  told.open(2);
  told.work(2, { assigns: [{ runId: "run_3", turn: 1, functionId: "test/enters", event: { name: "test/event" } }] });
  await until(() => entered.length === 2, "the entry of another run");
  assert.deepEqual(entered, ["run_1", "run_3"]);
});

test("the same assignment twice is one, and a later turn replaces an earlier one", async () => {
  const app = new App("test");
  let entered = 0;
  app.function({ id: "sleeper" }, async ({ step }) => {
    entered += 1;
    await step.sleep("1d");
  });
  const told = new Told(app);
  told.assign("sleeper");
  told.assign("sleeper");
  await until(() => told.kinds.includes("Park"), "the park");
  assert.equal(entered, 1);
  told.work(1, { assigns: [{ runId: "run_1", turn: 2, functionId: "test/sleeper", event: { name: "test/event" } }] });
  await until(() => entered === 2, "the second entry");
  assert.equal(told.host.residents.size, 1);
});

test("a function that awaits I/O is failed by name", async () => {
  const app = new App("test");
  app.function({ id: "impatient" }, async ({ step }) => {
    await step.run("first", () => 1);
    await new Promise((resolve) => setTimeout(resolve, 5));
  });
  const told = new Told(app);
  told.assign("impatient");
  const end = String(await told.end());
  assert.match(
    end,
    /^OutsideStepError: the code awaits something that is no step, after step "first" of test\/impatient/,
  );
  assert.match(end, /active in this process: .*Timeout/);
});

test("a function that calls a step after awaiting I/O is failed by name, although a step was open", async () => {
  const app = new App("test");
  app.function({ id: "mixed" }, async ({ step }) => {
    const slept = step.sleep("1d");
    await new Promise((resolve) => setTimeout(resolve, 5));
    await step.run("late", () => 1);
    await slept;
  });
  const told = new Told(app);
  told.assign("mixed");
  assert.match(
    String(await told.end()),
    /^OutsideStepError: step\.run was called where the code of test\/mixed should not run/,
  );
});

test("a function that ends after awaiting I/O is failed by name, although a step was open", async () => {
  const app = new App("test");
  app.function({ id: "quick" }, async ({ step }) => {
    void step.sleep("1d");
    await new Promise((resolve) => setTimeout(resolve, 5));
    return "too early";
  });
  const told = new Told(app);
  told.assign("quick");
  assert.match(
    String(await told.end()),
    /^OutsideStepError: test\/quick went on after awaiting something that is no step/,
  );
});

test("a signal that is aborted from outside fails the run by name", async () => {
  const app = new App("test");
  app.function({ id: "timed" }, async ({ step }) => {
    await step.sleep("1d", { signal: AbortSignal.timeout(5) });
  });
  const told = new Told(app);
  told.assign("timed");
  assert.match(String(await told.end()), /the signal of step "sleep" of test\/timed was aborted from outside/);
});

test("a step call in the body of a step is refused, at once and later", async () => {
  const app = new App("test");
  for (const [id, wait] of [
    ["nested", () => undefined],
    ["nested-later", () => new Promise((resolve) => setTimeout(resolve, 5))],
    ["nested-micro", () => Promise.resolve()],
  ] as const) {
    app.function({ id, retries: 0 }, async ({ step }) => {
      await step.run("outer", async () => {
        await wait();
        await step.run("inner", () => 1);
      });
    });
    const told = new Told(app);
    told.assign(id);
    const failure = await until(
      () => told.sent.flatMap((one) => one.commands).find((one) => one.$typeName === "stepwell.v1.StepFailure"),
      "the failure",
    );
    assert.ok(failure.$typeName === "stepwell.v1.StepFailure");
    assert.equal(failure.failure?.type, "OutsideStepError", id);
    assert.match(failure.failure.message, /step\.run was called where .* in the body of a step/);
  }
});

test("a step that escaped its run is fenced", async () => {
  const app = new App("test");
  let escaped: Step | undefined;
  app.function({ id: "leaky" }, ({ step }) => {
    escaped = step;
  });
  const told = new Told(app);
  told.assign("leaky");
  await told.end();
  assert.throws(() => escaped?.sleep("1s"), { name: "Fenced" });
});

test("many runs make progress together", async () => {
  const app = new App("test");
  app.function({ id: "count" }, async ({ step }) => {
    const parts = await Promise.all(Array.from({ length: 5 }, (_, n) => step.run("part", () => n)));
    return parts.length;
  });
  const told = new Told(app);
  for (let n = 0; n < 300; n += 1) told.assign("count", `run_${n}`);
  await until(() => told.kinds.filter((kind) => kind === "Complete").length === 300, "all ends");
  assert.equal(told.kinds.filter((kind) => kind === "StepResult").length, 1500);
});
