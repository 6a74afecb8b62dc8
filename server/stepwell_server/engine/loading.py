"""Reads that wait for a store that is away: somebody is promised what they bring."""

from __future__ import annotations

import asyncio

from stepwell_server.engine.node import Node
from stepwell_server.model.errors import UnavailableError
from stepwell_server.model.run import RunRow
from stepwell_server.ports.store import RunState

_AGAIN_S = 0.5


async def read(node: Node, env: str, run_ids: list[str]) -> dict[str, RunState]:
    """Runs with their journals."""
    while True:
        try:
            return await node.store.load(env, run_ids)
        except UnavailableError:
            await asyncio.sleep(_AGAIN_S)


async def read_run(node: Node, env: str, run_id: str) -> RunRow | None:
    """A run, without its journal."""
    while True:
        try:
            return await node.history.run(env, run_id)
        except UnavailableError:
            await asyncio.sleep(_AGAIN_S)
