"""Whether this node serves, or why not: it holds the database, the store answers, and it does not leave."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from stepwell_server.engine.lease import NAME
from stepwell_server.engine.node import Node
from stepwell_server.engine.rounds import go_round
from stepwell_server.model.errors import UnavailableError

log = logging.getLogger("stepwell.readiness")
DRAINING = "the server stops"
_EVERY_S = 1.0
_STORE_S = 1.0


class Readiness:
    """Looks once a second, and tells what has changed. tell: gets why the node is not ready; "" if it is."""

    def __init__(self, node: Node, tell: Callable[[str], Awaitable[None]]) -> None:
        self._node = node
        self._tell = tell
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Looks now, and from now on."""
        await self.run_once()
        self._task = self._node.loop.create_task(
            go_round("looking whether this node is ready", _EVERY_S, self.run_once)
        )

    def stop(self) -> None:
        """Ends the service: the node leaves."""
        self._node.not_ready = DRAINING
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def run_once(self) -> None:
        """One look."""
        why = await why_not(self._node)
        if why == self._node.not_ready:
            return
        self._node.not_ready = why
        if why:
            log.warning("not ready: %s", why)
        await self._tell(why)


async def why_not(node: Node) -> str:
    """Why a node should get no traffic now; "" if it should."""
    if node.stopping:
        return DRAINING
    if node.lane.trouble is not None:
        return f"the store is in trouble: {node.lane.trouble.message}"
    try:
        async with asyncio.timeout(_STORE_S):
            row = await node.store.lease(NAME)
    except TimeoutError:
        return f"the store does not answer within {_STORE_S:g} s"
    except UnavailableError as error:
        return f"the store is in trouble: {error.message}"
    if node.alone_since_ms is not None and (row is None or row.holder != node.id):
        return "another server holds the database"
    return ""
