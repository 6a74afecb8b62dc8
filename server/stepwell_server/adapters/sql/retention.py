"""Retention on both SQL stores: which rows of a page have expired, and the order in which they go."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from stepwell_server.adapters.sql import reads
from stepwell_server.ports.retention import Expiry, Oldest, Page

Fetch = Callable[..., Awaitable[list[Any]]]
Delete = Callable[..., Awaitable[int]]


class SqlRetention:
    """fetch reads, delete runs one statement in a transaction of its own and says how many rows it took."""

    def __init__(self, fetch: Fetch, delete: Delete) -> None:
        self._fetch = fetch
        self._delete = delete

    async def oldest(self, env: str) -> Oldest:
        ((cursor, run),) = await self._fetch(reads.OLDEST, env)
        return Oldest(cursor, run)

    async def forget_runs(self, env: str, after: str, before: str, expiries: Sequence[Expiry], limit: int) -> Page:
        rows = await self._fetch(reads.RUN_PAGE, env, after, before, limit)
        until = dict(expiries)
        gone = [id_ for id_, status, ended_ms in rows if ended_ms is not None and ended_ms < until.get(status, 0)]
        if gone:
            while await self._delete(reads.FORGET_OUTCOMES, env, gone, limit) == limit:
                pass
            await self._delete(reads.FORGET_MEMBERS, env, gone)
            await self._delete(reads.FORGET_RUNS, env, gone)
        return Page(rows[-1][0] if len(rows) == limit else "", len(gone))

    async def forget_events(self, env: str, after: str, before: str, limit: int) -> Page:
        rows = await self._fetch(reads.EVENT_PAGE, env, after, before, limit)
        gone = [id_ for id_, is_member in rows if not is_member]
        if gone:
            await self._delete(reads.FORGET_EVENTS, env, gone)
        return Page(rows[-1][0] if len(rows) == limit else "", len(gone))
