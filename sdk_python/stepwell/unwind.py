"""Unwinding the code of a run that ended or was fenced, and naming what stuck code waits for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from stepwell.errors import LimitError

if TYPE_CHECKING:
    from stepwell.loop import RunLoop

CALLBACKS_MAX = 10_000

logger = logging.getLogger("stepwell")
_resisting: list[asyncio.Task[Any]] = []


def unwind(loop: RunLoop, main: asyncio.Task[Any] | None) -> None:
    """Cancels what is left of the code; nothing it does reaches the server.

    Code that catches even BaseException and waits again resists. It is kept for ever rather than closed, because to
    close it could turn its loop into one that never waits.
    """
    loop.quiet = True
    if main is not None and main.done() and not main.cancelled():
        main.exception()  # seen: asyncio need not report it
    tasks: list[asyncio.Task[Any]] = [*loop.live_tasks()]
    if main is not None and not main.done():
        tasks.insert(0, main)
    if not tasks:
        return
    for task in tasks:
        task.cancel()
    with contextlib.suppress(LimitError):
        loop.run_until_quiescent(CALLBACKS_MAX)
    for task in tasks:
        if not task.done():
            _resisting.append(task)
            logger.warning("a run's code catches BaseException and cannot be unwound: %s", awaited(task))


def awaited(main: asyncio.Task[Any] | None) -> str:
    """What a function hangs on that waits for something no step will bring."""
    where = ""
    what: Any = None
    coro: Any = main.get_coro() if main is not None else None
    while coro is not None:
        frame = getattr(coro, "cr_frame", None)
        if frame is not None:
            where = f" at {frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"
        what = coro
        coro = getattr(coro, "cr_await", None)
    name = type(what).__name__ if what is not None else "nothing"
    return (
        f"the function is awaiting outside a step{where} ({name}): no step is open that could resolve it; "
        "I/O and waits for other threads belong in step.run(…)"
    )
