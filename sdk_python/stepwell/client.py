"""The blocking client: the same methods as AsyncClient, for code without a loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

from stepwell import connection
from stepwell.async_client import AsyncClient
from stepwell.calls import Stubs
from stepwell.duration import Duration
from stepwell.event import NewEvent
from stepwell.handle import AsyncRunHandle
from stepwell.values import (
    ClockAdvance,
    EventStatus,
    FailurePage,
    FunctionInfo,
    JournalEntry,
    Run,
    RunChange,
    RunStatus,
    ServerInfo,
    StoredEvent,
    WorkerInfo,
)

if TYPE_CHECKING:
    from stepwell.function import Function

__all__ = ["AsyncClient", "AsyncRunHandle", "Client", "RunHandle"]

T = TypeVar("T")
R = TypeVar("R")


class Client:
    """`with Client() as client`. See AsyncClient for what each method does; here it blocks the calling thread."""

    def __init__(self, address: str | None = None, *, environment: str | None = None, timeout_s: float = 30.0) -> None:
        self._io = connection.io()
        self._client = AsyncClient(address, environment=environment, timeout_s=timeout_s)
        self.address = self._client.address
        self.environment = self._client.environment

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self._wait(self._client.close())

    def call(self, method: Callable[[Stubs], Any], request: Any, *, timeout_s: float | None = None) -> Any:
        """See AsyncClient.call."""
        return self._wait(self._client.call(method, request, timeout_s=timeout_s))

    def send(
        self,
        name: str,
        data: Any = None,
        *,
        id: str | None = None,
        time: datetime | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """See AsyncClient.send."""
        return self._wait(self._client.send(name, data, id=id, time=time, metadata=metadata))

    def send_many(
        self, events: Sequence[NewEvent], *, request_id: str | None = None, timeout_s: float | None = None
    ) -> list[EventStatus]:
        """See AsyncClient.send_many."""
        return self._wait(self._client.send_many(events, request_id=request_id, timeout_s=timeout_s))

    def get_event(self, event_id: str) -> StoredEvent:
        """See AsyncClient.get_event."""
        return self._wait(self._client.get_event(event_id))

    def list_events(
        self,
        name: str = "",
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        condition: str = "",
        oldest_first: bool = False,
        page_size: int = 100,
    ) -> Iterator[StoredEvent]:
        """See AsyncClient.list_events."""
        return self._each(
            self._client.list_events(
                name, since=since, until=until, condition=condition, oldest_first=oldest_first, page_size=page_size
            )
        )

    def watch_events(self, name: str = "") -> Iterator[StoredEvent]:
        """See AsyncClient.watch_events."""
        return self._each(self._client.watch_events(name))

    def functions(self, app: str = "") -> list[FunctionInfo]:
        """See AsyncClient.functions."""
        return self._wait(self._client.functions(app))

    def get_function(self, function_id: str) -> FunctionInfo:
        """See AsyncClient.get_function."""
        return self._wait(self._client.get_function(function_id))

    @overload
    def start(
        self, function: Function[Any, T], input: Any = None, *, request_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> RunHandle[T]: ...  # fmt: skip
    @overload
    def start(
        self, function: str, input: Any = None, *, returns: type[R], request_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> RunHandle[R]: ...  # fmt: skip
    @overload
    def start(
        self, function: str, input: Any = None, *, request_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> RunHandle[Any]: ...  # fmt: skip
    def start(self, function: Any, input: Any = None, **options: Any) -> RunHandle[Any]:
        """See AsyncClient.start."""
        return RunHandle(self, self._wait(self._client.start(function, input, **options)))

    @overload
    def invoke(
        self, function: Function[Any, T], input: Any = None, *, timeout: Duration | None = None,
        request_id: str | None = None, metadata: Mapping[str, str] | None = None,
    ) -> T: ...  # fmt: skip
    @overload
    def invoke(
        self, function: str, input: Any = None, *, returns: type[R], timeout: Duration | None = None,
        request_id: str | None = None, metadata: Mapping[str, str] | None = None,
    ) -> R: ...  # fmt: skip
    @overload
    def invoke(
        self, function: str, input: Any = None, *, timeout: Duration | None = None,
        request_id: str | None = None, metadata: Mapping[str, str] | None = None,
    ) -> Any: ...  # fmt: skip
    def invoke(self, function: Any, input: Any = None, **options: Any) -> Any:
        """See AsyncClient.invoke."""
        return self._wait(self._client.invoke(function, input, **options))

    def get_run(self, run_id: str) -> Run:
        """See AsyncClient.get_run."""
        return self._wait(self._client.get_run(run_id))

    def list_runs(
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
    ) -> Iterator[Run]:
        """See AsyncClient.list_runs."""
        return self._each(
            self._client.list_runs(
                function=function,
                app=app,
                statuses=statuses,
                event_id=event_id,
                parent_run_id=parent_run_id,
                since=since,
                until=until,
                condition=condition,
                error_type=error_type,
                page_size=page_size,
            )
        )

    def list_failures(
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
        """See AsyncClient.list_failures."""
        return self._wait(
            self._client.list_failures(
                functions=functions,
                app=app,
                statuses=statuses,
                since=since,
                until=until,
                page_size=page_size,
                page_token=page_token,
            )
        )

    def journal(self, run_id: str) -> list[JournalEntry]:
        """See AsyncClient.journal."""
        return self._wait(self._client.journal(run_id))

    def wait_run(self, run_id: str, timeout: Duration | None = None) -> Run:
        """See AsyncClient.wait_run."""
        return self._wait(self._client.wait_run(run_id, timeout))

    def watch_run(self, run_id: str) -> Iterator[RunChange]:
        """See AsyncClient.watch_run."""
        return self._each(self._client.watch_run(run_id))

    def cancel_run(self, run_id: str, reason: str = "") -> Run:
        """See AsyncClient.cancel_run."""
        return self._wait(self._client.cancel_run(run_id, reason))

    def workers(self) -> list[WorkerInfo]:
        """See AsyncClient.workers."""
        return self._wait(self._client.workers())

    def advance_clock(self, duration: Duration, *, deadline_s: float = 30.0) -> ClockAdvance:
        """See AsyncClient.advance_clock."""
        return self._wait(self._client.advance_clock(duration, deadline_s=deadline_s))

    def server_info(self) -> ServerInfo:
        """See AsyncClient.server_info."""
        return self._wait(self._client.server_info())

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self._io.wait(work)

    def _each(self, items: AsyncIterator[T]) -> Iterator[T]:
        async def step() -> tuple[T] | None:
            async for item in items:
                return (item,)
            return None

        while (found := self._wait(step())) is not None:
            yield found[0]


class RunHandle(Generic[T]):
    """A run that was started."""

    def __init__(self, client: Client, handle: AsyncRunHandle[T]) -> None:
        self._client = client
        self._handle = handle
        self.run_id = handle.run_id

    def result(self, timeout: Duration | None = None) -> T:
        """See AsyncRunHandle.result."""
        return self._client._wait(self._handle.result(timeout))

    def status(self) -> Run:
        """See AsyncRunHandle.status."""
        return self._client.get_run(self.run_id)

    def cancel(self, reason: str = "") -> Run:
        """See AsyncRunHandle.cancel."""
        return self._client.cancel_run(self.run_id, reason)
