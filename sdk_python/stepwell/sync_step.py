"""Synchronous functions: their code runs in a thread of its own and hands a baton to the core at every step."""

from __future__ import annotations

import contextvars
import threading
from asyncio import Future
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, overload

from stepwell.duration import Duration
from stepwell.event import Event, NewEvent

if TYPE_CHECKING:
    from random import Random
    from uuid import UUID

    from stepwell.function import Function
    from stepwell.retry import Retries
    from stepwell.step import Step

T = TypeVar("T")
R = TypeVar("R")


class Baton:
    """Exactly one of two threads runs, the core's or the function's: so a synchronous function stays deterministic."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._go = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._request: Future[Any] | None = None
        self._answer: tuple[Any, BaseException | None] = (None, None)
        self._ended: tuple[Any, BaseException | None] | None = None
        context = contextvars.copy_context()
        self.thread = threading.Thread(target=context.run, args=(self._body,), daemon=True, name="stepwell-function")

    async def drive(self) -> Any:
        """Runs the function: the coroutine that stands for it on the run's loop."""
        self.thread.start()
        self._back.acquire()
        while self._ended is None:
            request, self._request = self._request, None
            assert request is not None, "a function's thread hands the baton over only with a request"
            try:
                self._answer = (await request, None)
            except BaseException as error:
                # GeneratorExit comes here too, when the run was fenced: the thread unwinds, and its steps raise.
                self._answer = (None, error)
                self._switch()
                if isinstance(error, GeneratorExit):
                    raise
            else:
                self._switch()
        value, error = self._ended
        if error is not None:
            raise error
        return value

    def ask(self, request: Future[T]) -> T:
        """Called by the function's thread: blocks until the outcome is there."""
        self._request = request
        self._back.release()
        self._go.acquire()
        value, error = self._answer
        self._answer = (None, None)
        if error is not None:
            raise error
        return value

    def owns(self) -> bool:
        """Whether the calling thread is the function's."""
        return threading.current_thread() is self.thread

    def _switch(self) -> None:
        self._go.release()
        self._back.acquire()

    def _body(self) -> None:
        try:
            self._ended = (self._call(), None)
        except BaseException as error:
            self._ended = (None, error)
        finally:
            self._back.release()


class SyncStep:
    """What a synchronous function does durably. As Step, but every call blocks and returns the value itself."""

    __slots__ = ("_ask", "_step")

    def __init__(self, step: Step, ask: Callable[[Future[Any]], Any]) -> None:
        self._step = step
        self._ask = ask

    @overload
    def run(
        self, fn: Callable[..., Any], /, *args: Any, returns: type[R], name: str | None = None,
        retries: Retries | None = None, timeout: Duration | None = None, **kwargs: Any,
    ) -> R: ...  # fmt: skip
    @overload
    def run(
        self, fn: Callable[..., Awaitable[T]], /, *args: Any, name: str | None = None,
        retries: Retries | None = None, timeout: Duration | None = None, **kwargs: Any,
    ) -> T: ...  # fmt: skip
    @overload
    def run(
        self, fn: Callable[..., T], /, *args: Any, name: str | None = None,
        retries: Retries | None = None, timeout: Duration | None = None, **kwargs: Any,
    ) -> T: ...  # fmt: skip
    def run(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """See Step.run."""
        return self._ask(self._step.run(fn, *args, **kwargs))

    def sleep(self, duration: Duration, *, name: str | None = None) -> None:
        """See Step.sleep."""
        self._ask(self._step.sleep(duration, name=name))

    def sleep_until(self, instant: datetime | float, *, name: str | None = None) -> None:
        """See Step.sleep_until."""
        self._ask(self._step.sleep_until(instant, name=name))

    @overload
    def wait_for_event(
        self, event: str, *, returns: type[R], match: str = "", if_: str = "",
        timeout: Duration | None = None, name: str | None = None,
    ) -> Event[R] | None: ...  # fmt: skip
    @overload
    def wait_for_event(
        self, event: str, *, match: str = "", if_: str = "",
        timeout: Duration | None = None, name: str | None = None,
    ) -> Event[Any] | None: ...  # fmt: skip
    def wait_for_event(self, event: str, **options: Any) -> Event[Any] | None:
        """See Step.wait_for_event."""
        return self._ask(self._step.wait_for_event(event, **options))

    @overload
    def invoke(
        self, function: Function[Any, T], input: Any = None, /, *, timeout: Duration | None = None,
        detached: bool = False, name: str | None = None,
    ) -> T: ...  # fmt: skip
    @overload
    def invoke(
        self, function: str, input: Any = None, /, *, returns: type[R], timeout: Duration | None = None,
        detached: bool = False, name: str | None = None,
    ) -> R: ...  # fmt: skip
    @overload
    def invoke(
        self, function: str, input: Any = None, /, *, timeout: Duration | None = None,
        detached: bool = False, name: str | None = None,
    ) -> Any: ...  # fmt: skip
    def invoke(self, function: Any, input: Any = None, /, **options: Any) -> Any:
        """See Step.invoke."""
        return self._ask(self._step.invoke(function, input, **options))

    def send_event(self, event: str | NewEvent, data: Any = None, **options: Any) -> list[str]:
        """See Step.send_event."""
        return self._ask(self._step.send_event(event, data, **options))

    def send_events(self, events: Sequence[NewEvent | tuple[str, Any]], *, name: str | None = None) -> list[str]:
        """See Step.send_events."""
        return self._ask(self._step.send_events(events, name=name))

    @property
    def run_id(self) -> str:
        """See Step.run_id."""
        return self._step.run_id

    @property
    def attempt(self) -> int:
        """See Step.attempt."""
        return self._step.attempt

    def now(self) -> datetime:
        """See Step.now."""
        return self._step.now()

    def uuid(self) -> UUID:
        """See Step.uuid."""
        return self._step.uuid()

    def random(self) -> Random:
        """See Step.random."""
        return self._step.random()
