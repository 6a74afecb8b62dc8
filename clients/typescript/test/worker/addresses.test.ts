// A worker that knows several addresses.

import assert from "node:assert/strict";
import { test } from "node:test";
import { App, Worker } from "../../src/index.js";
import { FakeServer } from "../support/fake_server.js";
import { Lines } from "../support/lines.js";
import { until } from "../support/queue.js";

/** Two servers, and a worker that knows both. */
async function nodes() {
  const [a, b] = [await FakeServer.start(), await FakeServer.start()];
  const app = new App("test");
  app.function({ id: "sleeper" }, async ({ step }) => {
    await step.sleep("1d");
    return "slept";
  });
  const address = `${a.address}, http://${b.address}`;
  const worker = new Worker(app, { address, deployment: "d", log: new Lines() });
  const link = await until(() => [...a.links.drain(), ...b.links.drain()][0], "a stream");
  return {
    link,
    first: link.server,
    other: link.server === a ? b : a,
    async [Symbol.asyncDispose]() {
      await worker.halt();
      await a.stop().catch(() => undefined);
      await b.stop().catch(() => undefined);
    },
  };
}

test("a worker goes to the next address when its stream breaks", async () => {
  await using w = await nodes();
  w.link.assign("run_1", "sleeper");
  await w.link.command("Park");
  const { port } = w.first;
  await w.first.stop();
  const next = await w.other.link();
  assert.deepEqual([next.hello.sessionId, next.hello.residents[0]?.runId], ["ses_1", "run_1"]);
  await w.first.start(port);
  await w.other.stop();
  await w.first.link();
});

test("a worker that is told to drain goes to the next address first", async () => {
  await using w = await nodes();
  w.link.drain();
  const next = await w.other.link();
  assert.equal(next.hello.sessionId, "ses_1");
  next.assign("run_1", "sleeper");
  await next.command("Park");
});
