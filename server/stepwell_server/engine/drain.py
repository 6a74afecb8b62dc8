"""The server leaves: workers are told, nothing new is given out, and what is in flight is finished, in bounded time.

The sessions stay open in the store, so the workers keep their runs and take them up with the next server; nothing
counts as a loss (H13).
"""

from __future__ import annotations

import asyncio

from stepwell_server.engine.node import Node

_LOOK_S = 0.01
_CALM_LOOKS = 3
_SPREAD_MS = 500


async def drain(node: Node, reason: str) -> bool:
    """Whether all that was in flight is done within the drain's time. From now on the node takes no new work."""
    node.stopping = True
    others = node.cluster is not None and len(node.cluster.living) > 1
    for session in list(node.sessions.values()):
        session.draining = True
        if session.link is not None:
            # While this server serves the database no other does: the end of the stream is the moment to connect.
            # Only where that does not come does the time count. Where other nodes serve too, any moment will do.
            after_ms = (0 if others else node.tuning.drain_ms) + int(node.chance() * _SPREAD_MS)
            session.link.drain(after_ms, reason)
    deadline = node.clock.monotonic_ms() + node.tuning.drain_ms
    calm = 0
    while calm < _CALM_LOOKS:
        if node.clock.monotonic_ms() >= deadline:
            return False
        await asyncio.sleep(_LOOK_S)
        calm = calm + 1 if _nothing_flies(node) and not (others and _held(node)) else 0
    return True


def _nothing_flies(node: Node) -> bool:
    """Nothing is on its way to the store, and what it answered is on its way to the workers."""
    return node.lane.idle() and not node.to_load and not node.unserved


def _held(node: Node) -> bool:
    """Workers are still to come to another node."""
    return any(session.link is not None for session in node.sessions.values())
