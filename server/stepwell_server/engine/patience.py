"""How long a caller waits for a commit. Giving up takes nothing back: what was begun goes on without the caller."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from stepwell_server.engine.node import Node
from stepwell_server.model.errors import CorruptError, UnavailableError

T = TypeVar("T")
PATIENCE_S = 15.0


async def within(node: Node, work: Coroutine[Any, Any, T]) -> T:
    """What the work comes to. Raises what it raises, or UnavailableError or CorruptError once the patience is over."""
    task = node.spawn(work)
    task.add_done_callback(_seen)
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.shield(task)
    except TimeoutError as error:
        raise over(node) from error


def over(node: Node) -> UnavailableError:
    """What to tell a caller whose patience is over: what the store last said, as far as it is known."""
    trouble = node.lane.trouble
    if isinstance(trouble, CorruptError):
        return CorruptError(trouble.reason, trouble.message)
    why = trouble.message if trouble is not None else "it does not answer"
    return UnavailableError("STORE_UNAVAILABLE", f"the store is not available: {why}; send again", retry_ms=1_000)


def _seen(task: asyncio.Task[Any]) -> None:
    """Nobody else may ask any more why it failed."""
    if not task.cancelled():
        task.exception()
