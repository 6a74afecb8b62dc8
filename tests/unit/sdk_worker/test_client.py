"""The clients against scripted services."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.sdk.trace import TracerProvider
from stepwell import App, LimitError, NewEvent, RunCancelledError, RunFailedError, RunTimedOutError, Step, connection
from stepwell.api_errors import InvalidArgumentError, NotFoundError, UnavailableError
from stepwell.client import AsyncClient, Client
from stepwell.v1 import (
    common_pb2,
    event_pb2,
    event_pb2_grpc,
    function_pb2,
    function_pb2_grpc,
    run_pb2,
    run_pb2_grpc,
)
from stepwell.values import EventOutcome, RunStatus


class Status:
    """What abort_with_status wants."""

    def __init__(self, code: grpc.StatusCode, details: str, metadata: Any) -> None:
        self.code, self.details, self.trailing_metadata = code, details, metadata


def rich(code: grpc.StatusCode, message: str, *details: Any) -> Any:
    packed: list[any_pb2.Any] = []
    for detail in details:
        one = any_pb2.Any()
        one.Pack(detail)
        packed.append(one)
    status = status_pb2.Status(code=code.value[0], message=message, details=packed)
    return Status(code, message, (("grpc-status-details-bin", status.SerializeToString()),))


@dataclass
class Services(
    event_pb2_grpc.EventServiceServicer, function_pb2_grpc.FunctionServiceServicer, run_pb2_grpc.RunServiceServicer
):
    """Answers as the test says; `unavailable` calls fail first."""

    unavailable: int = 0
    requests: list[Any] = field(default_factory=list)
    polls: int = 2
    end: run_pb2.Run = field(default_factory=run_pb2.Run)
    port: int = 0

    async def SendEvents(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        if self.unavailable:
            self.unavailable -= 1
            # A server that stops cancels what it has not answered.
            code = grpc.StatusCode.CANCELLED if self.unavailable == 1 else grpc.StatusCode.UNAVAILABLE
            await context.abort(code, "not now")
        statuses = [
            event_pb2.EventStatus(outcome=event_pb2.EventStatus.OUTCOME_REFUSED, reason="BAD_NAME", message="name: no")
            if one.name == "bad"
            else event_pb2.EventStatus(event_id=f"evt_{one.name}", outcome=event_pb2.EventStatus.OUTCOME_ACCEPTED)
            for one in request.events
        ]
        return event_pb2.SendEventsResponse(statuses=statuses)

    async def WatchEvents(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for number in range(3):
            yield event_pb2.WatchEventsResponse(events=[event_pb2.Event(id=f"evt_{number}", name="a")])

    async def GetEvent(self, request: Any, context: Any) -> Any:
        await context.abort_with_status(
            rich(
                grpc.StatusCode.NOT_FOUND,
                "no such event",
                error_details_pb2.ErrorInfo(reason="EVENT_NOT_FOUND", metadata={"id": request.event_id}),
                error_details_pb2.BadRequest(
                    field_violations=[error_details_pb2.BadRequest.FieldViolation(field="event_id", description="bad")]
                ),
                error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=100)),
            )
        )

    async def Invoke(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        return function_pb2.InvokeResponse(
            run=run_pb2.Run(id="run_1", function_id=request.function_id, status=run_pb2.RUN_STATUS_RUNNING)
        )

    async def WaitRun(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        self.polls -= 1
        if self.polls > 0:
            return run_pb2.WaitRunResponse(run=run_pb2.Run(id="run_1", status=run_pb2.RUN_STATUS_PARKED))
        return run_pb2.WaitRunResponse(run=self.end)

    async def ListRuns(self, request: Any, context: Any) -> Any:
        page = int(request.page_token or 0)
        runs = [run_pb2.Run(id=f"run_{page * 2 + n}", status=run_pb2.RUN_STATUS_QUEUED) for n in range(2)]
        return run_pb2.ListRunsResponse(runs=runs, next_page_token=str(page + 1) if page < 2 else "")

    async def GetRun(self, request: Any, context: Any) -> Any:
        waiting = run_pb2.WaitingFor(kind=run_pb2.WaitingFor.KIND_SLEEP, message="sleeps", key="sleep", until_ms=1000)
        run = run_pb2.Run(id=request.run_id, status=run_pb2.RUN_STATUS_PARKED, created_ms=1)
        return run_pb2.GetRunResponse(run=run, waiting_for=[waiting])


@pytest.fixture
async def services() -> AsyncIterator[Services]:
    services = Services()
    io = connection.io()

    async def start() -> Any:
        server = grpc.aio.server()
        event_pb2_grpc.add_EventServiceServicer_to_server(services, server)
        function_pb2_grpc.add_FunctionServiceServicer_to_server(services, server)
        run_pb2_grpc.add_RunServiceServicer_to_server(services, server)
        services.port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server

    server = await io.run(start())
    yield services
    await io.run(server.stop(None))


@pytest.fixture
async def client(services: Services) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(f"127.0.0.1:{services.port}", timeout_s=5.0) as client:
        yield client


def ended(status: run_pb2.RunStatus, **fields: Any) -> run_pb2.Run:
    return run_pb2.Run(id="run_1", function_id="app/f", status=status, **fields)


async def test_an_event_is_sent_and_its_id_returned(services: Services, client: AsyncClient) -> None:
    assert await client.send("a", {"x": 1}, id="mine") == "evt_a"
    (request,) = services.requests
    assert request.request_id
    assert (request.events[0].data.data, request.events[0].id) == (b'{"x":1}', "mine")


async def test_a_refused_event_is_an_error_when_sent_alone_and_a_status_in_a_batch(client: AsyncClient) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        await client.send("bad")
    assert raised.value.reason == "BAD_NAME"
    statuses = await client.send_many([NewEvent("a"), NewEvent("bad")])
    assert [one.outcome for one in statuses] == [EventOutcome.ACCEPTED, EventOutcome.REFUSED]


async def test_an_unavailable_server_gets_the_same_request_again(services: Services, client: AsyncClient) -> None:
    services.unavailable = 2
    await client.send("a")
    assert len({request.request_id for request in services.requests}) == 1
    assert len(services.requests) == 3


async def test_trying_again_ends_at_the_deadline(services: Services, client: AsyncClient) -> None:
    services.unavailable = 1000
    with pytest.raises(UnavailableError):
        await client.send_many([NewEvent("a")], timeout_s=0.3)


async def test_many_events_travel_in_several_requests(services: Services, client: AsyncClient) -> None:
    statuses = await client.send_many([NewEvent(f"e{n}") for n in range(5_001)], request_id="mine")
    assert [status.event_id for status in statuses[-2:]] == ["evt_e4999", "evt_e5000"]
    assert [(one.request_id, len(one.events)) for one in services.requests] == [("mine", 5000), ("mine:1", 1)]


async def test_what_is_larger_than_a_limit_is_not_sent_at_all(services: Services, client: AsyncClient) -> None:
    large = {"x": "y" * 1024 * 1024}
    with pytest.raises(LimitError, match="event_bytes is 1048576"):
        await client.send("a", large)
    with pytest.raises(LimitError, match="event_bytes"):
        await client.send_many([NewEvent(f"e{n}") for n in range(5_001)] + [NewEvent("last", large)])
    with pytest.raises(LimitError, match="send_bytes is 4194304"):
        await client.send("a", metadata={"k": "v" * (17 << 20)})
    with pytest.raises(LimitError, match="result_bytes is 2097152"):
        await client.invoke("app/f", "x" * (17 << 20))
    assert services.requests == []


async def test_an_error_carries_what_the_server_attached(client: AsyncClient) -> None:
    with pytest.raises(NotFoundError) as raised:
        await client.get_event("evt_9")
    error = raised.value
    assert (error.reason, error.metadata, error.retry_after_s) == ("EVENT_NOT_FOUND", {"id": "evt_9"}, 100.0)
    assert [(one.field, one.description) for one in error.violations] == [("event_id", "bad")]
    assert str(error) == "EVENT_NOT_FOUND: no such event; event_id: bad"


async def test_invoke_polls_until_the_run_has_ended(services: Services, client: AsyncClient) -> None:
    services.end = ended(run_pb2.RUN_STATUS_COMPLETED, output=common_pb2.Payload(data=b'{"total":3}'))

    @dataclass
    class Receipt:
        total: int

    assert await client.invoke("app/f", {"x": 1}, returns=Receipt) == Receipt(3)
    assert [type(one).__name__ for one in services.requests] == ["InvokeRequest", "WaitRunRequest", "WaitRunRequest"]
    assert services.requests[0].wait_ms == 50_000


async def test_a_function_of_ones_own_app_is_invoked_with_its_types(services: Services, client: AsyncClient) -> None:
    @dataclass
    class Receipt:
        total: int

    app = App("shop")

    @app.function
    async def charge(step: Step) -> Receipt:
        return Receipt(1)

    services.end = ended(run_pb2.RUN_STATUS_COMPLETED, output=common_pb2.Payload(data=b'{"total":3}'))
    handle = await client.start(charge)
    assert services.requests[0].function_id == "shop/charge"
    assert await handle.result() == Receipt(3)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (run_pb2.RUN_STATUS_FAILED, RunFailedError),
        (run_pb2.RUN_STATUS_CANCELLED, RunCancelledError),
        (run_pb2.RUN_STATUS_TIMED_OUT, RunTimedOutError),
    ],
)
async def test_a_run_without_output_raises_what_it_ended_with(
    services: Services, client: AsyncClient, status: Any, kind: type[Exception]
) -> None:
    services.end = ended(status, failure=common_pb2.Failure(type="ValueError", message="broken"))
    with pytest.raises(kind, match="run_1 of app/f: ValueError: broken"):
        await client.invoke("app/f")


async def test_waiting_ends_with_the_time_out_while_the_run_goes_on(services: Services, client: AsyncClient) -> None:
    services.polls = 1_000_000
    with pytest.raises(TimeoutError):
        await client.invoke("app/f", timeout="20ms")
    assert (await client.wait_run("run_1", timeout="20ms")).status is RunStatus.PARKED


async def test_listings_go_over_pages_and_streams_over_frames(client: AsyncClient) -> None:
    assert [run.id async for run in client.list_runs()] == [f"run_{n}" for n in range(6)]
    assert [one.event.id async for one in client.watch_events()] == ["evt_0", "evt_1", "evt_2"]


async def test_a_run_says_what_it_waits_for(client: AsyncClient) -> None:
    run = await client.get_run("run_7")
    assert (run.id, run.status.ended, run.waiting_for[0].kind, run.ended) == ("run_7", False, "SLEEP", None)


async def test_the_blocking_client_does_the_same(services: Services) -> None:
    services.end = ended(run_pb2.RUN_STATUS_COMPLETED, output=common_pb2.Payload(data=b"3"))

    def work() -> list[Any]:
        with Client(f"127.0.0.1:{services.port}", timeout_s=5.0) as client:
            runs = [run.id for run in client.list_runs(page_size=2)]
            events = [one.event.id for one in client.watch_events()]
            return [
                client.send("a"),
                client.invoke("app/f", returns=int),
                client.start("app/f").run_id,
                runs[-1],
                events[-1],
            ]

    assert await asyncio.to_thread(work) == ["evt_a", 3, "run_1", "run_5", "evt_2"]


async def test_what_is_sent_within_a_span_names_it_unless_its_sender_does(
    client: AsyncClient, services: Services
) -> None:
    large = {"note": "x" * 8_000}
    with TracerProvider().get_tracer("test").start_as_current_span("request") as span:
        await client.send_many(
            [NewEvent("a"), NewEvent("b", metadata={"traceparent": "own"}), NewEvent("c", metadata=large)]
        )
        await client.start("shop/pay", metadata={"who": "Ada"})
        with Client(client.address) as blocking:
            await asyncio.to_thread(blocking.send, "d")
    await client.send("e")
    context = span.get_span_context()
    here = {"traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"}
    sent = {
        event.name: dict(event.metadata) for request in services.requests for event in getattr(request, "events", ())
    }
    assert sent == {"a": here, "b": {"traceparent": "own"}, "c": large, "d": here, "e": {}}
    (invoked,) = [request for request in services.requests if isinstance(request, function_pb2.InvokeRequest)]
    assert dict(invoked.metadata) == {**here, "who": "Ada"}


async def test_of_several_addresses_the_next_is_tried_where_one_does_not_answer(services: Services) -> None:
    """And stays in use: nobody waits for the dead one again."""
    async with AsyncClient(f"127.0.0.1:1,127.0.0.1:{services.port}", timeout_s=10.0) as client:
        assert await client.send("a") == "evt_a"
        assert (await client.start("app/f")).run_id == "run_1"
        assert client._calls._at == 1


@pytest.mark.parametrize(
    ("address", "split"),
    [
        ("one:7777", ("one:7777",)),
        ("one:7777, two:7778,", ("one:7777", "two:7778")),
        ("https://one:1,https://two:2", ("https://one:1", "https://two:2")),
        ("ipv4:127.0.0.1:1,127.0.0.1:2", ("ipv4:127.0.0.1:1,127.0.0.1:2",)),
    ],
)
def test_an_address_may_be_several(address: str, split: tuple[str, ...]) -> None:
    assert connection.split_addresses(address) == split
