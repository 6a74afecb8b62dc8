"""Runs that a client started: waiting for their end, and what they ended with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from stepwell import codec, errors
from stepwell.duration import Duration, to_ms
from stepwell.v1 import run_pb2
from stepwell.values import Run, RunStatus

if TYPE_CHECKING:
    from stepwell.async_client import AsyncClient

T = TypeVar("T")

POLL_S = 50.0
"""One call waits at most this long; the server allows 55 s."""


class AsyncRunHandle(Generic[T]):
    """A run that was started."""

    def __init__(self, client: AsyncClient, run: run_pb2.Run, read: Callable[[Any], T] | None) -> None:
        self._client = client
        self._run = run
        self._read = read
        self.run_id = run.id

    async def result(self, timeout: Duration | None = None) -> T:
        """The output. Raises RunFailedError, RunCancelledError or RunTimedOutError; TimeoutError if it goes on."""
        return await self.wait(Deadline(timeout))

    async def status(self) -> Run:
        """The run as it is now, with what it waits for."""
        return await self._client.get_run(self.run_id)

    async def cancel(self, reason: str = "") -> Run:
        """See AsyncClient.cancel_run."""
        return await self._client.cancel_run(self.run_id, reason)

    async def wait(self, deadline: Deadline) -> T:
        """As `result`, with a deadline that began earlier."""
        if not RunStatus.from_message(self._run.status).ended:
            self._run = await self._client.await_end(self.run_id, deadline)
        return output_of(self._run, self._read)


class Deadline:
    """How long a caller is willing to wait in all; None: for ever."""

    def __init__(self, timeout: Duration | None) -> None:
        self._now = asyncio.get_running_loop().time
        self._at = None if timeout is None else self._now() + to_ms(timeout) / 1000

    def next_wait_s(self) -> float:
        """How long the next call may wait on the server."""
        return POLL_S if self._at is None else min(POLL_S, max(self._at - self._now(), 0.0))

    def passed(self) -> bool:
        """The time is over."""
        return self._at is not None and self._now() >= self._at


def output_of(run: run_pb2.Run, read: Callable[[Any], Any] | None) -> Any:
    """The output of an ended run; raises what it ended with, or TimeoutError if it has not."""
    status = RunStatus.from_message(run.status)
    if status is RunStatus.COMPLETED:
        return codec.decode(run.output.data or b"null", read, f"the output of {run.id}")
    if not status.ended:
        raise TimeoutError(f"{run.id} of {run.function_id} has not ended; it is {status.value}")
    kind = _FAILURES.get(status, errors.RunFailedError)
    failure = run.failure if run.HasField("failure") else None
    said = errors.describe(failure) if failure is not None else status.value
    raise kind(f"{run.id} of {run.function_id}: {said}", failure=failure)


_FAILURES: dict[RunStatus, type[errors.InvokeError]] = {
    RunStatus.CANCELLED: errors.RunCancelledError,
    RunStatus.TIMED_OUT: errors.RunTimedOutError,
}


def reader(function: Any, returns: Any) -> Callable[[Any], Any] | None:
    """How the output of a function is read: as the type that was asked for, or that its annotation names."""
    if returns is not None:
        return codec.convert_to(returns)
    return None if isinstance(function, str) else codec.convert_to(function.returns)
