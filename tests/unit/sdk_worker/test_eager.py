"""Tasks whose first step runs at once."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from stepwell.bodies import EagerStart

var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="outside")


def started(work: Callable[[], Coroutine[Any, Any, Any]], loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> Any:
    """Starts the work from a callback, then awaits it; returns whether it was done at once, and its result."""

    async def main() -> Any:
        loop = asyncio.get_running_loop()
        begun: asyncio.Future[asyncio.Task[Any]] = loop.create_future()
        at_once: list[bool] = []

        def begin() -> None:
            context = contextvars.copy_context()
            context.run(var.set, "inside")
            task = EagerStart(loop)(work(), context, "a-step")
            at_once.append(task.done())
            assert "call_soon" not in vars(loop)
            begun.set_result(task)

        loop.call_soon(begin)
        task = await begun
        return at_once[0], await task

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main())


loops = pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])


@loops
def test_what_never_waits_is_done_at_once_in_its_own_context(factory: Any) -> None:
    async def work() -> str:
        assert asyncio.current_task() is not None
        return var.get()

    assert started(work, factory) == (True, "inside")
    assert var.get() == "outside"


@loops
def test_what_waits_goes_on_as_a_common_task(factory: Any) -> None:
    async def work() -> str:
        async with asyncio.timeout(1), asyncio.TaskGroup() as group:
            child = group.create_task(asyncio.sleep(0.001, "slept"))
        return f"{child.result()} {var.get()}"

    assert started(work, factory) == (False, "slept inside")


@loops
def test_an_error_of_the_first_step_is_the_tasks(factory: Any) -> None:
    async def work() -> None:
        raise ValueError("at once")

    with pytest.raises(ValueError, match="at once"):
        started(work, factory)


@loops
def test_tasks_begun_in_the_first_step_run_later(factory: Any) -> None:
    async def work() -> str:
        return await asyncio.gather(asyncio.sleep(0, "a"), asyncio.sleep(0, "b"))

    assert started(work, factory) == (False, ["a", "b"])
