"""Waiting for what happens to a run."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator
from itertools import chain, repeat

from stepwell_server.engine.node import Node
from stepwell_server.engine.query import check_run_id
from stepwell_server.model.errors import NotFoundError
from stepwell_server.model.run import RunRow

_LOOK_AGAIN_S = 5.0
_FIRST_LOOKS_S = (0.25, 0.5, 1.0, 2.0)


class Changes:
    """Tells that a run changed since the last look."""

    def __init__(self, node: Node, run_id: str) -> None:
        self.run_id = run_id
        self._node = node
        self._event = asyncio.Event()
        self.ended: RunRow | None = None
        """The run, once it has ended in the hands of this node."""

    def notify(self, ended: RunRow | None) -> None:
        """It changed."""
        self.ended = ended
        self._event.set()

    def notify_end(self, ended: RunRow | None) -> None:
        """It changed; heard only where that may be its end: a resident of this node ends with its row."""
        if ended is not None or self.run_id not in self._node.residents:
            self.notify(ended)

    async def wait(self, timeout_s: float) -> None:
        """Returns when it changed, or after the time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        self._event.clear()


@contextlib.contextmanager
def watching(node: Node, run_id: str, *, end_only: bool = False) -> Generator[Changes]:
    """Learns of changes of a run while the block runs. A hint can be lost: look again now and then."""
    changes = Changes(node, run_id)
    notify = changes.notify_end if end_only else changes.notify
    watchers = node.run_watchers.setdefault(run_id, set())
    watchers.add(notify)
    if node.cluster is not None and run_id not in node.residents:
        node.cluster.watch(run_id)
    try:
        yield changes
    finally:
        watchers.discard(notify)
        if not watchers:
            node.run_watchers.pop(run_id, None)


async def wait_run(node: Node, env: str, run_id: str, wait_ms: int) -> RunRow:
    """The run once it has ended, or as it is after wait_ms. Raises NotFoundError."""
    check_run_id(run_id)
    deadline = node.clock.monotonic_ms() + wait_ms
    pauses = chain(_FIRST_LOOKS_S, repeat(_LOOK_AGAIN_S))
    with watching(node, run_id, end_only=True) as changes:
        while True:
            if changes.ended is not None:
                return changes.ended
            left_s = (deadline - node.clock.monotonic_ms()) / 1000
            if run_id in node.residents and left_s > 0:
                # A worker of this node holds it: it has not ended, and we shall be told.
                await changes.wait(min(left_s, _LOOK_AGAIN_S))
                continue
            run = await node.history.run(env, run_id)
            if run is None:
                raise NotFoundError("RUN_NOT_FOUND", f"there is no run {run_id[:64]!r}")
            left_s = (deadline - node.clock.monotonic_ms()) / 1000
            if run.ended_ms is not None or left_s <= 0:
                return run
            # Of a run that another node holds, what the first looks missed may have come before that was told of us.
            pause_s = _LOOK_AGAIN_S if node.cluster is None else next(pauses)
            await changes.wait(min(left_s, pause_s))
            if node.cluster is not None:
                node.cluster.watch(run_id)
