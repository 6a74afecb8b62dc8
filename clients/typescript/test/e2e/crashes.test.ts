// Workers and servers are killed, drained and replaced: runs go on, and nothing that was acknowledged runs again.

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { RunFailedError } from "../../src/index.js";
import { type Process, Server, ended, reached } from "../support/processes.js";
import { until } from "../support/queue.js";

/** A server that is slow to come back finds its workers still there. */
const PATIENT = { lease_ms: 120_000 };

interface Effect {
  readonly runId: string;
  readonly key: string;
  readonly nonce: string;
}

/** The file in which bodies note what they do. */
class Effects {
  readonly file: string;

  constructor(folder: string) {
    this.file = join(folder, "effects");
    writeFileSync(this.file, "");
  }

  all(): Effect[] {
    const lines = readFileSync(this.file, "utf8").split("\n").filter(Boolean);
    return lines.map((line) => {
      const [runId = "", key = "", , nonce = ""] = line.split("\t");
      return { runId, key, nonce };
    });
  }

  of(runId: string, key: string): string[] {
    return this.all().flatMap((one) => (one.runId === runId && one.key === key ? [one.nonce] : []));
  }
}

test("a worker that is killed: its runs go on with another, and what was acknowledged does not run again", async () => {
  await using server = await Server.start();
  const effects = new Effects(server.folder);
  await using first = server.worker("crashing.js", { EFFECTS: effects.file });
  await first.connect();
  const { runId } = await server.client.start("crashing/once");
  await until(() => effects.of(runId, "held").length === 1, "the body");
  await first.kill();
  await using second = server.worker("crashing.js", { EFFECTS: effects.file });
  await second.connect();
  await until(() => effects.of(runId, "held").length === 2, "the body, elsewhere");
  assert.equal(effects.of(runId, "before").length, 1);
  assert.equal((await server.client.getRun(runId)).turn, 2);
});

test("a worker that thaws after its lease begins nothing that lay in its socket", async () => {
  await using server = await Server.start({ lease_ms: 1500, heartbeat_ms: 400 });
  const effects = new Effects(server.folder);
  await using frozen = server.worker("crashing.js", { EFFECTS: effects.file });
  await frozen.connect();
  frozen.signal("SIGSTOP");
  const { runId } = await server.client.start("crashing/child");
  await reached(server.client, runId, ({ turn }) => turn === 1);
  await using other = server.worker("crashing.js", { EFFECTS: effects.file });
  await other.connect();
  assert.equal((await ended(server.client, runId)).status, "COMPLETED");
  frozen.signal("SIGCONT");
  await until(() => /stood still[^]*connected to/.test(frozen.text()), "it connects again");
  assert.equal(effects.of(runId, "child").length, 1);
});

test("a server that is killed: its worker takes up its session, and bodies go on meanwhile", async () => {
  await using server = await Server.start(PATIENT);
  const effects = new Effects(server.folder);
  await using worker = server.worker("crashing.js", { EFFECTS: effects.file });
  await worker.connect();
  const { runId } = await server.client.start("crashing/once");
  await until(() => effects.of(runId, "held").length === 1, "the body");
  await server.kill();
  await server.listen();
  await reached(server.client, runId, ({ waitingFor }) => waitingFor.some(({ kind }) => kind === "EXECUTING"));
  await server.client.cancelRun(runId);
  assert.equal((await ended(server.client, runId)).status, "CANCELLED");
  assert.equal(effects.of(runId, "held").length, 1);
  assert.match(worker.text(), /epoch 2/);
});

