"""The History port on SQLite: reads for people, in a thread of their own, each at most a second long."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from stepwell_server.adapters.sql import listings, reads, sqlite_open
from stepwell_server.adapters.sql.reads import lite
from stepwell_server.adapters.sql.rows import run_row
from stepwell_server.adapters.sql.sqlite_thread import SqliteThread, T
from stepwell_server.model.event import EventRow
from stepwell_server.model.run import RunRow
from stepwell_server.ports.store import RunFilter

_EVENTS_BY_ID = lite(reads.EVENTS_BY_ID)
_RUN_BY_ID = lite(reads.RUN_BY_ID)
_CANCEL_REQUESTED = lite(reads.CANCEL_REQUESTED)


class SqliteHistory:
    """History. A read that would take longer than a second ends with READ_TOO_LONG."""

    def __init__(self, thread: SqliteThread) -> None:
        self._history = thread

    async def events(self, env: str, event_ids: Sequence[str]) -> list[EventRow]:
        rows = await self._fetch(_EVENTS_BY_ID, (env, json.dumps(list(event_ids))))
        return [EventRow._make(row) for row in rows]

    async def list_events(
        self,
        env: str,
        name: str,
        from_ms: int | None,
        until_ms: int | None,
        behind: str,
        limit: int,
        *,
        oldest_first: bool = False,
    ) -> list[EventRow]:
        sql, values = listings.list_events(env, name, from_ms, until_ms, behind, limit, oldest_first=oldest_first)
        return [EventRow._make(row) for row in await self._fetch(lite(sql), values)]

    async def run(self, env: str, run_id: str) -> RunRow | None:
        rows = await self._fetch(_RUN_BY_ID, (env, run_id))
        return run_row(rows[0]) if rows else None

    async def list_runs(self, env: str, filter_: RunFilter) -> list[RunRow]:
        sql, values = listings.list_runs(env, filter_)
        return [run_row(row) for row in await self._fetch(lite(sql), values)]

    async def known_functions(self, env: str) -> list[str]:
        ran = await self._fetch(lite(reads.FUNCTIONS_WITH_RUNS), (env,))
        specs = await self._fetch(lite(reads.SPECS), (env,))
        return sorted({id_ for (id_,) in ran} | listings.function_ids([spec for (spec,) in specs]))

    async def setting(self, name: str) -> str | None:
        rows = await self._fetch(lite(reads.SETTING), (name,))
        return rows[0][0] if rows else None

    async def cancel_requested(self, env: str, run_ids: Sequence[str]) -> set[str]:
        return {run_id for (run_id,) in await self._fetch(_CANCEL_REQUESTED, (env, json.dumps(list(run_ids))))}

    async def due_after(self, after_ms: int) -> int | None:
        return (await self._fetch(lite(reads.DUE_AFTER), (after_ms,)))[0][0]

    async def _fetch(self, sql: str, values: Sequence[Any]) -> list[Any]:
        return await self._bounded(lambda db: db.execute(sql, values).fetchall())

    async def _bounded(
        self, work: Callable[[sqlite3.Connection], T], seconds: float = sqlite_open.READ_DEADLINE_S
    ) -> T:
        def bounded(db: sqlite3.Connection) -> T:
            sqlite_open.bound(db, seconds)
            return work(db)

        return await self._history.run(bounded)
