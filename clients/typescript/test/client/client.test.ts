// The client against scripted services.

import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, type ConnectRouter } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import assert from "node:assert/strict";
import { type ServerHttp2Session, createServer } from "node:http2";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import * as z from "zod";
import { encode } from "../../src/codec.js";
import {
  App,
  Client,
  type ClientOptions,
  DeadlineExceededError,
  LimitError,
  NotFoundError,
  ResourceExhaustedError,
  RunCancelledError,
  RunFailedError,
  RunTimedOutError,
  UnavailableError,
  UsageError,
  WaitTimeoutError,
  event,
} from "../../src/index.js";
import { EventService, EventStatus_Outcome, type SendEventsRequest } from "../../src/v1/event_pb.js";
import { FunctionService, type InvokeRequest } from "../../src/v1/function_pb.js";
import { RunSchema, RunService, RunStatus } from "../../src/v1/run_pb.js";

/** A server of some services, and a client of it. */
async function serve(routes: (router: ConnectRouter) => void, options: ClientOptions = {}) {
  const http = createServer(connectNodeAdapter({ routes }));
  const sessions = new Set<ServerHttp2Session>();
  http.on("session", (session) => sessions.add(session));
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  const client = new Client({
    address: `127.0.0.1:${(http.address() as AddressInfo).port}`,
    environment: "e",
    ...options,
  });
  return {
    client,
    breakOff: () => {
      for (const session of sessions) session.destroy();
    },
    async [Symbol.asyncDispose]() {
      client.close();
      for (const session of sessions) session.destroy();
      await new Promise((resolve) => http.close(resolve));
    },
  };
}

const accepted = (request: SendEventsRequest) => ({
  statuses: request.events.map(({ name }) =>
    name === "bad"
      ? { outcome: EventStatus_Outcome.REFUSED, reason: "BAD_NAME", message: "no" }
      : { outcome: EventStatus_Outcome.ACCEPTED, eventId: `evt_${name}` },
  ),
});

const run = (status: RunStatus, fields = {}) => ({
  run: create(RunSchema, { id: "run_1", functionId: "a/f", status, ...fields }),
});

test("an event is sent and its id returned; a refused one is an error alone, and a status in a batch", async () => {
  const requests: SendEventsRequest[] = [];
  await using s = await serve((router) =>
    router.service(EventService, {
      sendEvents(request) {
        requests.push(request);
        return accepted(request);
      },
    }),
  );
  const placed = event<{ id: number }>("placed");
  assert.equal(await s.client.send(placed, { id: 1 }, { id: "mine", metadata: { a: "b" } }), "evt_placed");
  const [request] = requests;
  assert.equal(request?.environment, "e");
  assert.match(request?.requestId ?? "", /^[0-9a-f-]{36}$/);
  const [sent] = request?.events ?? [];
  assert.deepEqual([sent?.id, sent?.metadata, sent?.data?.data], ["mine", { a: "b" }, encode({ id: 1 }, "x")]);
  await assert.rejects(s.client.send("bad"), { name: "InvalidArgumentError", reason: "BAD_NAME" });
  const statuses = await s.client.sendMany([{ name: "good" }, { name: "bad" }]);
  assert.deepEqual(
    statuses.map((one) => [one.outcome, one.eventId, one.reason]),
    [
      ["ACCEPTED", "evt_good", ""],
      ["REFUSED", "", "BAD_NAME"],
    ],
  );
});

test("a server that is away gets the same request again", async () => {
  const ids: string[] = [];
  await using s = await serve((router) =>
    router.service(EventService, {
      sendEvents(request) {
        ids.push(request.requestId);
        if (ids.length === 1) throw new ConnectError("not yet", Code.Unavailable);
        if (ids.length === 2) s.breakOff();
        if (ids.length === 3) throw new ConnectError("the server stops", Code.Canceled);
        return accepted(request);
      },
    }),
  );
  assert.equal(await s.client.send("x"), "evt_x");
  assert.equal(ids.length, 4);
  assert.equal(new Set(ids).size, 1);
});

test("trying again ends at the time-out", async () => {
  const client = new Client({ address: "127.0.0.1:1", timeout: "200ms" });
  await assert.rejects(client.serverInfo(), UnavailableError);
  client.close();
  await using s = await serve((router) => router.service(RunService, { getRun: () => new Promise(() => undefined) }), {
    timeout: "100ms",
  });
  await assert.rejects(s.client.getRun("run_1"), DeadlineExceededError);
});

test("many events travel in several requests", async () => {
  const sizes: [number, string][] = [];
  await using s = await serve((router) =>
    router.service(EventService, {
      sendEvents(request) {
        sizes.push([request.events.length, request.requestId]);
        return accepted(request);
      },
    }),
  );
  const small = Array.from({ length: 5001 }, () => ({ name: "x" }));
  assert.equal((await s.client.sendMany(small, { requestId: "r" })).length, 5001);
  assert.deepEqual(sizes.splice(0), [
    [5000, "r"],
    [1, "r:1"],
  ]);
  const large = Array.from({ length: 5 }, () => ({ name: "x", data: { a: "y".repeat(1_000_000) } }));
  await s.client.sendMany(large);
  assert.deepEqual(
    sizes.map(([size]) => size),
    [3, 2],
  );
});

