// Functions in TypeScript against a real server, beside a worker in Python.

import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import {
  type Client,
  type Event,
  NotFoundError,
  RunCancelledError,
  RunFailedError,
  RunTimedOutError,
} from "../../src/index.js";
import { type AppWorker, Server, ended, reached } from "../support/processes.js";
import { until } from "../support/queue.js";

describe("features", () => {
  let server: Server;
  let client: Client;
  let worker: AppWorker;
  let python: AppWorker;
  let effects: string;

  before(async () => {
    server = await Server.start();
    client = server.client;
    effects = join(server.folder, "effects");
    writeFileSync(effects, "");
    worker = server.worker("features.js", { EFFECTS: effects });
    python = server.worker("billing.py");
    await Promise.all([worker.connect(), python.connect()]);
  });

  after(async () => {
    await worker.kill();
    await python.kill();
    await server[Symbol.asyncDispose]();
  });

  /** How often the body of a step began. */
  const executed = (runId: string, key: string) =>
    readFileSync(effects, "utf8")
      .split("\n")
      .filter((line) => line.startsWith(`${runId}\t${key}\t`)).length;

  const invoke = (name: string, input?: unknown) => client.invoke(`features/${name}`, input, { timeout: "60s" });

  /** The one run that an event starts. */
  async function sent(name: string, data: object): Promise<string> {
    const { runIds } = await client.getEvent(await client.send(name, data));
    assert.equal(runIds.length, 1);
    return runIds[0] as string;
  }

  test("steps in sequence, and a journal of them", async () => {
    const handle = await client.start("features/sequence", 3);
    assert.equal(await handle.result("60s"), 3);
    const journal = await client.journal(handle.runId);
    assert.deepEqual(
      journal.map(({ key, kind, number, output }) => [key, kind, number, output]),
      [
        ["add", "RUN", 1, 0],
        ["add:2", "RUN", 2, 1],
        ["add:3", "RUN", 3, 2],
      ],
    );
    const { status, ended: over, turn, functionId } = await handle.status();
    assert.deepEqual([status, over, turn, functionId], ["COMPLETED", true, 1, "features/sequence"]);
  });

  test("steps side by side, races and branches", async () => {
    const parts = Array.from({ length: 20 }, (_, n) => n);
    assert.deepEqual(await invoke("parallel"), [parts, ["rejected", "fulfilled"], "fast", "y"]);
  });

  test("values come back as JSON has them, also through Python", async () => {
    const values = [
      null,
      9007199254740993n,
      -(2n ** 63n),
      0.1,
      1e21,
      -0.5,
      "größe ✓ 你好 😀\u0000\u2028",
      { "": [], ключ: { a: null } },
      [[[]]],
    ];
    for (const value of values) {
      assert.deepEqual(await invoke("echo", value), value);
      assert.deepEqual(await invoke("parent", { target: "billing/mirror", input: value }), value);
      assert.deepEqual(await client.invoke("billing/ask_typescript", value), value);
    }
  });

  test("functions in both languages invoke each other, and see each other's failures", async () => {
    assert.equal(await invoke("parent", { target: "billing/price", input: { cents: 41 } }), 42);
    assert.deepEqual(await invoke("parent", { target: "billing/price", input: { cents: -1 } }), [
      "RunFailedError",
      "RUN_FAILED",
      "negative",
    ]);
    assert.deepEqual(await invoke("parent", { target: "charge", input: { amount: 5 } }), { id: "r-1", amount: 5 });
    assert.deepEqual(await invoke("parent", { target: "nobody/nothing" }), [
      "InvokeError",
      "FUNCTION_NOT_FOUND",
      "no app has registered function 'nobody/nothing'",
    ]);
    const [name, reason] = await invoke("parent", { target: "forever", timeout: "100ms" });
    assert.deepEqual([name, reason], ["InvokeTimeoutError", "TIMEOUT"]);
  });

  test("a wait looks back, matches, and times out on the dev clock", async () => {
    const waits = [
      { event: "w/go", match: "data.u", timeout: "20s" },
      { event: "w/go", match: "data.u", if: "async.data.n > 5", timeout: "20s" },
    ];
    const waiter = await sent("w/start", { u: "ü", waits });
    await client.sendMany([
      { name: "w/go", data: { u: "other", n: 1 } },
      { name: "w/go", data: { u: "ü", n: 2 } },
      { name: "w/go", data: { u: "ü", n: 3 } },
      { name: "w/go", data: { u: "ü", n: 9 } },
    ]);
    assert.deepEqual((await ended(client, waiter)).output, [2, 9]);
    const drips = [await sent("drip/start", { user: 1 }), await sent("drip/start", { user: 2 })] as const;
    for (const run of drips) await reached(client, run, ({ status }) => status === "PARKED");
    const [wait] = (await client.getRun(drips[0])).waitingFor;
    assert.deepEqual([wait?.kind, wait?.event, wait?.match], ["EVENT", "drip/booked", "data.user=1"]);
    await client.send("drip/booked", { user: 1 });
    assert.equal((await ended(client, drips[0])).output, "booked");
    const advance = await client.advanceClock("4d");
    assert.equal(advance.complete, true);
    assert.equal((await ended(client, drips[1])).output, "reminded");
    assert.deepEqual([executed(drips[1], "welcome"), executed(drips[1], "reminder")], [1, 1]);
  });

  test("sleeps, by length and until an instant", async () => {
    const { now } = await client.serverInfo();
    const [before, woken] = await invoke("sleeper", { for: "150ms" });
    assert.ok(woken - before >= 150);
    const until = now.getTime() + 400;
    const [, at] = await invoke("sleeper", { until });
    assert.ok(at >= until);
  });

  test("events are sent once, although the function is tried again", async () => {
    const handle = await client.start("features/sender", "ts");
    const ids: string[] = await handle.result("60s");
    assert.equal(new Set(ids).size, 3);
    const found = [];
    for await (const { event } of client.listEvents("sent/*")) if (event.data.u === "ts") found.push(event.id);
    assert.deepEqual(found.sort(), ids.sort());
  });

  test("bodies are tried again, at once or later, or not at all", async () => {
    const handle = await client.start("features/retrier", { fails: 2, how: "" });
    const [attempt, lastError, token] = await handle.result("60s");
    assert.deepEqual([attempt, lastError, executed(handle.runId, "flaky")], [3, "attempt 2", 3]);
    assert.match(token, /^[0-9a-f]{32}$/);
    assert.deepEqual(await invoke("retrier", { fails: 9, attempts: 2 }), ["caught", "TypeError", "attempt 2", 2]);
    assert.deepEqual(await invoke("retrier", { fails: 9, how: "non_retriable" }), [
      "caught",
      "NonRetriableError",
      "never again",
      1,
    ]);
    assert.equal((await invoke("retrier", { fails: 1, how: "retry_after" }))[1], "busy");
  });

  test("a step's failure that nobody catches fails the run, with stack and causes", async () => {
    const handle = await client.start("features/uncaught");
    await assert.rejects(handle.result("60s"), RunFailedError);
    const { failure, status } = await handle.status();
    assert.deepEqual(
      [status, failure?.type, failure?.cause?.type, failure?.cause?.message],
      ["FAILED", "StepError", "Error", "deep"],
    );
    assert.match(failure?.cause?.stack ?? "", /features\.js:\d+/);
    assert.equal(failure?.cause?.cause?.message, "why");
  });

  test("a function that throws is tried again over its journal", async () => {
    assert.deepEqual(await invoke("raising", 2), [1, 3]);
  });

  test("a body that outruns its time-out is stopped", async () => {
    assert.deepEqual(await invoke("outrun"), ["StepTimeoutError", true]);
  });

  test("a result above the limit fails its step by name", async () => {
    assert.equal(await invoke("large", 2 * 1024 * 1024 - 2), 2 * 1024 * 1024 - 2);
    const handle = await client.start("features/large", 2 * 1024 * 1024);
    await assert.rejects(
      handle.result("60s"),
      /LimitError: the result of step large has 2097154 bytes; result_bytes is 2097152/,
    );
  });

  test("cancelled runs clean up, wherever they were", async () => {
    for (const kind of ["body", "child", "sleep"]) {
      const handle = await client.start("features/cancellable", kind);
      await until(async () => {
        const { status, waitingFor } = await handle.status();
        return kind === "body" ? executed(handle.runId, "busy") > 0 : status === "PARKED" && waitingFor.length > 0;
      }, `${kind} is under way`);
      await handle.cancel("no longer needed");
      await assert.rejects(handle.result("60s"), RunCancelledError);
      const journal = await client.journal(handle.runId);
      assert.equal(journal.find(({ key }) => key === "clean-up")?.output, "cleaned", kind);
      assert.equal((await handle.status()).failure?.reason, "CANCELLED");
    }
  });

  test("a run whose time is over cleans up, and tells those who invoked it", async () => {
    const alone = await client.start("features/timed");
    const parent = await client.start("features/parent", { target: "timed" });
    const children = async () => {
      for await (const child of client.listRuns({ parentRunId: parent.runId })) return child.status === "PARKED";
      return false;
    };
    await until(children, "the child waits");
    const { deadline, createdAt } = await reached(client, alone.runId, ({ status }) => status === "PARKED");
    assert.ok(deadline !== undefined && deadline.getTime() - createdAt.getTime() >= 14 * 86_400_000);
    await client.advanceClock("14d");
    await assert.rejects(alone.result("60s"), RunTimedOutError);
    const said = "the run had not ended 14d after its start (timeout)";
    assert.equal((await client.journal(alone.runId)).find(({ key }) => key === "clean-up")?.output, said);
    assert.equal((await alone.status()).status, "TIMED_OUT");
    assert.deepEqual(await parent.result("60s"), ["RunTimedOutError", "TIMED_OUT", said]);
    const { timeoutMs, startTimeoutMs } = await client.getFunction("features/timed");
    assert.deepEqual([timeoutMs, startTimeoutMs], [1_209_600_000, 3_600_000]);
  });

  test("a function that awaits I/O outside a step fails by name", async () => {
    await assert.rejects(
      invoke("impatient"),
      /OutsideStepError: the code awaits something that is no step, at the start of features\/impatient/,
    );
  });

  test("code that blocks the event loop is named, and loses no run", async () => {
    assert.equal(await invoke("blocking"), null);
    assert.match(
      worker.text(),
      /the event loop is blocked by spin \(features\.js:\d+\).*executing: step spin of features\/blocking \(run_/,
    );
  });

  test("what a client can look at", async () => {
    const stop = new AbortController();
    const watched = client.watchEvents("look/*", stop.signal);
    const next = watched.next();
    const ids: string[] = [];
    // Nothing tells when the watch has begun.
    const seen = await until(async () => {
      ids.push(await client.send("look/here", { n: 1 }, { metadata: { a: "ü" } }));
      return Promise.race([next, Promise.resolve(undefined)]);
    }, "a watched event");
    const { event } = seen.value as { event: Event };
    assert.ok(ids.includes(event.id));
    assert.deepEqual([event.data, event.metadata], [{ n: 1 }, { a: "ü" }]);
    stop.abort();
    assert.equal((await watched.next()).done, true);

    const { runId } = await client.start("features/sequence", 2);
    const changes = [];
    for await (const { run, entries } of client.watchRun(runId))
      changes.push([run.status, entries.map(({ key }) => key)]);
    assert.deepEqual(changes.at(-1)?.[0], "COMPLETED");
    assert.deepEqual([...new Set(changes.flatMap(([, keys]) => keys))], ["add", "add:2"]);

    const listed = [];
    for await (const run of client.listRuns({ function: "features/sequence", statuses: ["COMPLETED"], pageSize: 1 }))
      listed.push(run.id);
    assert.ok(listed.includes(runId) && listed.length >= 2);
    const functions = await client.functions("billing");
    assert.deepEqual(
      functions.map((one) => [one.id, one.workers]),
      [
        ["billing/ask", 1],
        ["billing/ask_typescript", 1],
        ["billing/mirror", 1],
        ["billing/price", 1],
        ["billing/refund", 1],
      ],
    );
    assert.equal((await client.getFunction("features/drip")).triggers[0]?.event, "drip/start");
    const info = (await client.workers()).find(({ app }) => app === "features");
    assert.deepEqual([info?.sdk, info?.capacity, info?.draining], ["typescript 0.1.0", 500, false]);
    await assert.rejects(client.getRun("run_none"), (error: NotFoundError) => {
      assert.ok(error instanceof NotFoundError);
      return error.reason === "RUN_NOT_FOUND";
    });
  });

  test("the same request is one run, the same id one event", async () => {
    const first = await client.start("features/echo", 1, { requestId: "twice" });
    const second = await client.start("features/echo", 1, { requestId: "twice" });
    assert.equal(first.runId, second.runId);
    const ids = [
      await client.send("same/id", { n: 1 }, { id: "mine" }),
      await client.send("same/id", { n: 1 }, { id: "mine" }),
    ];
    assert.equal(ids[0], ids[1]);
  });
});
