// The end of a trace over three languages: each span becomes a line of JSON in the file SPANS.

import { BasicTracerProvider, type SpanProcessor } from "@opentelemetry/sdk-trace-base";
import { appendFileSync } from "node:fs";
import { App } from "../../../src/index.js";
import { IdGenerator, tracing } from "../../../src/tracing.js";

const lines: SpanProcessor = {
  onStart: () => undefined,
  onEnd(span) {
    const { traceId, spanId } = span.spanContext();
    const line = {
      name: span.name,
      trace: traceId,
      span: spanId,
      parent: span.parentSpanContext?.spanId ?? "",
      attributes: span.attributes,
    };
    appendFileSync(process.env["SPANS"] ?? "", `${JSON.stringify(line)}\n`);
  },
  forceFlush: () => Promise.resolve(),
  shutdown: () => Promise.resolve(),
};
const provider = new BasicTracerProvider({ idGenerator: new IdGenerator(), spanProcessors: [lines] });

const app = new App("last");

app.function({ id: "ship" }, async ({ step, event }) => {
  const said = await step.run("ship", () => "typescript");
  return [...(event.data as string[]), said];
});

await app.run({ tracer: tracing(provider) });