test("what is larger than a limit, or no event, is not sent at all", async () => {
  const client = new Client({ address: "127.0.0.1:1" });
  await assert.rejects(client.send("x", { a: "y".repeat(1024 * 1024) }), LimitError);
  await assert.rejects(client.sendMany([{ name: "x", metadata: { a: "y".repeat(5_000_000) } }]), LimitError);
  await assert.rejects(client.invoke("a/f", "y".repeat(2 * 1024 * 1024)), LimitError);
  await assert.rejects(client.sendMany([{ name: "x" }, { name: "" }]), UsageError);
  const strict = event("x", z.object({ n: z.number() }));
  await assert.rejects(client.send(strict, { n: "1" } as never), { name: "SerializationError" });
  client.close();
});

test("an error carries what the server attached", async () => {
  const string = (no: number, value: string) => [(no << 3) | 2, value.length, ...Buffer.from(value)];
  const message = (no: number, inner: number[]) => [(no << 3) | 2, inner.length, ...inner];
  const details: [string, number[]][] = [
    [
      "ErrorInfo",
      [...string(1, "RUN_NOT_FOUND"), ...string(2, "stepwell"), ...message(3, [...string(1, "k"), ...string(2, "v")])],
    ],
    ["BadRequest", message(1, [...string(1, "run_id"), ...string(2, "no id")])],
    ["RetryInfo", message(1, [8, 2, 16, 0x80, 0xca, 0xb5, 0xee, 0x01])],
    ["Unheard", [1, 2, 3]],
    ["ErrorInfo", [0xff]],
  ];
  await using s = await serve((router) =>
    router.service(RunService, {
      getRun() {
        const error = new ConnectError("there is none", Code.NotFound);
        const attached = error.details as unknown[];
        for (const [type, value] of details)
          attached.push({ type: `google.rpc.${type}`, value: Uint8Array.from(value) });
        throw error;
      },
      listRuns() {
        throw new ConnectError("slow down", Code.ResourceExhausted);
      },
      getJournal() {
        throw new ConnectError("broken", Code.Internal);
      },
    }),
  );
  await assert.rejects(s.client.cancelRun("x"), (error: Error) => error.name === "ApiError");
  await assert.rejects(s.client.journal("x"), { name: "ApiError", message: "INTERNAL: broken", code: Code.Internal });
  await assert.rejects(s.client.listRuns().next(), ResourceExhaustedError);
  const short = new Client({ address: s.client.address, timeout: "50ms" });
  await assert.rejects(short.getRun("run_x"), (error: NotFoundError) => {
    assert.ok(error instanceof NotFoundError);
    assert.deepEqual(
      [error.reason, error.metadata, error.violations, error.retryAfterMs, error.said],
      ["RUN_NOT_FOUND", { k: "v" }, [{ field: "run_id", description: "no id" }], 2500, "there is none"],
    );
    assert.equal(error.message, "RUN_NOT_FOUND: there is none; run_id: no id");
    return true;
  });
  short.close();
});

test("invoke waits on the server until the run has ended", async () => {
  const invokes: InvokeRequest[] = [];
  let waits = 0;
  await using s = await serve((router) => {
    router.service(FunctionService, {
      invoke(request) {
        invokes.push(request);
        return run(RunStatus.RUNNING);
      },
    });
    router.service(RunService, {
      waitRun() {
        waits += 1;
        return waits < 3
          ? run(RunStatus.PARKED)
          : run(RunStatus.COMPLETED, { output: { data: encode({ at: new Date(0) }, "x") } });
      },
    });
  });
  const app = new App("a");
  const fn = app.function({ id: "f", output: z.object({ at: z.coerce.date() }) }, () => ({ at: "x" }));
  assert.deepEqual(await s.client.invoke(fn, { n: 5n }), { at: new Date(0) });
  assert.deepEqual(
    [invokes[0]?.functionId, invokes[0]?.input?.data, invokes[0]?.waitMs],
    ["a/f", encode({ n: 5 }, "x"), 50_000],
  );
  const handle = await s.client.start("a/f", null, { requestId: "mine", returns: z.object({ at: z.string() }) });
  assert.deepEqual([invokes[1]?.requestId, invokes[1]?.waitMs, handle.runId], ["mine", 0, "run_1"]);
  assert.deepEqual(await handle.result(), { at: "1970-01-01T00:00:00.000Z" });
});

test("a run without output throws what it ended with; one that goes on, when the time is over", async () => {
  let answer = run(RunStatus.RUNNING);
  await using s = await serve((router) => {
    router.service(FunctionService, { invoke: () => answer });
    router.service(RunService, { waitRun: () => answer });
  });
  const failure = { type: "CardError", message: "no", reason: "", stack: "" };
  const cases: [RunStatus, new (...args: never[]) => Error, RegExp][] = [
    [RunStatus.FAILED, RunFailedError, /run_1 of a\/f: CardError: no/],
    [RunStatus.CANCELLED, RunCancelledError, /run_1 of a\/f/],
    [RunStatus.TIMED_OUT, RunTimedOutError, /run_1 of a\/f/],
    [RunStatus.PARKED, WaitTimeoutError, /has not ended; it is PARKED/],
  ];
  for (const [status, Kind, message] of cases) {
    answer = run(status, { failure });
    await assert.rejects(s.client.invoke("a/f", null, { timeout: "10ms" }), (error: Error) => {
      assert.ok(error instanceof Kind, error.name);
      assert.match(error.message, message);
      return true;
    });
  }
});

