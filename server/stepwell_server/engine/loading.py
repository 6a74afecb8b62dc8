"""Reads that wait for a store that is away: somebody is promised what they bring."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from stepwell_server.engine.node import Node
from stepwell_server.model.errors import UnavailableError
from stepwell_server.model.run import RunRow
from stepwell_server.ports.store import Home, RunState

T = TypeVar("T")
_AGAIN_S = 0.5


async def read(node: Node, env: str, run_ids: list[str]) -> dict[str, RunState]:
    """Runs with their journals."""
    return await patiently(lambda: node.store.load(env, run_ids))


async def read_run(node: Node, env: str, run_id: str) -> RunRow | None:
    """A run, without its journal."""
    return await patiently(lambda: node.history.run(env, run_id))


async def homes(node: Node, env: str, run_ids: list[str]) -> list[Home]:
    """Where runs are."""
    return await patiently(lambda: node.homes.homes(env, run_ids))


async def patiently(read: Callable[[], Awaitable[T]]) -> T:
    """Reads; waits for a store that is away."""
    while True:
        try:
            return await read()
        except UnavailableError:
            await asyncio.sleep(_AGAIN_S)
