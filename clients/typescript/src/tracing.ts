// Spans with OpenTelemetry: one of each run, wherever its code ran, and one of each attempt of a step.
//
// The ids of a run's span are derived from the run's, so that spans of several workers hang under it before it exists.

import {
  type Attributes,
  type Context,
  type HrTime,
  type Link,
  ROOT_CONTEXT,
  type Span,
  type SpanContext,
  SpanKind,
  SpanStatusCode,
  type TracerProvider,
  context as contexts,
  createTraceState,
  isSpanContextValid,
  type Tracer as OtelTracer,
  trace,
} from "@opentelemetry/api";
import { blake2b } from "@noble/hashes/blake2.js";
import { bytesToHex, utf8ToBytes } from "@noble/hashes/utils.js";
import { randomBytes } from "node:crypto";
import type { AttemptSpan, Metadata, RunTrace, TracedEnd, TracedRun, Tracer } from "./trace.js";

/** Metadata that is larger is left alone: the trace context must not make it too large. */
const METADATA_BYTES = 7 * 1024;
const TRACEPARENT = /^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/;

/** The run whose span is begun at this moment. */
let derived: string | undefined;

/** For the option `idGenerator` of a provider: gives the span of a run its derived ids, and all others random ones. */
export class IdGenerator {
  generateTraceId(): string {
    return derived === undefined ? randomBytes(16).toString("hex") : digest(`${derived}\0trace`, 16);
  }

  generateSpanId(): string {
    return derived === undefined ? randomBytes(8).toString("hex") : digest(`${derived}\0span`, 8);
  }
}

function digest(text: string, bytes: number): string {
  return bytesToHex(blake2b(utf8ToBytes(text), { dkLen: bytes }));
}

/** A tracer for the option `tracer` of workers and clients. The provider, or the global one, needs the IdGenerator. */
export function tracing(provider: TracerProvider = trace.getTracerProvider()): Tracer {
  const tracer = provider.getTracer("stepwell");
  return {
    carried: (metadata) => carried(metadata, trace.getSpanContext(contexts.active())),
    run: (run) => new OtelRun(tracer, run),
  };
}

/** Unless its sender wrote where it comes from, or there is no room. */
function carried(metadata: Metadata, span: SpanContext | undefined): Metadata {
  if (span === undefined || !isSpanContextValid(span) || "traceparent" in metadata) return metadata;
  const size = Object.entries(metadata).reduce((sum, [name, value]) => sum + 3 * (name.length + value.length), 0);
  if (size > METADATA_BYTES) return metadata;
  const flags = span.traceFlags.toString(16).padStart(2, "0");
  const tracestate = span.traceState?.serialize();
  return {
    ...metadata,
    traceparent: `00-${span.traceId}-${span.spanId}-${flags}`,
    ...(tracestate !== undefined && tracestate !== "" && { tracestate }),
  };
}

/** The span that sent the event or invoked the run. What is no trace context is none. */
function causeOf(metadata: Metadata): SpanContext | undefined {
  const [, traceId = "", spanId = "", flags = ""] = TRACEPARENT.exec(metadata["traceparent"] ?? "") ?? [];
  const cause: SpanContext = { traceId, spanId, traceFlags: Number.parseInt(flags, 16), isRemote: true };
  if (!isSpanContextValid(cause)) return undefined;
  const state = metadata["tracestate"];
  return state === undefined ? cause : { ...cause, traceState: createTraceState(state) };
}

class OtelRun implements RunTrace {
  readonly #attributes: Attributes;
  readonly #base: Context;
  readonly #links: Link[];
  readonly #inRun: Context;

  constructor(
    private readonly tracer: OtelTracer,
    private readonly run: TracedRun,
  ) {
    this.#attributes = {
      "stepwell.run_id": run.runId,
      "stepwell.app": run.app,
      "stepwell.function": run.function,
    };
    const causes = run.causes.map(causeOf).filter((cause) => cause !== undefined);
    const parent = run.invoked ? causes[0] : undefined;
    this.#base = parent === undefined ? ROOT_CONTEXT : trace.setSpanContext(ROOT_CONTEXT, parent);
    this.#links = run.invoked ? [] : causes.map((context) => ({ context }));
    // Whether it is sampled is for the provider to say: a span that is begun and never ended goes nowhere.
    const probe = this.#start({}).spanContext();
    this.#inRun = trace.setSpanContext(ROOT_CONTEXT, { ...probe, isRemote: true });
  }

  carried(metadata: Metadata): Metadata {
    return carried(metadata, trace.getSpanContext(this.#inRun));
  }

  attempt(key: string, attempt: number): AttemptSpan {
    const attributes = { ...this.#attributes, "stepwell.step": key, "stepwell.attempt": attempt };
    const span = this.tracer.startSpan(key, { attributes, startTime: this.#now() }, this.#inRun);
    const inSpan = trace.setSpan(this.#inRun, span);
    return {
      within: (body) => contexts.with(inSpan, body),
      end: (error) => {
        if (error !== undefined) {
          const thrown = error instanceof Error ? error : new Error(JSON.stringify(error));
          span.recordException(thrown);
          span.setStatus({ code: SpanStatusCode.ERROR, message: `${thrown.name}: ${thrown.message}` });
        }
        span.end(this.#now());
      },
    };
  }

  end({ status, failure }: TracedEnd): void {
    const span = this.#start({ "stepwell.status": status });
    if (status === "failed") span.setStatus({ code: SpanStatusCode.ERROR, message: failure });
    span.end(this.#now());
  }

  #start(more: Attributes): Span {
    derived = this.run.runId;
    try {
      return this.tracer.startSpan(
        `${this.run.app}/${this.run.function}`,
        {
          kind: SpanKind.CONSUMER,
          attributes: { ...this.#attributes, ...more },
          links: this.#links,
          // A number that is smaller than the process is old would be taken for one of its own clock.
          startTime: new Date(this.run.createdMs),
        },
        this.#base,
      );
    } finally {
      derived = undefined;
    }
  }

  #now(): HrTime {
    const ms = performance.timeOrigin + performance.now() + this.run.aheadMs();
    return [Math.floor(ms / 1000), Math.floor((ms % 1000) * 1e6)];
  }
}
