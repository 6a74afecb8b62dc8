"""Spans of a worker against a scripted server: one a run, one an attempt, none of a replay."""

from __future__ import annotations

import asyncio
from collections.abc import Generator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode
from stepwell import NewEvent, NonRetriableError, Step, SyncStep, host
from stepwell.spans import Tracing, span_id_of, trace_id_of
from stepwell.v1 import common_pb2, step_pb2

from tests.unit.sdk_worker.apps import app_of, double, three_steps, working
from tests.unit.sdk_worker.fake_server import Link, acks, fake_server

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
Spans = InMemorySpanExporter


@pytest.fixture
def provider() -> TracerProvider:
    """A provider of this test alone."""
    return TracerProvider()


@pytest.fixture
def spans(provider: TracerProvider, monkeypatch: pytest.MonkeyPatch) -> Generator[Spans]:
    """What the workers of this test export."""
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(host, "tracing", lambda now_ns: Tracing(provider.get_tracer("stepwell"), now_ns))
    yield exporter
    provider.shutdown()


def ids(span: ReadableSpan) -> tuple[int, int, int]:
    """Trace, parent (0: none) and the span itself."""
    assert span.context is not None
    return span.context.trace_id, span.parent.span_id if span.parent is not None else 0, span.context.span_id


def named(spans: Spans, name: str) -> ReadableSpan:
    (found,) = [span for span in spans.get_finished_spans() if span.name == name]
    return found


async def exported(spans: Spans, name: str, count: int = 1) -> list[ReadableSpan]:
    """The spans of a name, once there are so many."""
    async with asyncio.timeout(10):
        while len(found := [span for span in spans.get_finished_spans() if span.name == name]) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # exporters say nothing when they are given a span
    return found


def assign(link: Link, run_id: str, event: str, traceparent: str) -> None:
    """Assigns a run of three that an event or an invoke has started."""
    assigned = step_pb2.Assign(run_id=run_id, turn=1, function_id="test/three")
    assigned.event.name = event
    assigned.event.metadata["traceparent"] = traceparent
    link.send(step_pb2.Work(assigns=[assigned]))


async def test_a_run_is_a_span_once_its_end_is_durable_and_its_attempts_hang_under_it(spans: Spans) -> None:
    async with fake_server() as server, working(server, three_steps()):
        server.acknowledge = False
        link = await server.link()
        link.assign("run_1", "three", created_ms=1_000)
        for _ in range(2):
            link.send(acks((await server.frame("commands")).commands))
        last = await server.frame("commands")
        assert last.commands.completes
        link.send(step_pb2.Work())
        assert [span.name for span in spans.get_finished_spans()] == ["double", "double:2", "double:3"]
        link.send(acks(last.commands))
        (root,) = await exported(spans, "test/three")
    assert ids(root) == (trace_id_of("run_1"), 0, span_id_of("run_1"))
    assert root.attributes == {
        "stepwell.run_id": "run_1",
        "stepwell.app": "test",
        "stepwell.function": "three",
        "stepwell.status": "completed",
    }
    assert root.start_time == 1_000_000_000
    for key in ("double", "double:2", "double:3"):
        step = named(spans, key)
        assert ids(step)[:2] == (trace_id_of("run_1"), span_id_of("run_1"))
        assert step.attributes is not None
        assert (step.attributes["stepwell.step"], step.attributes["stepwell.attempt"]) == (key, 1)
        assert step.attributes["stepwell.function"] == "three"


async def test_what_is_replayed_makes_no_span_again(spans: Spans) -> None:
    async with fake_server() as server, working(server, three_steps()):
        journal = [
            step_pb2.Outcome(key=key, number=number, kind=step_pb2.STEP_KIND_RUN, output=common_pb2.Payload(data=b"2"))
            for number, key in enumerate(("double", "double:2"), 1)
        ]
        (await server.link()).assign("run_1", "three", turn=2, journal=journal)
        await exported(spans, "test/three")
    assert [span.name for span in spans.get_finished_spans()] == ["double:3", "test/three"]


async def test_spans_of_bodies_hang_under_their_step_in_tasks_and_threads(
    spans: Spans, provider: TracerProvider
) -> None:
    tracer = provider.get_tracer("user")

    async def waits() -> None:
        await asyncio.sleep(0)
        with tracer.start_as_current_span("in task"):
            pass

    def blocks() -> None:
        with tracer.start_as_current_span("in thread"):
            pass

    async def both(step: Step) -> None:
        await step.run(waits)
        await step.run(blocks)
        await step.run(lambda: waits(), name="lambda")

    async with fake_server() as server, working(server, app_of(both)):
        (await server.link()).assign("run_1", "both")
        await exported(spans, "test/both")
    steps = {span.name: ids(span)[2] for span in spans.get_finished_spans()}
    inner = [(span.name, ids(span)[1]) for span in spans.get_finished_spans() if span.name.startswith("in ")]
    assert inner == [("in task", steps["waits"]), ("in thread", steps["blocks"]), ("in task", steps["lambda"])]
    assert [span.name for span in spans.get_finished_spans()].count("lambda") == 1
    assert trace.get_current_span() is trace.INVALID_SPAN


