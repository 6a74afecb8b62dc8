"""A seeded event loop with virtual time: several processes in one, each of which can crash or freeze.

A process is known by a context variable, so every callback and task belongs to the one that made it. Within a process
callbacks run in the order of asyncio; which process goes next is drawn by the seed. Time moves only when nobody can go.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
import traceback
import zlib
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

START_MS = 1_800_000_000_000
_TURNS_MAX = 3_000_000
_process: contextvars.ContextVar[Process] = contextvars.ContextVar("simulated_process")


class Process:
    """One process of the simulated world. skew_ms: how far its wall clock is ahead."""

    def __init__(self, loop: SimLoop, name: str, skew_ms: int = 0) -> None:
        self.loop = loop
        self.name = name
        self.skew_ms = skew_ms
        self.alive = True
        self.frozen = False
        self.ever_frozen = False
        self.ready: deque[asyncio.Handle] = deque()
        self.context = contextvars.Context()
        self.context.run(_process.set, self)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Starts a task that belongs to this process."""
        return self.loop.create_task(work, context=self.context.copy())

    def kill(self) -> None:
        """kill -9: none of its callbacks runs any more."""
        self.alive = False
        self.ready.clear()

    def freeze(self) -> None:
        """SIGSTOP."""
        self.frozen = self.ever_frozen = True

    def thaw(self) -> None:
        """SIGCONT: what fell due meanwhile runs now."""
        self.frozen = False

    def __repr__(self) -> str:
        return self.name


class SimTask(asyncio.Task[Any]):
    """A task whose hash is a number: asyncio keeps tasks in sets, whose order must follow from the seed."""

    def __init__(self, number: int, coro: Any, loop: Any, **options: Any) -> None:
        self.number = number
        self.process: Process | None = None
        super().__init__(coro, loop=loop, **options)

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class SimFuture(asyncio.Future[Any]):
    """A future whose hash is a number."""

    def __init__(self, number: int, loop: Any) -> None:
        self.number = number
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class Deadlock(Exception):
    """Nothing can ever happen any more."""


class SimLoop(asyncio.BaseEventLoop):
    """See the module. `trace` is a checksum of what happened: equal seeds must have equal ones."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.rng = random.Random(f"loop {seed}")
        self.now = 0.0
        self.turns = 0
        self.trace = 0
        self.finished = False
        self.troubles: list[str] = []
        self.tasks: list[Any] = []  # kept: a coroutine that is collected would run its finally
        self._numbers = 0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self.world = Process(self, "world")
        self.processes = [self.world]
        self.set_task_factory(self._make_task)
        self.set_exception_handler(self._trouble)

    def process(self, name: str, skew_ms: int = 0) -> Process:
        """A new process."""
        self.processes = [process for process in self.processes if process.alive]
        process = Process(self, name, skew_ms)
        self.processes.append(process)
        return process

    def note(self, *what: object) -> None:
        """Adds something to the trace."""
        self.trace = zlib.crc32(repr((round(self.now, 6), *what)).encode(), self.trace)

    # -- what asyncio asks of a loop -----------------------------------------------------------------------------

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        process = handle._context.get(_process, self.world)
        if process.alive and not self.finished:
            process.ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        if not self.finished:
            self._numbers += 1
            heapq.heappush(self._timers, (when, self._numbers, handle))
        return handle

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def create_future(self) -> Any:
        self._numbers += 1
        return SimFuture(self._numbers, self)

    def _make_task(self, loop: Any, coro: Any, **options: Any) -> Any:
        self._numbers += 1
        task = SimTask(self._numbers, coro, self, **options)
        task.process = (options.get("context") or contextvars.copy_context()).get(_process, self.world)
        self.tasks.append(task)
        if len(self.tasks) > 20_000:
            self.tasks = [task for task in self.tasks if not task.done() or task._log_traceback]
        return task

    def _timer_handle_cancelled(self, handle: Any) -> None:
        return

    def _trouble(self, loop: Any, context: dict[str, Any]) -> None:
        message: str = context.get("message", "")
        if not message.startswith("Task was destroyed"):
            self.troubles.append(f"{message}: {context.get('exception')!r}")

    # -- running -------------------------------------------------------------------------------------------------

    def _run_once(self) -> None:
        able = [process for process in self.processes if process.ready and not process.frozen and process.alive]
        while not able:
            self._advance()
            able = [process for process in self.processes if process.ready and not process.frozen and process.alive]
        process = able[0] if len(able) == 1 else able[int(self.rng.random() * len(able))]
        handle = process.ready.popleft()
        if not handle.cancelled():
            self.turns += 1
            if self.turns > _TURNS_MAX:
                raise Deadlock(f"more than {_TURNS_MAX} callbacks; the last: {handle!r}")
            handle._run()

    def _advance(self) -> None:
        """Moves time to the next timer, and makes all ready that are due then."""
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        if not timers:
            raise Deadlock("no timer and no callback is left")
        self.now = max(self.now, timers[0][0])
        while timers and timers[0][0] <= self.now:
            handle = heapq.heappop(timers)[2]
            if not handle.cancelled():
                process = handle._context.get(_process, self.world)
                if process.alive:
                    process.ready.append(handle)

    def unretrieved(self) -> list[str]:
        """Exceptions of tasks that nobody has looked at, in processes that could have."""
        found: list[str] = []
        for task in self.tasks:
            if task.done() and not task.cancelled() and task._log_traceback and task.process.alive:
                error: Any = task.exception()
                where = " < ".join(f"{f.name}:{f.lineno}" for f in reversed(traceback.extract_tb(error.__traceback__)))
                found.append(f"{task.get_coro().__qualname__} raised {error!r} in {where}")
        return found

    def finish(self) -> None:
        """Ends the world: nothing is called any more."""
        self.finished = True
        self._timers.clear()
        for process in self.processes:
            process.kill()
        self.close()


def current_process() -> Process | None:
    """The process whose callback runs."""
    return _process.get(None)


class VirtualTime:
    """Stands in for the module `time` in the SDK's modules."""

    def time(self) -> float:
        process = _process.get(None)
        return START_MS / 1000 + process.loop.now + process.skew_ms / 1000 if process is not None else 0.0

    def time_ns(self) -> int:
        return int(self.time() * 1_000_000_000)

    def monotonic(self) -> float:
        process = _process.get(None)
        return 1_000.0 + process.loop.now if process is not None else 0.0


class SimClock:
    """Implements ports/clock.py."""

    def __init__(self, offset_ms: int = 0) -> None:
        self.offset_ms = offset_ms
        self._last = 0

    def now_ms(self) -> int:
        process = current_process()
        assert process is not None, "the server's code runs in a process"
        now = START_MS + int(process.loop.now * 1000) + process.skew_ms + self.offset_ms
        self._last = max(self._last, now)
        return self._last

    def monotonic_ms(self) -> int:
        process = current_process()
        assert process is not None, "the server's code runs in a process"
        return 1_000_000 + int(process.loop.now * 1000)
