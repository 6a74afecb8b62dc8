// The worker's session against a scripted server: heartbeats, reconnecting, fencing, leases, drains.

import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import assert from "node:assert/strict";
import { test } from "node:test";
import { Deferred } from "../../src/deferred.js";
import { runDigest } from "../../src/hashing.js";
import { App, InvalidArgumentError, type StepContext, Worker } from "../../src/index.js";
import { ResidentSchema } from "../../src/v1/step_pb.js";
import { FakeServer } from "../support/fake_server.js";
import { Lines } from "../support/lines.js";
import { until } from "../support/queue.js";
import { valueOf, world } from "../support/worlds.js";

/** Functions that sleep, work until they are told to end, or wait for the abort of their body. */
function makeApp() {
  const app = new App("test");
  const bodies: StepContext[] = [];
  const ends: Deferred<string>[] = [];
  app.function({ id: "sleeper" }, async ({ step }) => {
    await step.sleep("1d");
    return "slept";
  });
  app.function({ id: "working" }, async ({ step }) => {
    const result = await step.run("work", (context) => {
      const end = new Deferred<string>();
      bodies.push(context);
      ends.push(end);
      context.signal.addEventListener("abort", () => end.reject(context.signal.reason));
      return end.promise;
    });
    return await step.run("more", () => `${result}, more`);
  });
  return { app, bodies, ends };
}

test("heartbeats carry the residents as of the frames read", async () => {
  const { app, ends } = makeApp();
  const server = await FakeServer.start();
  server.welcome.heartbeatMs = 30;
  await using w = await world(app, {}, server);
  const empty = await w.link.heartbeats.get("a heartbeat");
  assert.deepEqual([empty.epoch, empty.residents, empty.residentHash, empty.framesRead], [1n, 0, 0n, 1n]);
  w.link.assign("run_1", "working", {});
  w.link.assign("run_2", "sleeper", {});
  const both = (runDigest("run_1", 1) + runDigest("run_2", 1)) % (1n << 64n);
  const beat = await w.link.heartbeats.find((one) => one.framesRead === 3n, "a heartbeat after both");
  assert.deepEqual([beat.residents, beat.residentHash], [2, both]);
  await until(() => ends.length > 0, "the body");
  ends[0]?.resolve("done");
  await w.link.command("Complete");
  const later = await w.link.heartbeats.find((one) => one.residents === 1, "a heartbeat without the run that ended");
  assert.equal(later.residentHash, runDigest("run_2", 1));
});

test("the hash of residents is that of the protocol", () => {
  const one = runDigest("run_0192a0b1c2d30123456789abcdef01234567", 1);
  const other = runDigest("run_0192a0b1c2d4fedcba98765432100123abcd", 3);
  assert.equal(one, 0xa6c9251d60f83ff9n);
  assert.equal(other, 0x18e65096ece830bfn);
  assert.equal((one + other) % (1n << 64n), 0xbfaf75b44de070b8n);
});

test("user code that blocks its thread does not stop heartbeats", async () => {
  const app = new App("test");
  const blocked = new Deferred<void>();
  app.function({ id: "blocking" }, async ({ step }) => {
    await step.run("block", () => {
      blocked.resolve();
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1200);
    });
  });
  const server = await FakeServer.start();
  server.welcome.heartbeatMs = 100;
  await using w = await world(app, {}, server);
  w.link.assign("run_1", "blocking");
  await blocked.promise;
  // This thread was blocked as well: what arrived meanwhile was sent while it was. More frames came after the body's end.
  const pairs: string[] = [];
  await until(() => {
    const during = w.link.heartbeats.drain().filter((one) => one.framesRead <= 2n);
    pairs.push(...during.map((one) => `${one.residents} as of frame ${one.framesRead}`));
    return pairs.length > 5 ? pairs : undefined;
  }, "heartbeats");
  assert.deepEqual(
    pairs.filter((pair) => !["0 as of frame 1", "1 as of frame 2"].includes(pair)),
    [],
  );
  await w.link.command("Complete");
});

test("after a lost stream residents are named and results are sent again", async () => {
  const { app, ends } = makeApp();
  await using w = await world(app);
  w.server.acknowledge = false;
  w.link.assign("run_1", "working", { turn: 3 });
  w.link.assign("run_2", "sleeper");
  await w.link.command("Park");
  await until(() => ends.length > 0, "the body");
  ends[0]?.resolve("done");
  await w.link.command("StepResult");
  w.server.breakOff();
  const next = await w.server.link();
  assert.equal(next.hello.sessionId, "ses_1");
  const residents = next.hello.residents.map(({ runId, turn, parked }) => [runId, turn, parked]);
  assert.deepEqual(residents.sort(), [
    ["run_1", 3, false],
    ["run_2", 1, true],
  ]);
  const again = await next.command("StepResult");
  assert.deepEqual([again.runId, again.turn, again.number, valueOf(again.output)], ["run_1", 3, 1n, "done"]);
  await next.command("Park");
  next.send({ acks: [{ runId: "run_1", turn: 3, number: 1n }] });
  assert.equal(valueOf((await next.command("StepResult")).output), "done, more");
});

