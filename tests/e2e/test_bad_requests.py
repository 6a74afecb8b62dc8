"""Bad requests get a typed error that names the field and the limit, and change nothing."""

from __future__ import annotations

import subprocess
import sys
import uuid
from typing import Any

import grpc
import pytest
from stepwell.api_errors import ApiError
from stepwell.calls import Stubs
from stepwell.v1 import admin_pb2, common_pb2, event_pb2, function_pb2, run_pb2

from tests.e2e.conftest import World
from tests.support.servers import ROOT, ended, environment

INVALID, NOT_FOUND, EXHAUSTED = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)
HOSTILE = [
    "\0",
    "a\0b",
    "'; DROP TABLE runs; --",
    "../../etc/passwd",
    "\u202e\ud7ff",
    "%s%n{0}",
    "x" * 100_000,
    "😀" * 50,
]


def events(*given: event_pb2.NewEvent, **request: Any) -> event_pb2.SendEventsRequest:
    return event_pb2.SendEventsRequest(events=given, **request)


def new(name: str = "bad/event", data: bytes = b"{}", **given: Any) -> event_pb2.NewEvent:
    return event_pb2.NewEvent(name=name, data=common_pb2.Payload(data=data), **given)


CALLS: list[tuple[str, Any, Any, grpc.StatusCode, str, str]] = [
    ("unknown run", lambda s: s.runs.GetRun, run_pb2.GetRunRequest(run_id="run_x"), NOT_FOUND, "RUN_NOT_FOUND", ""),
    ("empty run", lambda s: s.runs.GetRun, run_pb2.GetRunRequest(), NOT_FOUND, "RUN_NOT_FOUND", ""),
    ("journal", lambda s: s.runs.GetJournal, run_pb2.GetJournalRequest(run_id="x"), NOT_FOUND, "RUN_NOT_FOUND", ""),
    ("wait", lambda s: s.runs.WaitRun, run_pb2.WaitRunRequest(run_id="x"), NOT_FOUND, "RUN_NOT_FOUND", ""),
    ("cancel", lambda s: s.runs.CancelRun, run_pb2.CancelRunRequest(run_id="x"), NOT_FOUND, "RUN_NOT_FOUND", ""),
    ("event", lambda s: s.events.GetEvent, event_pb2.GetEventRequest(event_id="x"), NOT_FOUND, "EVENT_NOT_FOUND", ""),
    (
        "function",
        lambda s: s.functions.GetFunction,
        function_pb2.GetFunctionRequest(function_id="a/b"),
        NOT_FOUND,
        "FUNCTION_NOT_FOUND",
        "",
    ),
    (
        "invoke of nothing",
        lambda s: s.functions.Invoke,
        function_pb2.InvokeRequest(function_id="a/b"),
        NOT_FOUND,
        "FUNCTION_NOT_FOUND",
        "",
    ),
    (
        "malformed input",
        lambda s: s.functions.Invoke,
        function_pb2.InvokeRequest(function_id="features/echo", input=common_pb2.Payload(data=b"{")),
        INVALID,
        "BAD_JSON",
        "input",
    ),
    (
        "input too large",
        lambda s: s.functions.Invoke,
        function_pb2.InvokeRequest(
            function_id="features/echo", input=common_pb2.Payload(data=b'"' + b"x" * 2_097_152 + b'"')
        ),
        INVALID,
        "TOO_LARGE",
        "input",
    ),
    (
        "invoke's metadata too large",
        lambda s: s.functions.Invoke,
        function_pb2.InvokeRequest(function_id="features/echo", metadata={"k": "v" * 9_000}),
        INVALID,
        "TOO_LARGE",
        "metadata",
    ),
    (
        "request id with NUL",
        lambda s: s.functions.Invoke,
        function_pb2.InvokeRequest(function_id="features/echo", request_id="a\0"),
        INVALID,
        "BAD_TEXT",
        "request_id",
    ),
    (
        "environment",
        lambda s: s.runs.ListRuns,
        run_pb2.ListRunsRequest(environment="nowhere"),
        INVALID,
        "ENVIRONMENT_NOT_FOUND",
        "environment",
    ),
    (
        "page size",
        lambda s: s.runs.ListRuns,
        run_pb2.ListRunsRequest(page_size=1_001),
        INVALID,
        "BAD_PAGE_SIZE",
        "page_size",
    ),
    (
        "page token",
        lambda s: s.runs.ListRuns,
        run_pb2.ListRunsRequest(page_token="x"),
        INVALID,
        "BAD_PAGE_TOKEN",
        "page_token",
    ),
    (
        "events' page token",
        lambda s: s.events.ListEvents,
        event_pb2.ListEventsRequest(page_token="x"),
        INVALID,
        "BAD_PAGE_TOKEN",
        "page_token",
    ),
    (
        "wildcard in the middle",
        lambda s: s.events.ListEvents,
        event_pb2.ListEventsRequest(name="user/*/x"),
        INVALID,
        "BAD_NAME",
        "name",
    ),
    (
        "two wildcards",
        lambda s: s.events.ListEvents,
        event_pb2.ListEventsRequest(name="user/**"),
        INVALID,
        "BAD_NAME",
        "name",
    ),
    (
        "too many events",
        lambda s: s.events.SendEvents,
        events(*[event_pb2.NewEvent(name="n")] * 5_001),
        INVALID,
        "TOO_MANY",
        "events",
    ),
    (
        "batch too large",
        lambda s: s.events.SendEvents,
        events(*[new(data=b'{"x":"' + b"x" * 1_000_000 + b'"}')] * 5),
        INVALID,
        "TOO_LARGE",
        "events",
    ),
    (
        "unknown statuses",
        lambda s: s.runs.ListRuns,
        run_pb2.ListRunsRequest(statuses=[run_pb2.RUN_STATUS_QUEUED, 99, 0]),  # pyright: ignore[reportArgumentType]
        INVALID,
        "BAD_STATUS",
        "statuses[1]",
    ),
    (
        "a clock moved too far",
        lambda s: s.admin.AdvanceClock,
        admin_pb2.AdvanceClockRequest(advance_ms=367 * 86_400_000),
        INVALID,
        "TOO_LONG",
        "advance_ms",
    ),
    (
        "request id too long",
        lambda s: s.events.SendEvents,
        events(new(), request_id="x" * 129),
        INVALID,
        "TOO_LARGE",
        "request_id",
    ),
]


