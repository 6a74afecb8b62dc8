"""The asynchronous client: sends events, invokes functions, reads and controls runs."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

import grpc

from stepwell import codec
from stepwell.api_errors import InvalidArgumentError
from stepwell.calls import Calls, Stubs
from stepwell.duration import Duration, to_ms
from stepwell.errors import LimitError
from stepwell.event import NewEvent, from_unix_ms, to_unix_ms
from stepwell.handle import AsyncRunHandle, Deadline, reader
from stepwell.settings import resolve_address, resolve_environment
from stepwell.tracing import carry_current, traced
from stepwell.v1 import admin_pb2, common_pb2, event_pb2, function_pb2, run_pb2
from stepwell.values import (
    ClockAdvance,
    EventOutcome,
    EventStatus,
    FailurePage,
    FunctionInfo,
    JournalEntry,
    Run,
    RunChange,
    RunStatus,
    ServerInfo,
    StoredEvent,
    WaitingFor,
    WorkerInfo,
)

if TYPE_CHECKING:
    from stepwell.function import Function

T = TypeVar("T")
R = TypeVar("R")

BATCH_EVENTS = 5_000
BATCH_BYTES = 3_500 * 1024
# The server's limits of the same names.
EVENT_BYTES = 1024 * 1024
SEND_BYTES = 4 * 1024 * 1024
RESULT_BYTES = 2 * 1024 * 1024
SLACK_S = 5.0
"""A call that waits on the server may take this much longer than its wait."""


class AsyncClient:
    """`async with AsyncClient() as client`. May be used from any loop; its calls travel on the process's I/O thread.

    Every method raises ApiError (NotFoundError, InvalidArgumentError, …). While the server is unreachable, calls that
    may safely be repeated are tried again for up to `timeout_s`; the others fail with UnavailableError.
    """

    def __init__(self, address: str | None = None, *, environment: str | None = None, timeout_s: float = 30.0) -> None:
        self.address = resolve_address(address)
        self.environment = resolve_environment(environment)
        self._timeout_s = timeout_s
        self._calls = Calls(self.address, timeout_s)

    async def __aenter__(self) -> Self:
        await self._calls.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection."""
        await self._calls.close()

    async def call(self, method: Callable[[Stubs], Any], request: Any, *, timeout_s: float | None = None) -> Any:
        """A unary call on the generated stubs, once: `await client.call(lambda stubs: stubs.runs.GetRun, request)`."""
        return await self._calls.unary(method, request, timeout_s=timeout_s, repeatable=False)

    # --- events ---

    async def send(
        self,
        name: str,
        data: Any = None,
        *,
        id: str | None = None,
        time: datetime | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """Sends an event and returns its id once it is durable. With an `id`, sending it twice stores it once."""
        (status,) = await self.send_many([NewEvent(name, data, id or "", time, metadata or {})])
        if status.outcome is EventOutcome.REFUSED:
            raise InvalidArgumentError(grpc.StatusCode.INVALID_ARGUMENT, status.message, status.reason)
        return status.event_id

    async def send_many(
        self, events: Sequence[NewEvent], *, request_id: str | None = None, timeout_s: float | None = None
    ) -> list[EventStatus]:
        """Sends events, in requests of at most 5,000; one status for each, in order. A refused one stops no other.

        Raises UsageError, SerializationError or LimitError, before it sends any, for what cannot be an event.
        The same `request_id` (within 24 hours, with the same events) stores nothing twice; each call makes its own.
        """
        request_id = request_id or uuid.uuid4().hex
        statuses: list[EventStatus] = []
        batches = list(_batches(events))
        if traced():
            for message in (message for batch in batches for message in batch):
                carry_current(message.metadata)
        for number, batch in enumerate(batches):
            request = event_pb2.SendEventsRequest(
                environment=self.environment,
                request_id=f"{request_id}:{number}" if number else request_id,
                events=batch,
            )
            response = await self._calls.unary(lambda stubs: stubs.events.SendEvents, request, timeout_s=timeout_s)
            statuses.extend(EventStatus.from_message(one) for one in response.statuses)
        return statuses

    async def get_event(self, event_id: str) -> StoredEvent:
        """One event with the runs it started."""
        request = event_pb2.GetEventRequest(environment=self.environment, event_id=event_id)
        response = await self._calls.unary(lambda stubs: stubs.events.GetEvent, request)
        return StoredEvent.from_message(response.event, tuple(response.run_ids))

    async def list_events(
        self,
        name: str = "",
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        condition: str = "",
        oldest_first: bool = False,
        page_size: int = 100,
    ) -> AsyncIterator[StoredEvent]:
        """Events, newest first; a trailing * in the name matches any rest. Asks for pages as they are needed.

        `condition` is CEL over `event`, judged by the server.
        """
        request = event_pb2.ListEventsRequest(
            environment=self.environment,
            name=name,
            from_ms=_ms(since),
            until_ms=_ms(until),
            condition=condition,
            oldest_first=oldest_first,
            page_size=page_size,
        )
        async for page in self._pages(lambda stubs: stubs.events.ListEvents, request):
            for one in page.events:
                yield StoredEvent.from_message(one)

    async def watch_events(self, name: str = "") -> AsyncIterator[StoredEvent]:
        """Events as they are accepted, from now on."""
        request = event_pb2.WatchEventsRequest(environment=self.environment, name=name)
        async for response in self._calls.stream(lambda stubs: stubs.events.WatchEvents, request):
            for one in response.events:
                yield StoredEvent.from_message(one)

    # --- functions ---

    async def functions(self, app: str = "") -> list[FunctionInfo]:
        """The registered functions, of one app or of all."""
        request = function_pb2.ListFunctionsRequest(environment=self.environment, app=app)
        response = await self._calls.unary(lambda stubs: stubs.functions.ListFunctions, request)
        return [FunctionInfo.from_message(one) for one in response.functions]

    async def get_function(self, function_id: str) -> FunctionInfo:
        """One function, by "app/name"."""
        request = function_pb2.GetFunctionRequest(environment=self.environment, function_id=function_id)
        response = await self._calls.unary(lambda stubs: stubs.functions.GetFunction, request)
        return FunctionInfo.from_message(response.function)

    @overload
    async def start(
        self, function: Function[Any, T], input: Any = None, *, request_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> AsyncRunHandle[T]: ...  # fmt: skip
    @overload
    async def start(
        self, function: str, input: Any = None, *, returns: type[R], request_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> AsyncRunHandle[R]: ...  # fmt: skip
    @overload
    async def start(
        self, function: str, input: Any = None, *, request_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> AsyncRunHandle[Any]: ...  # fmt: skip
    async def start(
        self,
        function: Any,
        input: Any = None,
        *,
        returns: Any = None,
        request_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> AsyncRunHandle[Any]:
        """Starts a run of a function, or of "app/name", and returns once it is durable.

        The same `request_id` within 24 hours is the same run; each call makes its own.
        """
        run = await self._invoke(function, input, request_id, metadata, 0.0)
        return AsyncRunHandle(self, run, reader(function, returns))

    @overload
    async def invoke(
        self, function: Function[Any, T], input: Any = None, *, timeout: Duration | None = None,
        request_id: str | None = None, metadata: Mapping[str, str] | None = None,
    ) -> T: ...  # fmt: skip
    @overload
    async def invoke(
        self, function: str, input: Any = None, *, returns: type[R], timeout: Duration | None = None,
        request_id: str | None = None, metadata: Mapping[str, str] | None = None,
    ) -> R: ...  # fmt: skip
    @overload
    async def invoke(
        self, function: str, input: Any = None, *, timeout: Duration | None = None,
        request_id: str | None = None, metadata: Mapping[str, str] | None = None,
    ) -> Any: ...  # fmt: skip
    async def invoke(
        self,
        function: Any,
        input: Any = None,
        *,
        returns: Any = None,
        timeout: Duration | None = None,
        request_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Any:
        """Starts a run and returns its output. Raises RunFailedError, RunCancelledError or RunTimedOutError.

        If the `timeout` passes first it raises TimeoutError, and the run goes on.
        """
        deadline = Deadline(timeout)
        run = await self._invoke(function, input, request_id, metadata, deadline.next_wait_s())
        return await AsyncRunHandle(self, run, reader(function, returns)).wait(deadline)

    # --- runs ---

    async def get_run(self, run_id: str) -> Run:
        """One run, with what it waits for."""
        request = run_pb2.GetRunRequest(environment=self.environment, run_id=run_id)
        response = await self._calls.unary(lambda stubs: stubs.runs.GetRun, request)
        return Run.from_message(response.run, _waiting(response.waiting_for))

    async def list_runs(
        self,
        *,
        function: str = "",
        app: str = "",
        statuses: Sequence[RunStatus] = (),
        event_id: str = "",
        parent_run_id: str = "",
        since: datetime | None = None,
        until: datetime | None = None,
        condition: str = "",
        error_type: str = "",
        page_size: int = 100,
    ) -> AsyncIterator[Run]:
        """Runs that fit all filters, newest first, without their outputs. Asks for pages as they are needed.

        `condition` is CEL over `run`, `output` and `event`, judged by the server.
        """
        request = run_pb2.ListRunsRequest(
            environment=self.environment,
            function_id=function,
            app=app,
            statuses=[one.to_message() for one in statuses],
            event_id=event_id,
            parent_run_id=parent_run_id,
            from_ms=_ms(since),
            until_ms=_ms(until),
            condition=condition,
            error_type=error_type,
            page_size=page_size,
        )
        async for page in self._pages(lambda stubs: stubs.runs.ListRuns, request):
            for one in page.runs:
                yield Run.from_message(one)

    async def list_failures(
        self,
        *,
        functions: Sequence[str] = (),
        app: str = "",
        statuses: Sequence[RunStatus] = (),
        since: datetime | None = None,
        until: datetime | None = None,
        page_size: int = 0,
        page_token: str = "",
    ) -> FailurePage:
        """Runs that came to grief, gathered by function and error. Without `statuses`: FAILED and TIMED_OUT.

        A page looks at a bounded number of runs. Where it has a `next_page_token`, the next one looks at older runs.
        """
        request = run_pb2.ListFailuresRequest(
            environment=self.environment,
            function_ids=functions,
            app=app,
            statuses=[one.to_message() for one in statuses],
            from_ms=_ms(since),
            until_ms=_ms(until),
            page_size=page_size,
            page_token=page_token,
        )
        return FailurePage.from_message(await self._calls.unary(lambda stubs: stubs.runs.ListFailures, request))

    async def journal(self, run_id: str) -> list[JournalEntry]:
        """What a run did: outcomes its code saw, in order; then those on their way; then what is open."""
        request = run_pb2.GetJournalRequest(environment=self.environment, run_id=run_id)
        pages = self._pages(lambda stubs: stubs.runs.GetJournal, request)
        return [JournalEntry.from_message(one) async for page in pages for one in page.entries]

    async def wait_run(self, run_id: str, timeout: Duration | None = None) -> Run:
        """Waits until a run has ended, or the time is over: look at `run.status.ended`."""
        return Run.from_message(await self.await_end(run_id, Deadline(timeout)))

    async def watch_run(self, run_id: str) -> AsyncIterator[RunChange]:
        """The run each time something changes, until it has ended."""
        request = run_pb2.WatchRunRequest(environment=self.environment, run_id=run_id)
        async for response in self._calls.stream(lambda stubs: stubs.runs.WatchRun, request):
            run = Run.from_message(response.run, _waiting(response.waiting_for))
            yield RunChange(run, tuple(JournalEntry.from_message(one) for one in response.entries))

    async def cancel_run(self, run_id: str, reason: str = "") -> Run:
        """Asks a run to end. It may still run clean-up steps; wait_run tells when it has ended."""
        request = run_pb2.CancelRunRequest(environment=self.environment, run_id=run_id, reason=reason)
        response = await self._calls.unary(lambda stubs: stubs.runs.CancelRun, request)
        return Run.from_message(response.run)

    # --- operating ---

    async def workers(self) -> list[WorkerInfo]:
        """The workers that are connected, or were until just now."""
        request = admin_pb2.ListWorkersRequest(environment=self.environment)
        response = await self._calls.unary(lambda stubs: stubs.admin.ListWorkers, request)
        return [WorkerInfo.from_message(one) for one in response.workers]

    async def advance_clock(self, duration: Duration, *, deadline_s: float = 30.0) -> ClockAdvance:
        """Moves a dev server's clock, due instant by due instant, for at most `deadline_s` of real time."""
        request = admin_pb2.AdvanceClockRequest(advance_ms=to_ms(duration), deadline_ms=round(deadline_s * 1000))
        response: admin_pb2.AdvanceClockResponse = await self._calls.unary(
            lambda stubs: stubs.admin.AdvanceClock, request, timeout_s=deadline_s + SLACK_S, repeatable=False
        )
        offset = timedelta(milliseconds=response.offset_ms)
        return ClockAdvance(from_unix_ms(response.now_ms), offset, response.complete, response.fired)

    async def server_info(self) -> ServerInfo:
        """What the server is."""
        info: admin_pb2.GetServerInfoResponse = await self._calls.unary(
            lambda stubs: stubs.admin.GetServerInfo, admin_pb2.GetServerInfoRequest()
        )
        now = from_unix_ms(info.now_ms)
        return ServerInfo(info.version, info.profile, info.default_environment, info.database, now)

    # --- inside ---

    async def _pages(self, method: Callable[[Stubs], Any], request: Any) -> AsyncIterator[Any]:
        while True:
            page = await self._calls.unary(method, request)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def _invoke(
        self, function: Any, input: Any, request_id: str | None, metadata: Mapping[str, str] | None, wait_s: float
    ) -> run_pb2.Run:
        function_id = function if isinstance(function, str) else function.id
        data = codec.encode(input, f"the input of {function_id}")
        if len(data) > RESULT_BYTES:
            raise LimitError(f"the input of {function_id} has {len(data)} bytes; result_bytes is {RESULT_BYTES}")
        request = function_pb2.InvokeRequest(
            environment=self.environment,
            function_id=function_id,
            input=common_pb2.Payload(data=data),
            request_id=request_id or uuid.uuid4().hex,
            wait_ms=round(wait_s * 1000),
            metadata=dict(metadata or {}),
        )
        if traced():
            carry_current(request.metadata)
        timeout_s = max(self._timeout_s, wait_s + SLACK_S)
        response = await self._calls.unary(lambda stubs: stubs.functions.Invoke, request, timeout_s=timeout_s)
        return response.run

    async def await_end(self, run_id: str, deadline: Deadline) -> run_pb2.Run:
        """WaitRun again and again until the run has ended or the deadline is over."""
        while True:
            wait_s = deadline.next_wait_s()
            request = run_pb2.WaitRunRequest(
                environment=self.environment, run_id=run_id, timeout_ms=max(round(wait_s * 1000), 1)
            )
            timeout_s = max(self._timeout_s, wait_s + SLACK_S)
            response = await self._calls.unary(lambda stubs: stubs.runs.WaitRun, request, timeout_s=timeout_s)
            if RunStatus.from_message(response.run.status).ended or deadline.passed():
                return response.run


def _batches(events: Sequence[NewEvent]) -> Iterator[list[event_pb2.NewEvent]]:
    batch: list[event_pb2.NewEvent] = []
    size = 0
    for event in events:
        message = event.to_message(EVENT_BYTES)
        weight = message.ByteSize() + 8
        if weight > SEND_BYTES:  # its metadata, say
            raise LimitError(f"event {event.name!r} has {weight} bytes; send_bytes is {SEND_BYTES}")
        if batch and (len(batch) == BATCH_EVENTS or size + weight > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += weight
    if batch:
        yield batch


def _ms(instant: datetime | None) -> int:
    return 0 if instant is None else to_unix_ms(instant)


def _waiting(messages: Sequence[run_pb2.WaitingFor]) -> tuple[WaitingFor, ...]:
    return tuple(WaitingFor.from_message(one) for one in messages)
