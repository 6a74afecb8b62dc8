"""A second connection to Postgres that holds locks, so that an interleaving is forced and not hoped for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

DEADLINE_S = 10.0
_BLOCKED = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"


class Rival:
    """A connection with an open transaction, and one beside it that watches who waits."""

    def __init__(self, connection: asyncpg.Connection[Any], watcher: asyncpg.Connection[Any]) -> None:
        self._connection = connection
        self._watcher = watcher
        self._transaction = connection.transaction()

    async def begin(self) -> None:
        await self._transaction.start()

    async def execute(self, sql: str, *values: Any) -> None:
        await self._connection.execute(sql, *values)

    async def commit(self) -> None:
        await self._transaction.commit()

    async def rollback(self) -> None:
        await self._transaction.rollback()

    async def until_blocked(self, count: int = 1) -> None:
        """Returns when so many backends of this database wait for a lock."""
        async with asyncio.timeout(DEADLINE_S):
            while await self._watcher.fetchval(_BLOCKED) < count:
                pass


@asynccontextmanager
async def rival(url: str) -> AsyncIterator[Rival]:
    """A rival whose transaction has begun; what it left open is rolled back."""
    connection, watcher = await asyncpg.connect(url), await asyncpg.connect(url)
    try:
        one = Rival(connection, watcher)
        await one.begin()
        yield one
    finally:
        connection.terminate()  # whatever it is doing: a test that failed leaves it waiting
        await watcher.close()


def start(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Starts work beside the test."""
    return asyncio.create_task(work)


async def answer(task: asyncio.Task[Any]) -> Any:
    """What the work returned; fails where it hangs."""
    async with asyncio.timeout(DEADLINE_S):
        return await task