async def test_a_plain_function_is_traced_like_the_others(spans: Spans) -> None:
    def plain(step: SyncStep) -> int:
        return step.run(double, 4)

    async with fake_server() as server, working(server, app_of(plain)):
        (await server.link()).assign("run_1", "plain")
        await exported(spans, "test/plain")
    assert ids(named(spans, "double"))[:2] == (trace_id_of("run_1"), span_id_of("run_1"))


async def test_a_failure_is_recorded_and_a_run_that_is_tried_again_has_no_end(spans: Spans) -> None:
    async def again(step: Step) -> None:
        raise ValueError("at first")

    def breaks() -> None:
        raise NonRetriableError("no such card")

    async def fails(step: Step) -> None:
        await step.run(breaks)

    app = three_steps()
    app.function(again)
    app.function(fails)
    async with fake_server() as server, working(server, app):
        link = await server.link()
        link.assign("run_1", "again")
        link.assign("run_2", "fails")
        failure = await server.command("failures")
        link.send(
            step_pb2.Work(
                outcomes=[
                    step_pb2.Outcome(
                        run_id="run_2", turn=1, key="breaks", kind=step_pb2.STEP_KIND_RUN, failure=failure.failure
                    )
                ]
            )
        )
        (root,) = await exported(spans, "test/fails")
    step = named(spans, "breaks")
    for span in (step, root):
        assert span.status.status_code is StatusCode.ERROR
        assert "no such card" in (span.status.description or "")
    assert [event.name for event in step.events] == ["exception"]
    assert root.attributes is not None
    assert root.attributes["stepwell.status"] == "failed"
    assert [span.name for span in spans.get_finished_spans()] == ["breaks", "test/fails"]


async def test_an_invoke_is_a_child_of_its_cause_and_an_event_is_linked_to_it(spans: Spans) -> None:
    async with fake_server() as server, working(server, three_steps()):
        link = await server.link()
        assign(link, "run_1", "stepwell/function.invoked", PARENT)
        await exported(spans, "test/three")
        assign(link, "run_2", "user/came", PARENT)
        child, linked = await exported(spans, "test/three", 2)
    parent = trace.SpanContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, True, trace.TraceFlags(1))
    assert ids(child) == (parent.trace_id, parent.span_id, span_id_of("run_1"))
    assert not child.links
    assert ids(linked) == (trace_id_of("run_2"), 0, span_id_of("run_2"))
    assert [one.context for one in linked.links] == [parent]
    assert {ids(span)[0] for span in spans.get_finished_spans() if span.name == "double"} == {
        parent.trace_id,
        trace_id_of("run_2"),
    }


async def test_a_run_of_a_batch_is_linked_to_every_event(spans: Spans) -> None:
    assigned = step_pb2.Assign(run_id="run_1", turn=1, function_id="test/three")
    for digit in "123":
        event = assigned.events.add(name="user/came")
        event.metadata["traceparent"] = f"00-{digit * 32}-{digit * 16}-01"
    assigned.event.CopyFrom(assigned.events[0])
    async with fake_server() as server, working(server, three_steps()):
        (await server.link()).send(step_pb2.Work(assigns=[assigned]))
        (root,) = await exported(spans, "test/three")
    assert [f"{link.context.span_id:x}" for link in root.links] == ["1" * 16, "2" * 16, "3" * 16]


@pytest.mark.parametrize("text", ["", "00-00-00-01", "x" * 5_000, f"00-{'0' * 32}-{'0' * 16}-01", PARENT.upper()])
async def test_a_trace_context_that_is_none_is_no_cause(spans: Spans, text: str) -> None:
    async with fake_server() as server, working(server, three_steps()):
        assign(await server.link(), "run_1", "stepwell/function.invoked", text)
        (root,) = await exported(spans, "test/three")
    assert root.parent is None
    assert not root.links


async def test_what_a_run_sends_and_invokes_names_the_run(spans: Spans) -> None:
    async def sends(step: Step) -> None:
        own = NewEvent("mine", {}, metadata={"traceparent": PARENT})
        await asyncio.gather(step.send_events([NewEvent("a", {}), own]), step.invoke("test/other", 1))

    async with fake_server() as server, working(server, app_of(sends)):
        (await server.link()).assign("run_1", "sends")
        frame = (await server.frame("commands")).commands
        run = f"00-{trace_id_of('run_1'):032x}-{span_id_of('run_1'):016x}-01"
        assert [dict(event.metadata) for event in frame.sends[0].events] == [
            {"traceparent": run},
            {"traceparent": PARENT},
        ]
        assert dict(frame.invokes[0].metadata) == {"traceparent": run}


async def test_a_run_that_is_not_sampled_makes_no_span_and_says_so(provider: TracerProvider, spans: Spans) -> None:
    provider.sampler = ALWAYS_OFF

    async def invokes(step: Step) -> None:
        await step.run(double, 1)
        await step.invoke("test/other")

    async with fake_server() as server, working(server, app_of(invokes)):
        (await server.link()).assign("run_1", "invokes")
        invoke = await server.command("invokes")
        assert invoke.metadata["traceparent"].endswith("-00")
    assert spans.get_finished_spans() == ()


async def test_without_a_provider_nothing_is_made_or_sent() -> None:
    async def invokes(step: Step) -> None:
        await step.invoke("test/other")

    async with fake_server() as server, working(server, app_of(invokes)):
        (await server.link()).assign("run_1", "invokes")
        assert not (await server.command("invokes")).metadata
