"""The deterministic event loop of one run: callbacks in order, durable timers, no I/O.

asyncio's own Task and Future work on it unchanged, so gather, wait, TaskGroup, timeout, Lock, Queue and Event do too.
The run is quiescent when no callback is left, which is exact and not a number of turns (H1c).
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import threading
import weakref
from asyncio import Future, Task
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from stepwell.errors import Fenced, LimitError, OutsideStepError

if TYPE_CHECKING:
    from stepwell.v1.step_pb2 import Outcome

T = TypeVar("T")

CALLBACKS_MAX = 1_000_000

logger = logging.getLogger("stepwell")
if sys.version_info >= (3, 14):  # one current task per thread, not per loop: the worker's own must step aside
    from asyncio.tasks import _swap_current_task  # pyright: ignore
else:
    _swap_current_task: Callable[[Any, Any], Any] | None = None

_set_running_loop = asyncio._set_running_loop
_get_running_loop = asyncio._get_running_loop
_get_ident = threading.get_ident


class RunTask(Task[T]):
    """A task whose hash is its place in the run: asyncio keeps tasks in sets, whose order must be repeatable."""

    def __init__(
        self, number: int, coro: Coroutine[Any, Any, T], loop: RunLoop, name: str | None, context: Any
    ) -> None:
        self._number = number
        super().__init__(coro, loop=loop, name=name or f"task-{number}", context=context)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class Ready:
    """A callback that will be called. The shape of asyncio.Handle, without its debugging."""

    __slots__ = ("args_", "callback_", "cancelled_", "context_")

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...], context: contextvars.Context | None):
        self.callback_ = callback
        self.args_ = args
        self.context_ = context
        self.cancelled_ = False

    def cancel(self) -> None:
        """The callback is not called any more."""
        self.cancelled_ = True

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self.cancelled_


class Timer(Ready):
    """A callback that waits for a durable timer of the run."""

    __slots__ = (
        "_loop",
        "_when",
        "attempt",
        "command",
        "hash",
        "key",
        "kind",
        "last_error",
        "need",
        "open_key",
        "target",
    )

    def __init__(
        self, loop: RunLoop, when: float, callback: Callable[..., object], args: tuple[Any, ...], context: Any
    ):
        super().__init__(callback, args, context or contextvars.copy_context())
        self._loop = loop
        self._when = when
        # What the core knows of its key, as of any call.
        self.kind = 0
        self.target = ""
        self.key = ""
        self.open_key = ""
        self.hash = b""
        self.attempt = 1
        self.need = 0
        self.last_error: Any = None
        self.command: Any = None

    def when(self) -> float:
        """The loop's time at which it is due."""
        return self._when

    def cancel(self) -> None:
        """Gives the timer up: its key is abandoned."""
        if not self.cancelled_:
            self.cancelled_ = True
            self._loop.timer_cancelled(self)

    def deliver(self, outcome: Outcome) -> None:
        """The timer is due."""
        if not self.cancelled_:
            self._loop.append(self)


async def _awaited(future: asyncio.Future[Any]) -> Any:
    return await future