test("listings go over pages and streams over frames, until they are aborted", async () => {
  const tokens: string[] = [];
  await using s = await serve((router) => {
    router.service(EventService, {
      listEvents({ pageToken, name, fromMs }) {
        tokens.push(pageToken);
        assert.deepEqual([name, fromMs], ["a/*", 5n]);
        const n = tokens.length;
        return { events: [{ id: `evt_${n}`, name: "a/b", acceptedMs: 7n }], nextPageToken: n < 3 ? `t${n}` : "" };
      },
      async *watchEvents() {
        yield { events: [{ id: "evt_1" }, { id: "evt_2" }] };
        yield { events: [{ id: "evt_3" }] };
        await new Promise(() => undefined);
      },
    });
    router.service(RunService, {
      // eslint-disable-next-line @typescript-eslint/require-await
      async *watchRun() {
        yield { ...run(RunStatus.PARKED), entries: [{ key: "a", number: 1n, output: { data: encode(5n, "x") } }] };
        yield run(RunStatus.COMPLETED);
      },
    });
  });
  const listed = [];
  for await (const one of s.client.listEvents("a/*", { since: new Date(5) }))
    listed.push([one.event.id, one.accepted.getTime()]);
  assert.deepEqual(
    [listed, tokens],
    [
      [
        ["evt_1", 7],
        ["evt_2", 7],
        ["evt_3", 7],
      ],
      ["", "t1", "t2"],
    ],
  );
  const stop = new AbortController();
  const watched = [];
  for await (const { event } of s.client.watchEvents("", stop.signal)) {
    if (watched.push(event.id) === 3) stop.abort();
  }
  assert.deepEqual(watched, ["evt_1", "evt_2", "evt_3"]);
  const changes = [];
  for await (const { run, entries } of s.client.watchRun("run_1"))
    changes.push([run.status, run.ended, entries.map((e) => e.output)]);
  assert.deepEqual(changes, [
    ["PARKED", false, [5]],
    ["COMPLETED", true, []],
  ]);
});

test("the generated client is usable alone", async () => {
  const { createClient } = await import("@connectrpc/connect");
  const { createGrpcTransport } = await import("@connectrpc/connect-node");
  const { RunService: Service } = await import("../../src/v1/index.js");
  await using s = await serve((router) => router.service(RunService, { getRun: () => run(RunStatus.FAILED) }));
  const client = createClient(Service, createGrpcTransport({ baseUrl: `http://${s.client.address}` }));
  const answer = await client.getRun({ runId: "run_1" });
  assert.equal(answer.run?.status, RunStatus.FAILED);
});

test("a client goes to the next address when one is away", async () => {
  const asked: string[] = [];
  const nodes = new Map<string, Awaited<ReturnType<typeof serve>>>();
  for (const name of ["a", "b"]) {
    const sendEvents = (request: SendEventsRequest) => {
      asked.push(name);
      return accepted(request);
    };
    nodes.set(name, await serve((router) => router.service(EventService, { sendEvents })));
  }
  const client = new Client({ address: Array.from(nodes.values(), (one) => one.client.address).join() });
  await client.send("x");
  const [first = ""] = asked;
  await nodes.get(first)?.[Symbol.asyncDispose]();
  nodes.delete(first);
  await client.send("x");
  await client.send("x");
  const [other] = nodes.keys();
  assert.deepEqual(asked, [first, other, other]);
  client.close();
  for (const one of nodes.values()) await one[Symbol.asyncDispose]();
});

test("failures are read page by page", async () => {
  await using s = await serve((router) => {
    router.service(RunService, {
      listFailures({ pageToken, functionIds, statuses, fromMs }) {
        if (pageToken !== "") return { scanned: 1 };
        const group = { functionId: functionIds[0] ?? "", statuses, count: 3n, lastSeenMs: fromMs, key: "charge" };
        return { groups: [group], nextPageToken: "p2", scanned: 9, scannedToMs: 5n };
      },
    });
  });
  const page = await s.client.listFailures({ functions: ["a/b"], statuses: ["TIMED_OUT"], since: new Date(7) });
  assert.deepEqual([page.scanned, page.scannedTo, page.groups.length], [9, new Date(5), 1]);
  const [one] = page.groups;
  assert.deepEqual(
    [one?.functionId, one?.statuses, one?.count, one?.lastSeen, one?.key],
    ["a/b", ["TIMED_OUT"], 3, new Date(7), "charge"],
  );
  const rest = await s.client.listFailures({ pageToken: page.nextPageToken });
  assert.deepEqual([rest.groups, rest.nextPageToken, rest.scannedTo], [[], "", undefined]);
});