test("runs that Welcome refuses are forgotten, and those that it does not name go on", async () => {
  const { app, bodies } = makeApp();
  await using w = await world(app);
  w.link.assign("run_1", "working");
  w.link.assign("run_2", "working");
  await until(() => bodies.length === 2, "both bodies");
  w.server.welcome.refused = [create(ResidentSchema, { runId: "run_1", turn: 1 })];
  w.server.breakOff();
  await w.server.link();
  await until(() => bodies[0]?.signal.aborted, "the interruption");
  assert.equal(bodies[1]?.signal.aborted, false);
});

test("a session that expired is another one: its runs are forgotten", async () => {
  const { app, bodies } = makeApp();
  await using w = await world(app);
  w.link.assign("run_1", "working");
  await until(() => bodies.length === 1, "the body");
  w.server.welcome.sessionId = "ses_2";
  w.server.welcome.refused = [create(ResidentSchema, { runId: "run_1", turn: 1 })];
  w.link.end(new ConnectError("the session is held elsewhere", Code.Aborted));
  const next = await w.server.link();
  assert.equal(next.hello.sessionId, "ses_1");
  await until(() => bodies[0]?.signal.aborted, "the interruption");
  w.server.breakOff();
  const third = await w.server.link();
  assert.deepEqual([third.hello.sessionId, third.hello.residents], ["ses_2", []]);
});

test("a stream that the server ends is opened again with the session", async () => {
  const { app } = makeApp();
  await using w = await world(app);
  w.link.end(new ConnectError("the session was taken up", Code.Aborted));
  const next = await w.server.link();
  assert.equal(next.hello.sessionId, "ses_1");
  await until(() => w.log.text.includes("the session was taken up"), "the log");
});

test("silence for most of a lease stops the bodies, and a new stream is tried before", async () => {
  const { app, bodies } = makeApp();
  const server = await FakeServer.start();
  server.welcome.heartbeatMs = 20;
  server.welcome.leaseMs = 400;
  await using w = await world(app, {}, server);
  w.link.assign("run_1", "working");
  await until(() => bodies.length === 1, "the body");
  // The scripted server says nothing more: the stream is left after 0.4 of the lease, with its residents.
  const next = await w.server.link();
  assert.deepEqual(
    next.hello.residents.map((one) => one.runId),
    ["run_1"],
  );
  server.refusal = new ConnectError("not now", Code.Unavailable);
  next.end();
  await until(() => bodies[0]?.signal.aborted, "the interruption");
  assert.match(w.log.text, /nothing heard from the server .*: stopping all bodies/);
  server.refusal = undefined;
  const last = await w.server.link();
  assert.deepEqual(last.hello.residents, []);
});

test("a server that drains is left only for another stream", async () => {
  const { app, ends } = makeApp();
  await using w = await world(app);
  w.link.assign("run_1", "working");
  await until(() => ends.length === 1, "the body");
  w.link.drain(50);
  const next = await w.server.link();
  assert.deepEqual(
    next.hello.residents.map((one) => one.runId),
    ["run_1"],
  );
  assert.ok(!w.link.others.drain().includes("goodbye"));
  ends[0]?.resolve("done");
  assert.equal((await next.command("StepResult")).key, "work");
});

test("a wrong registration ends the worker with an error that says why", async () => {
  await using server = await FakeServer.start();
  server.refusal = new ConnectError("'-bad' is not a name", Code.InvalidArgument);
  const details = server.refusal.details as unknown[];
  details.push({ type: "google.rpc.ErrorInfo", value: Buffer.from("\n\bBAD_NAME\u0012\bstepwell") });
  const worker = new Worker(makeApp().app, { address: server.address, deployment: "d", log: new Lines() });
  await assert.rejects(worker.ended, (error: Error) => {
    assert.ok(error instanceof InvalidArgumentError);
    assert.equal(error.reason, "BAD_NAME");
    return true;
  });
  await assert.rejects(worker.connected, InvalidArgumentError);
});