class RunLoop(asyncio.AbstractEventLoop):
    """Runs the code of one run until it is quiescent."""

    def __init__(
        self,
        time: Callable[[], float],
        begin_timer: Callable[[Timer, float], None],
        timer_cancelled: Callable[[Timer], None],
    ) -> None:
        self.time = time
        self.timer_cancelled = timer_cancelled
        self._begin_timer = begin_timer
        self._ready: deque[Ready] = deque()
        self.append = self._ready.append
        self._numbers = 0
        self._tasks: list[weakref.ref[RunTask[Any]]] = []
        self.quiet = False
        self._thread = 0

    # -- running -------------------------------------------------------------------------------------------------

    def run_until_quiescent(self, callbacks_max: int = CALLBACKS_MAX) -> None:
        """Calls callbacks until none is left. Raises LimitError for code that never waits."""
        ready = self._ready
        outer = _get_running_loop()
        outer_task = None if _swap_current_task is None or outer is None else _swap_current_task(outer, None)
        _set_running_loop(self)
        self._thread = _get_ident()
        try:
            for _ in range(callbacks_max):
                if not ready:
                    return
                handle = ready.popleft()
                if handle.cancelled_:
                    continue
                try:
                    context = handle.context_
                    if context is None:
                        handle.callback_(*handle.args_)
                    else:
                        context.run(handle.callback_, *handle.args_)
                except (SystemExit, KeyboardInterrupt):
                    pass  # The task holds it; a function cannot end its worker.
                except Exception as error:
                    self.call_exception_handler({"message": "a callback raised", "exception": error})
        finally:
            self._thread = 0
            _set_running_loop(outer)
            if _swap_current_task is not None and outer_task is not None:
                _swap_current_task(outer, outer_task)
        if ready:
            ready.clear()
            raise LimitError(f"the function made {callbacks_max} turns of its loop without waiting for a step")

    def runs_here(self) -> bool:
        """Whether it is this thread that runs the run's code now. To ask asyncio costs a system call."""
        return self._thread == _get_ident()

    def detach(self) -> None:
        """The run is over: lets go of the core, so that its memory does not wait for the garbage collector."""
        self.time = _gone
        self.timer_cancelled = _gone
        self._begin_timer = _gone

    def live_tasks(self) -> list[RunTask[Any]]:
        """Tasks that the code created and that have not ended, oldest first."""
        return [task for ref in self._tasks if (task := ref()) is not None and not task.done()]

    # -- what asyncio asks of a loop -----------------------------------------------------------------------------

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Any = None) -> Any:
        handle = Ready(callback, args, context)
        self.append(handle)
        return handle

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None) -> Any:
        if delay <= 0:
            return self.call_soon(callback, *args, context=context)
        timer = Timer(self, self.time() + delay, callback, args, context)
        self._begin_timer(timer, delay)
        return timer

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, context: Any = None) -> Any:
        # Begun as a duration: the code's time is that of its last outcome, and a time-out should count from now.
        return self.call_later(when - self.time(), callback, *args, context=context)

    def create_future(self) -> Future[Any]:
        return Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None, **_: Any) -> Any:
        if isinstance(coro, asyncio.Future):
            coro = _awaited(coro)  # what a step call answers is a future, and tasks are made of coroutines
        self._numbers += 1
        if len(self._tasks) > 64 and self._numbers % 64 == 0:
            self._tasks = [ref for ref in self._tasks if (task := ref()) is not None and not task.done()]
        task = RunTask(self._numbers, coro, self, name, context)
        self._tasks.append(weakref.ref(task))
        return task

    def next_number(self) -> int:
        """A number for the hash of the next future or task."""
        self._numbers += 1
        return self._numbers

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return _get_running_loop() is self

    def is_closed(self) -> bool:
        return False

    def get_task_factory(self) -> None:
        return None

    def get_exception_handler(self) -> None:
        return None

    def default_exception_handler(self, context: Any) -> None:
        self.call_exception_handler(context)

    def call_exception_handler(self, context: Any) -> None:
        # A run that is dropped while it waits is nothing to report.
        message: str = context.get("message") or ""
        if not self.quiet and not message.startswith("Task was destroyed"):
            logger.warning("%s: %r", message, context.get("exception"))

    async def shutdown_asyncgens(self) -> None:
        return None


def _gone(*_: Any) -> Any:
    raise Fenced("the run is over")


def _refusing(name: str) -> Callable[..., NoReturn]:
    def refuse(self: RunLoop, *args: Any, **kwargs: Any) -> NoReturn:
        raise OutsideStepError(
            f"the function's code used {name} of the event loop; I/O, threads and processes belong in a step: "
            "move it into a function and call it with step.run(…)"
        )

    refuse.__name__ = name
    return refuse


for _name in (
    *(
        n
        for n in vars(asyncio.AbstractEventLoop)
        if n.startswith(("create_", "connect_", "sock_", "start_", "subprocess_"))
    ),
    *("run_in_executor", "set_default_executor", "shutdown_default_executor", "getaddrinfo", "getnameinfo", "sendfile"),
    *("add_reader", "remove_reader", "add_writer", "remove_writer", "add_signal_handler", "remove_signal_handler"),
    *("call_soon_threadsafe", "run_forever", "run_until_complete", "stop", "close", "set_debug"),
    *("set_task_factory", "set_exception_handler"),
):
    if _name not in vars(RunLoop):
        setattr(RunLoop, _name, _refusing(_name))