test("a server that leaves in order: its worker goes on, and takes its session up at the next one", async () => {
  await using server = await Server.start(PATIENT);
  const effects = new Effects(server.folder);
  await using worker = server.worker("crashing.js", { EFFECTS: effects.file });
  await worker.connect();
  const sent = await server.client.sendMany(
    Array.from({ length: 10 }, (_, n) => ({ name: "crash/chain", data: { u: `u${n}`, n, steps: 12 } })),
  );
  await until(() => effects.all().length > 20, "some progress");
  server.signal("SIGTERM");
  assert.equal(await server.ended(), 0);
  await server.listen();
  for (const { eventId } of sent) {
    const [runId = ""] = (await server.client.getEvent(eventId)).runIds;
    const run = await ended(server.client, runId);
    assert.deepEqual([run.status, run.turn], ["COMPLETED", 1]);
  }
  const seen = effects.all().map(({ runId, key }) => `${runId} ${key}`);
  assert.equal(new Set(seen).size, seen.length, "each body executed once");
  assert.match(worker.text(), /the server asks to connect elsewhere/);
  assert.match(worker.text(), /epoch 2/);
});

test("nothing is lost, doubled or stuck while worker and server are killed again and again", async () => {
  await using server = await Server.start();
  const effects = new Effects(server.folder);
  await using worker = server.worker("crashing.js", { EFFECTS: effects.file });
  await worker.connect();
  const events = Array.from({ length: 24 }, (_, n) =>
    n % 2 === 0
      ? { name: "crash/chain", data: { u: `u${n}`, n, steps: 12 } }
      : { name: "crash/fan", data: { u: `u${n}`, n } },
  );
  const statuses = await server.client.sendMany(events);
  const executed = () => effects.all().length;
  // Each time some more bodies have executed, one of both is killed.
  for (let kills = 0; kills < 6; kills += 1) {
    const enough = executed() + 15;
    await until(() => executed() >= enough, "some progress");
    const victim: Process = kills % 3 === 2 ? server : worker;
    await victim.kill();
    if (victim === server) await server.listen();
    else await worker.connect();
  }
  for (const { eventId } of statuses) {
    const { runIds } = await server.client.getEvent(eventId);
    assert.equal(runIds.length, 1);
    const run = await ended(server.client, runIds[0] as string, "120s");
    assert.equal(run.status, "COMPLETED");
    const children = [];
    for await (const child of server.client.listRuns({ parentRunId: run.id })) children.push(child.id);
    for (const [key, nonce] of Object.entries(run.output as Record<string, string>)) {
      const nonces = effects.of(key === "child" ? (children[0] as string) : run.id, key);
      // Whatever ran before was lost before it was acknowledged; nothing ran after it.
      assert.equal(nonces.at(-1), nonce, `${key} of ${run.id}`);
    }
  }
});

test("SIGTERM drains: bodies finish, runs move, and the process exits cleanly", async () => {
  await using server = await Server.start();
  const effects = new Effects(server.folder);
  await using first = server.worker("crashing.js", { EFFECTS: effects.file });
  await first.connect();
  const sent = await server.client.sendMany(
    Array.from({ length: 10 }, (_, n) => ({ name: "crash/chain", data: { u: `u${n}`, n, steps: 10 } })),
  );
  await until(() => effects.all().length > 20, "some progress");
  await using second = server.worker("crashing.js", { EFFECTS: effects.file });
  await second.connect();
  first.signal("SIGTERM");
  assert.equal(await first.ended(), 0);
  for (const { eventId } of sent) {
    const [runId = ""] = (await server.client.getEvent(eventId)).runIds;
    assert.equal((await ended(server.client, runId)).status, "COMPLETED");
  }
  // No body was cut off: each executed once.
  const seen = effects.all().map(({ runId, key }) => `${runId} ${key}`);
  assert.equal(new Set(seen).size, seen.length);
});

test("a second signal leaves at once, and the body runs again elsewhere", async () => {
  await using server = await Server.start();
  const effects = new Effects(server.folder);
  await using first = server.worker("crashing.js", { EFFECTS: effects.file, DRAIN: "1h" });
  await first.connect();
  const { runId } = await server.client.start("crashing/once");
  await until(() => effects.of(runId, "held").length === 1, "the body");
  first.signal("SIGINT");
  await until(() => first.text().includes("draining"), "the drain");
  first.signal("SIGINT");
  assert.equal(await first.ended(), 0);
  await using second = server.worker("crashing.js", { EFFECTS: effects.file });
  await second.connect();
  await until(() => effects.of(runId, "held").length === 2, "the body, elsewhere");
});

