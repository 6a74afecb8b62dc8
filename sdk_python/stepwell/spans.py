"""Spans of runs and of the attempts of their steps, by OpenTelemetry's API; loaded only where a process traces.

A run is one span, wherever its code ran: its ids are derived from the run's, so that spans which several processes make
hang under it before it exists. The worker that learns that the end of the run is durable makes it.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    ProxyTracerProvider,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from stepwell.event import INVOKED
from stepwell.v1 import step_pb2

if TYPE_CHECKING:
    from stepwell.context import Body
    from stepwell.function import Function
    from stepwell.v1.event_pb2 import Event as EventMessage
    from stepwell.v1.step_pb2 import Assign

TRACEPARENT = "traceparent"
METADATA_BYTES = 8 * 1024 - 1024
"""Metadata that is larger is left alone: the trace context must not make it too large."""

_w3c = TraceContextTextMapPropagator()
_NOTHING = contexts.Context()


def carry(metadata: MutableMapping[str, str], context: contexts.Context | None = None) -> None:
    """Writes where the context is in its trace into the metadata, unless its sender did, or there is no room."""
    size = sum(len(key) + len(value) for key, value in metadata.items()) if metadata else 0
    if TRACEPARENT not in metadata and size < METADATA_BYTES:
        _w3c.inject(metadata, context)


def trace_id_of(run_id: str) -> int:
    """Of a run that no other trace has started."""
    return int.from_bytes(hashlib.blake2b(f"{run_id}\0trace".encode(), digest_size=16).digest(), "big")


def span_id_of(run_id: str) -> int:
    """Of the run's own span."""
    return int.from_bytes(hashlib.blake2b(f"{run_id}\0span".encode(), digest_size=8).digest(), "big")


class Tracing:
    """The tracer of a worker. now_ns: the server's time, as finely as this machine knows it."""

    def __init__(self, tracer: trace.Tracer, now_ns: Callable[[], int]) -> None:
        self.tracer = tracer
        self.now_ns = now_ns

    @classmethod
    def of_provider(cls, now_ns: Callable[[], int]) -> Tracing | None:
        """None where nobody has set a provider."""
        provider = trace.get_tracer_provider()
        if isinstance(provider, (ProxyTracerProvider, trace.NoOpTracerProvider)):
            return None
        return cls(provider.get_tracer("stepwell"), now_ns)

    def of(self, function: Function[Any, Any], assign: Assign) -> RunTrace:
        """The trace of a run that has arrived here."""
        return RunTrace(self, function, assign)


class RunTrace:
    """The place of one run in its trace. ending: the command with which its code ended here, once it has."""

    __slots__ = ("_attributes", "_created_ms", "_links", "_parent", "_run", "_tracing", "ending", "function", "run_id")

    def __init__(self, tracing: Tracing, function: Function[Any, Any], assign: Assign) -> None:
        self._tracing = tracing
        self.function = function
        self.run_id = assign.run_id
        self.ending: Any = None
        self._created_ms = assign.created_ms
        self._attributes = {
            "stepwell.run_id": assign.run_id,
            "stepwell.app": function.app,
            "stepwell.function": function.name,
        }
        # What invoked the run is its parent; an event may have started many, long before, so they are linked to it.
        causes = [cause for event in assign.events or (assign.event,) if (cause := _cause(event)) is not None]
        self._parent = causes[0] if causes and assign.event.name == INVOKED else None
        self._links = [Link(cause) for cause in causes] if self._parent is None else []
        trace_id = self._parent.trace_id if self._parent is not None else trace_id_of(self.run_id)
        context = SpanContext(trace_id, span_id_of(self.run_id), is_remote=True, trace_flags=self._flags(trace_id))
        self._run = trace.set_span_in_context(NonRecordingSpan(context), _NOTHING)

    def _flags(self, trace_id: int) -> TraceFlags:
        """Whether the run is sampled: as its parent, else as the sampler will say of its span."""
        if self._parent is not None:
            return self._parent.trace_flags
        sampler = getattr(self._tracing.tracer, "sampler", None)
        if sampler is None:
            return TraceFlags(TraceFlags.SAMPLED)
        said = sampler.should_sample(_NOTHING, trace_id, self.function.id, SpanKind.CONSUMER, self._attributes, ())
        return TraceFlags(TraceFlags.SAMPLED if said.decision.is_sampled() else TraceFlags.DEFAULT)

    def carry(self, metadata: MutableMapping[str, str]) -> None:
        """Names the run as the cause of what it sends or invokes."""
        carry(metadata, self._run)

    def enter(self, body: Body, begun: Span | None) -> Span:
        """The code of a body begins in the calling context: its span is current there."""
        span = begun
        if span is None:
            attributes = {**self._attributes, "stepwell.step": body.key, "stepwell.attempt": body.attempt}
            start_time = self._tracing.now_ns()
            span = self._tracing.tracer.start_span(body.key, self._run, attributes=attributes, start_time=start_time)
        contexts.attach(trace.set_span_in_context(span, self._run))
        return span

    def leave(self, span: Span, error: BaseException | None) -> None:
        """The code of a body has ended."""
        if error is not None:
            span.record_exception(error)
            span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
        span.end(self._tracing.now_ns())

    def settled(self) -> None:
        """The end of the run is durable: its span is made. One that failed and is tried again goes on."""
        ending = self.ending
        failure = ""
        if isinstance(ending, step_pb2.Complete):
            status = "completed"
        elif isinstance(ending, step_pb2.Fail):
            most = self.function.policy.max_attempts or 4
            if not ending.failure.non_retriable and ending.attempt < most:
                return
            status, failure = "failed", f"{ending.failure.type}: {ending.failure.message}"
        else:
            status = "cancelled"
        span = self._root().start_span(
            self.function.id,
            _NOTHING if self._parent is None else trace.set_span_in_context(NonRecordingSpan(self._parent), _NOTHING),
            SpanKind.CONSUMER,
            {**self._attributes, "stepwell.status": status},
            self._links,
            self._created_ms * 1_000_000,
        )
        if failure:
            span.set_status(Status(StatusCode.ERROR, failure))
        span.end(self._tracing.now_ns())

    def _root(self) -> trace.Tracer:
        """A tracer of the SDK whose next span has the ids of the run. Another kind gives the span ids of its own."""
        tracer: Any = copy.copy(self._tracing.tracer)
        if hasattr(tracer, "id_generator"):
            tracer.id_generator = _Ids(self.run_id)
        return tracer


class _Ids:
    """Stands in for the SDK's generator of ids."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id

    def generate_trace_id(self) -> int:
        return trace_id_of(self._run_id)

    def generate_span_id(self) -> int:
        return span_id_of(self._run_id)

    def is_trace_id_random(self) -> bool:
        return False


def _cause(event: EventMessage) -> SpanContext | None:
    """The span that sent the event or invoked the run, if it said so. What is no trace context is none."""
    if not event.metadata or TRACEPARENT not in event.metadata:
        return None
    context = trace.get_current_span(_w3c.extract(event.metadata, _NOTHING)).get_span_context()
    return context if context.is_valid else None
