"""Executes the bodies of steps: coroutines on the worker's loop, plain functions in threads; times out, interrupts."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from stepwell.context import Body
from stepwell.errors import StepTimeoutError
from stepwell.logs import log
from stepwell.threads import ThreadCall, Threads

if TYPE_CHECKING:
    from opentelemetry.trace import Span

STUCK_S = 10.0
"""A body that still executes this long after its interruption is named in the log."""

Owner = TypeVar("Owner")


class Attempt(Generic[Owner]):
    """One execution of a body, for the resident that owns it. Once `ended`, `error` or else `value` is what it made."""

    # Defaults stand in the class: most attempts change few of them, and there are many attempts.
    started_ms = 0
    ended_ms = 0
    value: Any = None
    error: BaseException | None = None
    ended = False
    dropped = False
    """Nobody waits for what it makes: it was interrupted."""
    timed_out = False
    task: asyncio.Task[Any] | None = None
    call: ThreadCall | None = None
    span: Span | None = None
    """Where the process has a tracer: from the beginning of its code to its end."""
    timer: asyncio.TimerHandle | None = None

    def __init__(self, owner: Owner, body: Body) -> None:
        self.owner = owner
        self.body = body

    def enter(self) -> None:
        """The code begins, in the calling context; again, where a plain function returned a coroutine."""
        body = self.body
        body.enter()
        if body.trace is not None:
            self.span = body.trace.enter(body, self.span)


class Bodies(Generic[Owner]):
    """All bodies of a worker. Every method is called on the user's loop.

    `ended` is called for each attempt that did not end within `start`, unless it was interrupted. An attempt ends
    only when its code really has; until then it keeps its thread or task, interrupted or timed out as it may be.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        threads: int,
        now_ms: Callable[[], int],
        ended: Callable[[Attempt[Owner]], None],
    ) -> None:
        self._loop = loop
        self._now_ms = now_ms
        self._ended = ended
        self._start_eagerly = EagerStart(loop)
        self._outside = contextvars.copy_context()
        self._threads = Threads(threads, loop, now_ms, self._thread_ended)
        self._calls: dict[ThreadCall, Attempt[Owner]] = {}
        self.executing = 0
        """Bodies whose code has not ended, interrupted ones included."""

    def start(self, owner: Owner, body: Body) -> Attempt[Owner]:
        """Begins a body. One that never waits has `ended` on return; of any other, `ended` is called later."""
        attempt = Attempt(owner, body)
        self.executing += 1
        if body.is_async:
            attempt.started_ms = self._now_ms()
            self._start_task(attempt, body.fn, body.args, body.kwargs)
        else:
            self._start_thread(attempt)
        return attempt

    def interrupt(self, attempt: Attempt[Owner]) -> None:
        """Stops a body as soon as it lets itself be stopped; what it makes is dropped."""
        if not attempt.ended and not attempt.dropped:
            attempt.dropped = True
            self._strike(attempt)

    def close(self) -> None:
        """Lets idle threads end."""
        self._threads.close()

    def _strike(self, attempt: Attempt[Owner]) -> None:
        attempt.body.cancelled = True
        if attempt.timer is not None:
            attempt.timer.cancel()
        attempt.timer = self._loop.call_later(STUCK_S, self._warn_stuck, attempt)
        if attempt.task is not None:
            attempt.task.cancel()
        elif attempt.call is not None:
            self._threads.interrupt(attempt.call)

    def _warn_stuck(self, attempt: Attempt[Owner]) -> None:
        body = attempt.body
        log.warning(
            "step %s of %s was interrupted %g s ago and still executes %s; it keeps its %s",
            body.key, body.run_id, STUCK_S, getattr(body.fn, "__qualname__", body.fn),
            "thread" if attempt.task is None else "task",
        )  # fmt: skip

    def _arm(self, attempt: Attempt[Owner]) -> None:
        if attempt.body.timeout_ms and not attempt.ended and not attempt.dropped:
            attempt.timer = self._loop.call_later(attempt.body.timeout_ms / 1000, self._time_out, attempt)

    def _time_out(self, attempt: Attempt[Owner]) -> None:
        attempt.timed_out = True
        self._strike(attempt)

    def _end(self, attempt: Attempt[Owner]) -> None:
        if attempt.timer is not None:
            attempt.timer.cancel()
        if attempt.timed_out:
            body, error = attempt.body, attempt.error
            timeout = StepTimeoutError(f"the body took longer than {body.timeout_ms} ms", key=body.key)
            # Where it was when it was stopped; not the interruption itself.
            attempt.error = timeout.with_traceback(None if error is None else error.__traceback__)
        if attempt.span is not None and attempt.body.trace is not None:
            attempt.body.trace.leave(attempt.span, attempt.error)
        attempt.ended = True
        self.executing -= 1

    # --- coroutines ---

    def _start_task(
        self, attempt: Attempt[Owner], function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        task = self._start_eagerly(_live(attempt, function, args, kwargs), self._outside.copy(), attempt.body.key)
        if task.done():
            attempt.ended_ms = self._now_ms()
            self._end(attempt)
        else:
            attempt.task = task
            task.add_done_callback(lambda _: self._task_ended(attempt))
            self._arm(attempt)

    def _task_ended(self, attempt: Attempt[Owner]) -> None:
        attempt.ended_ms = self._now_ms()
        self._end(attempt)
        if not attempt.dropped:
            self._ended(attempt)

    # --- plain functions ---

    def _start_thread(self, attempt: Attempt[Owner]) -> None:
        body, context = attempt.body, self._outside.copy()

        def work() -> Any:
            attempt.enter()
            return body.fn(*body.args, **body.kwargs)

        def begun() -> None:
            self._loop.call_soon_threadsafe(self._arm, attempt)

        call = ThreadCall(lambda: context.run(work), begun if body.timeout_ms else None)
        attempt.call = call
        self._calls[call] = attempt
        self._threads.submit(call)

    def _thread_ended(self, call: ThreadCall) -> None:
        attempt = self._calls.pop(call)
        attempt.started_ms, attempt.ended_ms = call.started_ms or call.ended_ms, call.ended_ms
        if call.error is None and inspect.iscoroutine(call.value):
            # A plain function that returned a coroutine, such as a lambda: it goes on here.
            coroutine = call.value
            if attempt.body.cancelled:
                coroutine.close()
            else:
                self._start_task(attempt, lambda: coroutine, (), {})
                if attempt.ended:
                    self._ended(attempt)
                return
        attempt.value, attempt.error = call.value, call.error
        self._end(attempt)
        if not attempt.dropped:
            self._ended(attempt)


async def _live(
    attempt: Attempt[Any], function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Executes a body and keeps what it made. Even one that exits the process only fails: the worker lives on."""
    attempt.enter()
    try:
        attempt.value = await function(*args, **kwargs)
    except BaseException as error:
        attempt.error = error


class EagerStart:
    """Starts tasks whose first step runs at once, not in the loop's next turn: one that never waits costs a quarter.

    Must not be called from within a task. Before Python 3.12 has it built in, the call_soon of a new task is caught.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._attributes = vars(loop)
        self._caught: Callable[[], object] | None = None
        self._catch_bound = self._catch

    def _catch(self, step: Callable[[], object], context: contextvars.Context | None = None) -> None:
        self._caught = step

    def __call__(self, work: Coroutine[Any, Any, Any], context: contextvars.Context, name: str) -> asyncio.Task[Any]:
        if sys.version_info >= (3, 12):
            return asyncio.Task(work, loop=self._loop, context=context, name=name, eager_start=True)
        self._attributes["call_soon"] = self._catch_bound
        try:
            task = asyncio.Task(work, loop=self._loop, context=context, name=name)
        finally:
            del self._attributes["call_soon"]
        step, self._caught = self._caught, None
        assert step is not None, "a new task asks for its first step"
        context.run(step)
        return task
