// The spans of a worker against a scripted server.

import { type Attributes, SpanStatusCode, context, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import {
  AlwaysOffSampler,
  BasicTracerProvider,
  InMemorySpanExporter,
  type ReadableSpan,
  type Sampler,
  SimpleSpanProcessor,
} from "@opentelemetry/sdk-trace-base";
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { encode } from "../../src/codec.js";
import { App, NonRetriableError } from "../../src/index.js";
import { IdGenerator, tracing } from "../../src/tracing.js";
import { StepKind } from "../../src/v1/step_pb.js";
import { ROOT } from "../support/places.js";
import { until } from "../support/queue.js";
import { world } from "../support/worlds.js";

const CAUSE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());

/** A provider of one test, with what was exported. */
function provided(sampler?: Sampler) {
  const exporter = new InMemorySpanExporter();
  const provider = new BasicTracerProvider({
    idGenerator: new IdGenerator(),
    spanProcessors: [new SimpleSpanProcessor(exporter)],
    ...(sampler !== undefined && { sampler }),
  });
  const ended = () => exporter.getFinishedSpans();
  const named = async (name: string): Promise<ReadableSpan> => {
    await until(() => ended().some((span) => span.name === name), `the span ${name}`);
    const found = ended().filter((span) => span.name === name);
    assert.equal(found.length, 1);
    return found[0] as ReadableSpan;
  };
  return { provider, tracer: tracing(provider), ended, named };
}

/** The derived ids of run_1, as the protocol says. */
const [traceId, spanId] = (() => {
  const page = readFileSync(join(ROOT, "proto", "README.md"), "utf8");
  const row = /^\| `run_1` \| `([0-9a-f]{32})` \| `([0-9a-f]{16})` \|$/m.exec(page);
  return [row?.[1], row?.[2]];
})();

const shared = (fn: string): Attributes => ({
  "stepwell.run_id": "run_1",
  "stepwell.app": "test",
  "stepwell.function": fn,
});

test("a run is a span, and its attempts hang under it", async () => {
  const { provider, tracer, ended, named } = provided();
  const app = new App("test");
  app.function({ id: "two" }, async ({ step }) => {
    await step.run("first", async () => {
      await new Promise(setImmediate);
      provider.getTracer("user").startSpan("inner").end();
    });
    await step.sleep("1h");
  });
  await using w = await world(app, { tracer });
  w.link.assign("run_1", "two", { createdMs: 1000n });
  await w.link.command("Park");
  assert.deepEqual(
    ended().map((span) => span.name),
    ["inner", "first"],
  );
  w.link.send({ outcomes: [{ runId: "run_1", turn: 1, key: "sleep", kind: StepKind.SLEEP }] });
  const root = await named("test/two");
  const [first, inner] = [await named("first"), await named("inner")];
  assert.deepEqual([root.spanContext().traceId, root.spanContext().spanId], [traceId, spanId]);
  assert.equal(root.parentSpanContext, undefined);
  assert.deepEqual(root.startTime, [1, 0]);
  assert.deepEqual(root.attributes, { ...shared("two"), "stepwell.status": "completed" });
  assert.deepEqual(first.attributes, { ...shared("two"), "stepwell.step": "first", "stepwell.attempt": 1 });
  assert.deepEqual([first.spanContext().traceId, first.parentSpanContext?.spanId], [traceId, spanId]);
  assert.equal(inner.parentSpanContext?.spanId, first.spanContext().spanId);
  assert.equal(trace.getSpan(context.active()), undefined);
});

test("a failure is recorded, and a run that is tried again has no span", async () => {
  const { tracer, ended, named } = provided();
  const app = new App("test");
  app.function({ id: "again" }, () => Promise.reject(new Error("at first")));
  app.function({ id: "breaks" }, async ({ step }) => {
    await step.run("charge", () => {
      throw new NonRetriableError("no such card");
    });
  });
  await using w = await world(app, { tracer });
  w.link.assign("run_2", "again");
  await w.link.command("Fail");
  w.link.assign("run_1", "breaks");
  const { failure } = await w.link.command("StepFailure");
  assert.ok(failure);
  const outcome = { runId: "run_1", turn: 1, key: "charge", kind: StepKind.RUN };
  w.link.send({ outcomes: [{ ...outcome, result: { case: "failure", value: failure } }] });
  const root = await named("test/breaks");
  for (const span of [root, await named("charge")]) {
    assert.equal(span.status.code, SpanStatusCode.ERROR);
    assert.match(span.status.message ?? "", /no such card/);
  }
  assert.deepEqual(
    (await named("charge")).events.map((one) => one.name),
    ["exception"],
  );
  assert.equal(root.attributes["stepwell.status"], "failed");
  assert.equal(ended().length, 2);
});

for (const invoked of [true, false]) {
  test(`what has started a run is its ${invoked ? "parent" : "link"}, and what it sends names the run`, async () => {
    const { tracer, named } = provided();
    const app = new App("test");
    app.function({ id: "sends" }, async ({ step }) => {
      await step.sendEvents([{ name: "a" }, { name: "b", metadata: { traceparent: CAUSE } }]);
      await step.invoke("other/f");
    });
    await using w = await world(app, { tracer });
    const name = invoked ? "stepwell/function.invoked" : "user/came";
    const event = { name, metadata: { traceparent: CAUSE }, data: { data: encode({}, "data") } };
    w.link.send({ assigns: [{ runId: "run_1", turn: 1, functionId: "test/sends", event }] });
    const run = `00-${invoked ? CAUSE.slice(3, 35) : traceId}-${spanId}-01`;
    const { events } = await w.link.command("SendEvents");
    assert.deepEqual(
      events.map((one) => one.metadata),
      [{ traceparent: run }, { traceparent: CAUSE }],
    );
    const done = (key: string, kind: StepKind, value: unknown) => ({
      outcomes: [
        {
          runId: "run_1",
          turn: 1,
          key,
          kind,
          result: { case: "output" as const, value: { data: encode(value, "it") } },
        },
      ],
    });
    w.link.send(done("send_events", StepKind.SEND, ["1", "2"]));
    assert.deepEqual((await w.link.command("Invoke")).metadata, { traceparent: run });
    w.link.send(done("other/f", StepKind.INVOKE, 1));
    const root = await named("test/sends");
    assert.equal(root.parentSpanContext?.spanId, invoked ? CAUSE.slice(36, 52) : undefined);
    assert.deepEqual(
      root.links.map((link) => link.context.spanId),
      invoked ? [] : [CAUSE.slice(36, 52)],
    );
  });
}

test("a run that is not sampled says so and makes no span", async () => {
  const { tracer, ended } = provided(new AlwaysOffSampler());
  const app = new App("test");
  app.function({ id: "sends" }, async ({ step }) => {
    await step.run("one", () => 1);
    await step.sendEvent("a");
  });
  await using w = await world(app, { tracer });
  w.link.assign("run_1", "sends");
  const { events } = await w.link.command("SendEvents");
  assert.equal(events[0]?.metadata["traceparent"], `00-${traceId}-${spanId}-00`);
  assert.equal(ended().length, 0);
});
