// What a client sends names the span that is current, unless its sender does.

import { type ConnectRouter } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { context, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { BasicTracerProvider } from "@opentelemetry/sdk-trace-base";
import assert from "node:assert/strict";
import { createServer } from "node:http2";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { Client } from "../../src/index.js";
import { IdGenerator, tracing } from "../../src/tracing.js";
import { EventService, EventStatus_Outcome } from "../../src/v1/event_pb.js";
import { FunctionService } from "../../src/v1/function_pb.js";

context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());

test("what is sent within a span names it unless its sender does", async () => {
  const seen: Record<string, string>[] = [];
  const routes = (router: ConnectRouter) => {
    router.service(EventService, {
      sendEvents: ({ events }) => {
        seen.push(...events.map((one) => one.metadata));
        return { statuses: events.map(() => ({ outcome: EventStatus_Outcome.ACCEPTED, eventId: "evt_1" })) };
      },
    });
    router.service(FunctionService, {
      invoke: ({ metadata }) => {
        seen.push(metadata);
        return { run: { id: "run_1" } };
      },
    });
  };
  const http = createServer(connectNodeAdapter({ routes }));
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  const provider = new BasicTracerProvider({ idGenerator: new IdGenerator() });
  const address = `127.0.0.1:${(http.address() as AddressInfo).port}`;
  const client = new Client({ address, tracer: tracing(provider) });
  const span = provider.getTracer("test").startSpan("request");
  const { traceId, spanId } = span.spanContext();
  const here = { traceparent: `00-${traceId}-${spanId}-01` };
  const large = { note: "x".repeat(8000) };
  await context.with(trace.setSpan(context.active(), span), async () => {
    await client.sendMany([
      { name: "a" },
      { name: "b", metadata: { traceparent: "own" } },
      { name: "c", metadata: large },
    ]);
    await client.start("shop/pay", null, { metadata: { who: "Ada" } });
  });
  await client.send("d");
  assert.deepEqual(seen, [here, { traceparent: "own" }, large, { who: "Ada", ...here }, {}]);
  client.close();
  await new Promise((resolve) => http.close(resolve));
});
