"""Executes the bodies of steps: coroutines on the worker's loop, plain functions in threads; times out, interrupts."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

from stepwell.context import Body, StepContext
from stepwell.errors import Interrupted, StepTimeoutError
from stepwell.logs import log
from stepwell.threads import ThreadCall, Threads

STUCK_S = 10.0
"""A body that still executes this long after its interruption is named in the log."""

Owner = TypeVar("Owner")


class Attempt(Generic[Owner]):
    """One attempt of a body, for the resident that owns it. Once `ended`, `error` or else `value` is what it made."""

    __slots__ = (
        "body",
        "call",
        "context",
        "dropped",
        "ended",
        "ended_ms",
        "error",
        "owner",
        "started_ms",
        "step",
        "task",
        "timed_out",
        "timer",
        "value",
    )

    def __init__(self, owner: Owner, body: Body, step: StepContext, context: contextvars.Context) -> None:
        self.owner = owner
        self.body = body
        self.step = step
        self.context = context
        self.started_ms = 0
        self.ended_ms = 0
        self.value: Any = None
        self.error: BaseException | None = None
        self.ended = False
        self.dropped = False
        """Nobody waits for what it makes: it was interrupted."""
        self.timed_out = False
        self.task: asyncio.Task[Any] | None = None
        self.call: ThreadCall | None = None
        self.timer: asyncio.TimerHandle | None = None


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
        self._outside = contextvars.copy_context()
        self._threads = Threads(threads, loop, now_ms, self._thread_ended)
        self._calls: dict[ThreadCall, Attempt[Owner]] = {}
        self.executing = 0
        """Bodies whose code has not ended, interrupted ones included."""

    def start(self, owner: Owner, body: Body) -> Attempt[Owner]:
        """Begins a body. One that never waits has `ended` on return; of any other, `ended` is called later."""
        step = body.context()
        context = self._outside.copy()
        context.run(step.enter)
        attempt = Attempt(owner, body, step, context)
        self.executing += 1
        if body.is_async:
            attempt.started_ms = self._now_ms()
            self._start_task(attempt, _guarded(body.fn, *body.args, **body.kwargs))
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
        attempt.step.cancelled = True
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

    def _end(self, attempt: Attempt[Owner], value: Any, error: BaseException | None) -> None:
        if attempt.timer is not None:
            attempt.timer.cancel()
        if attempt.timed_out:
            body = attempt.body
            timeout = StepTimeoutError(f"the body took longer than {body.timeout_ms} ms", key=body.key)
            # Where it was when it was stopped; not the interruption itself.
            value, error = None, timeout.with_traceback(None if error is None else error.__traceback__)
        attempt.value = value
        attempt.error = error
        attempt.ended = True
        self.executing -= 1

    # --- coroutines ---

    def _start_task(self, attempt: Attempt[Owner], work: Coroutine[Any, Any, Any]) -> None:
        task = start_eagerly(self._loop, work, attempt.context)
        attempt.task = task
        if task.done():
            self._settle(attempt, task)
        else:
            task.add_done_callback(lambda done: self._task_ended(attempt, done))
            self._arm(attempt)

    def _settle(self, attempt: Attempt[Owner], task: asyncio.Task[Any]) -> None:
        attempt.ended_ms = self._now_ms()
        if task.cancelled():
            self._end(attempt, None, asyncio.CancelledError("the body was cancelled"))
        else:
            error = task.exception()
            if isinstance(error, _Exit):
                error = error.__cause__
            self._end(attempt, None if error is not None else task.result(), error)

    def _task_ended(self, attempt: Attempt[Owner], task: asyncio.Task[Any]) -> None:
        self._settle(attempt, task)
        if not attempt.dropped:
            self._ended(attempt)

    # --- plain functions ---

    def _start_thread(self, attempt: Attempt[Owner]) -> None:
        body = attempt.body

        def invoke() -> Any:
            return attempt.context.run(body.fn, *body.args, **body.kwargs)

        def begun() -> None:
            self._loop.call_soon_threadsafe(self._arm, attempt)

        call = ThreadCall(invoke, begun if body.timeout_ms else None)
        attempt.call = call
        self._calls[call] = attempt
        self._threads.submit(call)

    def _thread_ended(self, call: ThreadCall) -> None:
        attempt = self._calls.pop(call)
        attempt.started_ms, attempt.ended_ms = call.started_ms or call.ended_ms, call.ended_ms
        if call.error is None and inspect.iscoroutine(call.value):
            # A plain function that returned a coroutine, such as a lambda: it goes on here.
            if attempt.step.cancelled:
                call.value.close()
            else:
                coroutine = call.value
                self._start_task(attempt, _guarded(lambda: coroutine))
                if not attempt.ended:
                    return
                self._ended(attempt)
                return
        self._end(attempt, call.value, call.error)
        if not attempt.dropped:
            self._ended(attempt)


class _Exit(Exception):
    """Carries an exception that a task would let through to the loop."""


async def _guarded(function: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
    """A body that exits the process, or finds itself interrupted, fails; it does not end the worker."""
    try:
        return await function(*args, **kwargs)
    except (SystemExit, KeyboardInterrupt, Interrupted) as error:
        raise _Exit from error


def start_eagerly(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], context: contextvars.Context
) -> asyncio.Task[Any]:
    """A task whose first step runs now, not in the loop's next turn: one that never waits costs a quarter.

    Must not be called from within a task. Before Python 3.12 has it built in, the task's call_soon is caught.
    """
    if sys.version_info >= (3, 12):
        return asyncio.Task(work, loop=loop, context=context, eager_start=True)
    caught: list[Callable[[], object]] = []

    def catch(step: Callable[[], object], context: contextvars.Context | None = None) -> None:
        caught.append(step)

    vars(loop)["call_soon"] = catch
    try:
        task = asyncio.Task(work, loop=loop, context=context)
    finally:
        del vars(loop)["call_soon"]
    context.run(caught[0])
    return task
