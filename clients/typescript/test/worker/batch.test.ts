// A function that takes batches, in a worker.

import assert from "node:assert/strict";
import { test } from "node:test";
import { App } from "../../src/index.js";
import { StepKind } from "../../src/v1/step_pb.js";
import { encode } from "../../src/codec.js";
import { FakeServer } from "../support/fake_server.js";
import { valueOf, world } from "../support/worlds.js";

test("a function sees all events of its batch in order, each time it is entered", async () => {
  const app = new App("test");
  app.function({ id: "listing", batch: { maxSize: 3, timeout: "1s" } }, async ({ events, step }) => {
    await step.sleep("1h");
    return await step.run("list", () => events.map((one) => `${one.id}=${one.data.n}`));
  });
  const server = await FakeServer.start();
  server.welcome.capabilities = ["flow"];
  await using w = await world(app, {}, server);
  const events = ["evt_b", "evt_a", "evt_c"].map((id, n) => ({
    id,
    name: "item/added",
    data: { data: encode({ n }, "data") },
  }));
  const assign = { runId: "run_1", functionId: "test/listing", event: events[0], events };
  w.link.send({ assigns: [{ ...assign, turn: 1 }] });
  await w.link.command("Park");
  w.link.send({ evicts: [{ runId: "run_1", turn: 1 }] });
  const slept = { key: "sleep", kind: StepKind.SLEEP, result: { case: "output" as const, value: {} } };
  w.link.send({ assigns: [{ ...assign, turn: 2, journal: [slept] }] });
  assert.deepEqual(valueOf((await w.link.command("Complete")).output), ["evt_b=0", "evt_a=1", "evt_c=2"]);
});