test("a server that does not know what a function needs is refused by the worker", async () => {
  const app = new App("test");
  app.function({ id: "timed", timeout: "1h" }, () => null);
  app.function({ id: "limited", concurrency: 1 }, () => null);
  await using server = await FakeServer.start();
  const worker = new Worker(app, { address: server.address, deployment: "d", log: new Lines() });
  await assert.rejects(worker.ended, {
    reason: "CAPABILITY_MISSING",
    message: /is too old: it does not know timeouts of functions, which timed has/,
  });
  server.welcome.capabilities = ["timeouts"];
  const second = new Worker(app, { address: server.address, deployment: "d", log: new Lines() });
  await assert.rejects(second.ended, { message: /it does not know flow of functions, which limited has/ });
  server.welcome.capabilities.push("flow");
  const labels = { gpu: "a100" };
  await using third = new Worker(app, { address: server.address, deployment: "d", log: new Lines(), labels });
  await third.connected;
  const [, , link] = [await server.link(), await server.link(), await server.link()];
  assert.deepEqual(link.hello.capabilities, ["timeouts", "flow"]);
  assert.deepEqual(link.hello.labels, labels);
  assert.equal(link.hello.functions[1]?.flow?.concurrency[0]?.limit, 1);
});

test("an unreachable server is tried again until it is there", async () => {
  const first = await FakeServer.start();
  const { port } = first;
  await first.stop();
  const log = new Lines();
  const worker = new Worker(makeApp().app, { address: `127.0.0.1:${port}`, deployment: "d", log });
  await until(() => log.text.includes("no connection"), "a first attempt");
  await using server = await FakeServer.start(port);
  await server.link();
  await worker.connected;
  await worker.stop();
});

test("a worker that never reached its server can be stopped", async () => {
  const worker = new Worker(makeApp().app, { address: "127.0.0.1:1", deployment: "d", log: new Lines() });
  await worker.stop();
  await assert.rejects(worker.connected, /left before it was connected/);
});

test("the longest parked runs are released", async () => {
  const { app } = makeApp();
  await using w = await world(app, { maxParked: 2 });
  for (const id of ["run_1", "run_2", "run_3"]) w.link.assign(id, "sleeper");
  assert.equal((await w.link.command("Release")).runId, "run_1");
  const beat = await w.link.heartbeats.find((one) => one.framesRead >= 4n, "a heartbeat");
  assert.equal(beat.residents, 2);
});

test("a draining worker lets bodies finish, gives parked runs back and says goodbye", async () => {
  const { app, ends } = makeApp();
  await using w = await world(app);
  w.link.assign("run_1", "working");
  w.link.assign("run_2", "sleeper");
  await w.link.command("Park");
  await until(() => ends.length === 1, "the body");
  const left = w.worker.stop();
  assert.equal(await w.link.others.get("capacity"), "capacity");
  assert.equal((await w.link.command("Release")).runId, "run_2");
  ends[0]?.resolve("done");
  assert.equal((await w.link.command("StepResult")).key, "work");
  await left;
  assert.deepEqual([...w.link.others.drain()], ["goodbye", "closed"]);
  // "more" was not begun.
  assert.deepEqual(w.link.commands.drain(), []);
});

test("halt leaves at once", async () => {
  const { app, bodies } = makeApp();
  await using w = await world(app, { drain: "1h" });
  w.link.assign("run_1", "working");
  await until(() => bodies.length === 1, "the body");
  void w.worker.stop();
  await w.worker.halt();
  assert.equal(bodies[0]?.signal.aborted, true);
  assert.ok(w.link.others.drain().includes("goodbye"));
});

test("async disposal drains", async () => {
  const { app } = makeApp();
  await using server = await FakeServer.start();
  {
    await using worker = new Worker(app, { address: server.address, deployment: "d", log: new Lines() });
    await worker.connected;
  }
  const link = await server.link();
  assert.ok((await link.others.find((one) => one === "goodbye", "goodbye")) === "goodbye");
});

test("large results of one moment travel in frames of their own, also when they are sent again", async () => {
  const app = new App("test");
  app.function({ id: "large" }, async ({ step }) => {
    await Promise.all(["a", "b", "c"].map((name) => step.run(name, () => name.repeat(1_900_000))));
  });
  await using w = await world(app);
  w.server.acknowledge = false;
  w.link.assign("run_1", "large");
  for (const number of [1n, 2n, 3n]) assert.equal((await w.link.command("StepResult")).number, number);
  w.server.breakOff();
  const next = await w.server.link();
  for (const number of [1n, 2n, 3n]) {
    const frame = await next.frames.get("a frame");
    assert.deepEqual(
      frame.results.map((one) => one.number),
      [number],
    );
  }
});
