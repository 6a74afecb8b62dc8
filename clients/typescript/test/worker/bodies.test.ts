// Bodies that do not heed their signal.

import { create } from "@bufbuild/protobuf";
import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { type Attempt, Bodies } from "../../src/bodies.js";
import { Deferred } from "../../src/deferred.js";
import { Resident } from "../../src/residents.js";
import { AssignSchema } from "../../src/v1/step_pb.js";
import { Lines } from "../support/lines.js";

test("a body that does not heed its time-out keeps its run waiting, and is named", async () => {
  mock.timers.enable({ apis: ["setTimeout"] });
  try {
    const log = new Lines();
    const ended: Attempt[] = [];
    const bodies = new Bodies(
      () => 5,
      (attempt) => ended.push(attempt),
      log,
    );
    const end = new Deferred<string>();
    const body = { runId: "run_1", functionId: "a/f", key: "slow", attempt: 1, lastError: undefined, input: undefined };
    const owner = new Resident(create(AssignSchema, { runId: "run_1", turn: 1 }));
    bodies.start(owner, { ...body, timeoutMs: 3_000_000_000, execute: () => end.promise });
    const [attempt] = [...owner.attempts.values()];
    // Longer than setTimeout can wait at once.
    mock.timers.tick(2 ** 31 - 1);
    assert.equal(attempt?.context.signal.aborted, false);
    mock.timers.tick(3_000_000_000 - (2 ** 31 - 1));
    assert.equal(attempt.context.signal.aborted, true);
    mock.timers.tick(10_000);
    assert.match(
      log.text,
      /step slow of a\/f \(run_1\) was out of time after 3000000000 ms and still executes 10 s later/,
    );
    assert.deepEqual([ended.length, bodies.executing], [0, 1]);
    end.resolve("too late");
    await end.promise;
    await new Promise(setImmediate);
    assert.equal(bodies.executing, 0);
    const made = ended[0]?.end;
    assert.ok(made !== undefined && "error" in made);
    assert.equal((made.error as Error).name, "StepTimeoutError");
  } finally {
    mock.timers.reset();
  }
});