@pytest.mark.parametrize(
    ("method", "request_", "code", "reason", "field"), [case[1:] for case in CALLS], ids=[case[0] for case in CALLS]
)
def test_a_bad_call_is_refused_with_its_reason_and_field(
    world: World, method: Any, request_: Any, code: grpc.StatusCode, reason: str, field: str
) -> None:
    with pytest.raises(ApiError) as raised:
        world.client.call(method, request_)
    error = raised.value
    assert (error.code, error.reason) == (code, reason), error
    assert error.message
    assert [one.field for one in error.violations] == ([field] if field else [])


def test_a_bad_wildcard_is_refused_to_who_watches_and_to_the_command(world: World) -> None:
    with pytest.raises(ApiError) as raised:
        next(iter(world.client.watch_events("user/*/x")))
    assert (raised.value.code, raised.value.reason) == (INVALID, "BAD_NAME")
    assert [one.field for one in raised.value.violations] == ["name"]
    for command in ("list", "watch"):
        arguments = ["events", command, "--name", "user/*/x", "--address", world.server.address]
        done = subprocess.run(
            [sys.executable, "-m", "stepwell", *arguments], cwd=ROOT, env=environment(), capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (2, "")
        assert "'user/*/x' is not an event name" in done.stderr
        assert "name: a wildcard is allowed only at the end" in done.stderr


def test_a_request_that_differs_in_encoding_or_metadata_alone_is_another_one(world: World) -> None:
    one_id = uuid.uuid4().hex
    sent = new(f"twice/{one_id}", b"{}", metadata={"a": "1", "b": "2"})

    def send(event: event_pb2.NewEvent) -> event_pb2.SendEventsResponse:
        return world.client.call(lambda stubs: stubs.events.SendEvents, events(event, request_id=one_id))

    (first,) = send(sent).statuses
    (again,) = send(new(sent.name, b"{}", metadata={"b": "2", "a": "1"})).statuses
    assert (again.outcome, again.event_id) == (event_pb2.EventStatus.OUTCOME_DUPLICATE, first.event_id)
    (elsewhere,) = send(
        new(sent.name, b"{}", metadata={**sent.metadata, "traceparent": "00-1", "tracestate": "x=1"})
    ).statuses
    assert elsewhere.event_id == first.event_id  # sent again within another span
    other = new(sent.name, metadata={"a": "1", "b": "2"})
    other.data.encoding = "raw"
    for different in (new(sent.name), new(sent.name, metadata={"a": "1", "b": "3"}), other):
        with pytest.raises(ApiError) as raised:
            send(different)
        assert raised.value.reason == "REQUEST_ID_REUSED"
    assert len(list(world.client.list_events(sent.name))) == 1

    def invoke(**given: Any) -> str:
        request = function_pb2.InvokeRequest(function_id="features/echo", request_id=one_id, **given)
        return world.client.call(lambda stubs: stubs.functions.Invoke, request).run.id

    run_id = invoke(input={"data": b"[1]"}, metadata={"a": "1", "b": "2"})
    assert invoke(input={"data": b"[1]", "encoding": "json"}, metadata={"b": "2", "a": "1"}) == run_id
    assert invoke(input={"data": b"[1]"}, metadata={"a": "1", "b": "2", "traceparent": "00-2"}) == run_id
    for given in ({"metadata": {"a": "1"}}, {"input": {"data": b"[1]", "encoding": "raw"}, "metadata": sent.metadata}):
        with pytest.raises(ApiError) as raised:
            invoke(**{"input": {"data": b"[1]"}, **given})
        assert raised.value.reason == "REQUEST_ID_REUSED"


REFUSED: list[tuple[str, event_pb2.NewEvent, str, str]] = [
    ("no name", new(""), "MISSING_FIELD", "name"),
    ("name too long", new("n" * 257), "TOO_LARGE", "256"),
    ("NUL in the name", new("a\0b"), "BAD_TEXT", "name"),
    ("newline in the name", new("a\nb"), "BAD_TEXT", "name"),
    ("wildcard", new("a/*"), "BAD_NAME", "*"),
    ("wildcard in the middle", new("a/*/b"), "BAD_NAME", "*"),
    ("the server's name", new("stepwell/function.invoked"), "RESERVED_NAME", "stepwell/"),
    ("malformed", new(data=b"{"), "BAD_JSON", "data"),
    ("not an object", new(data=b"[1]"), "BAD_JSON", "object"),
    ("not UTF-8", new(data=b'{"a":"\xff"}'), "BAD_JSON", "data"),
    ("NaN", new(data=b'{"a":NaN}'), "BAD_JSON", "data"),
    ("deep", new(data=b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "BAD_JSON", "data"),
    ("too large", new(data=b'{"a":"' + b"x" * 1_048_576 + b'"}'), "TOO_LARGE", "1048576"),
    ("metadata too large", new(metadata={"k": "v" * 9_000}), "TOO_LARGE", "8192"),
    ("id too long", new(id="x" * 129), "TOO_LARGE", "128"),
    ("NUL in the id", new(id="a\0b"), "BAD_TEXT", "id"),
    ("time before all times", new(time_ms=-1), "BAD_TIME", "time_ms"),
    ("time after all times", new(time_ms=2**62), "BAD_TIME", "time_ms"),
]


@pytest.mark.parametrize(("bad", "reason", "named"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_bad_event_is_refused_and_holds_up_no_other(
    world: World, bad: event_pb2.NewEvent, reason: str, named: str
) -> None:
    mark = f"good/{uuid.uuid4().hex}"
    answer = world.client.call(lambda stubs: stubs.events.SendEvents, events(new(mark), bad, new(mark)))
    first, middle, last = answer.statuses
    assert (middle.outcome, middle.reason, middle.event_id) == (event_pb2.EventStatus.OUTCOME_REFUSED, reason, "")
    assert named in middle.message
    assert first.outcome == last.outcome == event_pb2.EventStatus.OUTCOME_ACCEPTED
    assert len(list(world.client.list_events(mark))) == 2


def test_a_message_that_no_frame_can_hold_is_refused(world: World) -> None:
    with pytest.raises(ApiError) as raised:
        world.client.call(lambda stubs: stubs.events.SendEvents, events(*[new(data=b"x" * 1_000_000)] * 12))
    assert raised.value.code is EXHAUSTED
    assert world.client.invoke("features/echo", 1, timeout=20) == 1


FIELDS: list[tuple[str, Any]] = [
    ("run_id", lambda s, text: s.runs.GetRun(run_pb2.GetRunRequest(run_id=text))),
    ("watched run", lambda s, text: s.runs.CancelRun(run_pb2.CancelRunRequest(run_id=text, reason=text))),
    ("event_id", lambda s, text: s.events.GetEvent(event_pb2.GetEventRequest(event_id=text))),
    ("function_id", lambda s, text: s.functions.GetFunction(function_pb2.GetFunctionRequest(function_id=text))),
    ("invoked function", lambda s, text: s.functions.Invoke(function_pb2.InvokeRequest(function_id=text))),
    (
        "input",
        lambda s, text: s.functions.Invoke(
            function_pb2.InvokeRequest(function_id="features/echo", input={"data": text.encode(), "encoding": text})
        ),
    ),
    (
        "metadata",
        lambda s, text: s.functions.Invoke(
            function_pb2.InvokeRequest(function_id="features/echo", metadata={text: text}, request_id=text)
        ),
    ),
    ("listed events", lambda s, text: s.events.ListEvents(event_pb2.ListEventsRequest(name=text, page_token=text))),
    ("events' prefix", lambda s, text: s.events.ListEvents(event_pb2.ListEventsRequest(name=text + "*"))),
    ("runs' filters", lambda s, text: s.runs.ListRuns(run_pb2.ListRunsRequest(function_id=text, app=text))),
    ("runs' parents", lambda s, text: s.runs.ListRuns(run_pb2.ListRunsRequest(event_id=text, parent_run_id=text))),
    ("environment", lambda s, text: s.functions.ListFunctions(function_pb2.ListFunctionsRequest(environment=text))),
    ("app", lambda s, text: s.functions.ListFunctions(function_pb2.ListFunctionsRequest(app=text))),
    (
        "an event's every field",
        lambda s, text: s.events.SendEvents(
            events(
                new(text, text.encode(), id=text, metadata={text: text}),
                event_pb2.NewEvent(name="h/data", data={"data": b"{}", "encoding": text}),
                event_pb2.NewEvent(name=text, data={"data": b"{}"}),
                event_pb2.NewEvent(name="h/meta", metadata={text: text}),
                event_pb2.NewEvent(name="h/id", id=text),
            )
        ),
    ),
    ("request_id", lambda s, text: s.events.SendEvents(events(new("h/request"), request_id=text))),
]
TYPED = {INVALID, NOT_FOUND, grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.FAILED_PRECONDITION}


@pytest.mark.parametrize("call", [case[1] for case in FIELDS], ids=[case[0] for case in FIELDS])
def test_hostile_text_in_any_field_is_kept_or_refused_but_breaks_nothing(world: World, call: Any) -> None:
    before = len(world.server.text())
    with grpc.insecure_channel(world.server.address) as channel:
        stubs = Stubs(channel)  # pyright: ignore[reportArgumentType]
        for text in HOSTILE:
            try:
                call(stubs, text)
            except grpc.RpcError as error:
                if error.code() not in TYPED:
                    pytest.fail(f"{text[:40]!r}: {error.code()} {error.details()}")
    handle = world.client.start("features/echo", 2)
    assert ended(world.client, handle.run_id).output == 2
    assert "Traceback" not in world.server.text()[before:]
