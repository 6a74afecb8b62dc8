// Decisions in frames.

import { create } from "@bufbuild/protobuf";
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Decision, helloFrames, pack } from "../../src/frames.js";
import type { Commands } from "../../src/v1/step_pb.js";
import { ParkSchema, SleepSchema, StepResultSchema } from "../../src/v1/step_pb.js";

const result = (runId: string, number: number, bytes = 10) =>
  create(StepResultSchema, {
    runId,
    turn: 1,
    key: `k${number}`,
    number: BigInt(number),
    output: { data: new Uint8Array(bytes) },
  });
const decision = (runId: string, ...commands: Decision["commands"]): Decision => ({ runId, commands });
const frames = (decisions: Decision[]) => Array.from(pack(decisions, 7n), (one) => one.frame.value as Commands);

test("many decisions share frames of at most 128 commands", () => {
  const decisions = Array.from({ length: 300 }, (_, n) => decision(`run_${n}`, result(`run_${n}`, 1)));
  assert.deepEqual(
    frames(decisions).map((one) => [one.epoch, one.results.length]),
    [
      [7n, 128],
      [7n, 128],
      [7n, 44],
    ],
  );
});

test("a decision is never split, unless it is larger than a message may be", () => {
  const many = decision("run_1", ...Array.from({ length: 200 }, (_, n) => result("run_1", n + 1)));
  assert.deepEqual(
    frames([decision("run_0", result("run_0", 1)), many]).map((one) => one.results.length),
    [1, 200],
  );
  const large = decision("run_1", ...[1, 2, 3].map((n) => result("run_1", n, 1_900_000)));
  assert.deepEqual(
    frames([large]).map((one) => one.results.map((two) => two.number)),
    [[1n], [2n], [3n]],
  );
});

test("a large result travels alone", () => {
  const decisions = [10, 70_000, 10].map((bytes, n) => decision(`run_${n}`, result(`run_${n}`, 1, bytes)));
  assert.deepEqual(
    frames(decisions).map((one) => one.results.length),
    [1, 1, 1],
  );
});

test("what follows a park of the same run has another frame", () => {
  const park = create(ParkSchema, { runId: "run_1", turn: 1, tree: { keys: ["a"] } });
  const sleep = create(SleepSchema, { runId: "run_1", turn: 1, key: "b" });
  const packed = frames([decision("run_1", park), decision("run_2", result("run_2", 1)), decision("run_1", sleep)]);
  assert.deepEqual(
    packed.map((one) => [one.parks.length, one.results.length, one.sleeps.length]),
    [
      [1, 1, 0],
      [0, 0, 1],
    ],
  );
});

test("nothing makes no frame", () => {
  assert.deepEqual(frames([]), []);
});

test("a Hello with many residents spans frames, and only the last ends it", () => {
  const worker = {
    environment: "",
    app: "a",
    deployment: "d",
    instance: "i",
    sdkVersion: "1",
    functions: [],
    labels: {},
  };
  const residents = Array.from({ length: 2500 }, (_, n) => ({ runId: `run_${n}`, turn: 1, parked: false }));
  const hellos = Array.from(helloFrames(worker, "ses_1", 5, residents), ({ frame }) => frame.value as never) as {
    app: string;
    more: boolean;
    residents: unknown[];
    sessionId: string;
  }[];
  assert.deepEqual(
    hellos.map((one) => [one.app, one.more, one.residents.length, one.sessionId]),
    [
      ["a", true, 1000, "ses_1"],
      ["", true, 1000, ""],
      ["", false, 500, ""],
    ],
  );
});