test("code that no longer fits pauses its run with both sides named, and code that fits takes it up", async () => {
  await using server = await Server.start();
  await using first = server.worker("changing.js", { CODE: "first" });
  await first.connect();
  const handle = await server.client.start("changing/order");
  await reached(server.client, handle.runId, ({ status }) => status === "PARKED");
  await first.kill();
  await using other = server.worker("changing.js", { CODE: "other" });
  await other.connect();
  await server.client.advanceClock("1d");
  const paused = await reached(server.client, handle.runId, ({ status }) => status === "PAUSED");
  assert.equal(paused.pausedReason, "NONDETERMINISTIC");
  assert.match(paused.failure?.message ?? "", /pause.*sleep.*run/s);
  assert.match(JSON.stringify(paused.failure), /changing\.js:\d+/);
  await using third = server.worker("changing.js", { CODE: "third" });
  await third.connect();
  assert.equal(await handle.result("60s"), "reserved");
});

test("a refused registration ends the process with an error that says why", async () => {
  await using server = await Server.start();
  await using first = server.worker("crashing.js", { STEPWELL_DEPLOYMENT: "same" });
  await first.connect();
  const app = join(server.folder, "changed.mjs");
  const sdk = new URL("../../src/index.js", import.meta.url).href;
  writeFileSync(app, `import { App } from "${sdk}";\nnew App("crashing").run();\n`);
  await using second = server.worker(app, { STEPWELL_DEPLOYMENT: "same" });
  second.start();
  assert.equal(await second.ended(), 1);
  assert.match(second.text(), /DEPLOYMENT_CHANGED: deployment 'same'/);
});

test("the same sources are the same deployment, and changed ones another", async () => {
  await using server = await Server.start();
  const app = join(server.folder, "app.mjs");
  const helper = join(server.folder, "helper.mjs");
  const sdk = new URL("../../src/index.js", import.meta.url).href;
  writeFileSync(helper, "export const say = () => 1;\n");
  writeFileSync(
    app,
    `import { App } from "${sdk}";\nimport { say } from "./helper.mjs";\nconst app = new App("build");\n` +
      'app.function({ id: "f" }, ({ step }) => step.run("say", say));\nawait app.run();\n',
  );
  const deployments: string[] = [];
  for (const text of ["", "", "// changed\n"]) {
    writeFileSync(helper, `export const say = () => 1;\n${text}`);
    await using worker = server.worker(app);
    deployments.push((await worker.connect()).deployment);
    worker.signal("SIGTERM");
    assert.equal(await worker.ended(), 0);
  }
  assert.equal(deployments[0], deployments[1]);
  assert.notEqual(deployments[1], deployments[2]);
});

test("promises that nobody looks at do not end the process", async () => {
  await using server = await Server.start();
  const app = join(server.folder, "deadly.mjs");
  const sdk = new URL("../../src/index.js", import.meta.url).href;
  writeFileSync(
    app,
    `import { App } from "${sdk}";\nconst app = new App("deadly");\n` +
      'app.function({ id: "rejects", retries: 0 }, async ({ step }) => {\n' +
      '  void Promise.reject(new Error("nobody looks"));\n' +
      '  const branch = (async () => { await step.run("a", () => 1); throw new Error("in a branch"); })();\n' +
      '  await step.sleep("50ms");\n  return branch;\n});\nawait app.run();\n',
  );
  await using worker = server.worker(app);
  await worker.connect();
  await assert.rejects(server.client.invoke("deadly/rejects", null, { timeout: "30s" }), (error: RunFailedError) => {
    assert.ok(error instanceof RunFailedError);
    return /in a branch/.test(error.message);
  });
  assert.ok(worker.running);
  assert.match(worker.text(), /a promise was rejected, and nobody has handled that: Error: nobody looks/);
});
