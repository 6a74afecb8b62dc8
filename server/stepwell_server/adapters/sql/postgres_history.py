"""The History port on Postgres: reads for people, on the connections that read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepwell_server.adapters.sql import listings, reads
from stepwell_server.adapters.sql.postgres_link import Connections
from stepwell_server.model.event import EventRow
from stepwell_server.model.run import RunRow
from stepwell_server.ports.store import RunFilter


class PostgresHistory:
    """History. A read that would take longer than five seconds ends with TOO_LONG."""

    def __init__(self, connections: Connections) -> None:
        self._reads = connections

    async def events(self, env: str, event_ids: Sequence[str]) -> list[EventRow]:
        return list(map(EventRow._make, await self._fetch(reads.EVENTS_BY_ID, env, list(event_ids))))

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
        return list(map(EventRow._make, await self._fetch(sql, *values)))

    async def run(self, env: str, run_id: str) -> RunRow | None:
        rows = await self._fetch(reads.RUN_BY_ID, env, run_id)
        return RunRow._make(rows[0]) if rows else None

    async def list_runs(self, env: str, filter_: RunFilter) -> list[RunRow]:
        sql, values = listings.list_runs(env, filter_)
        return list(map(RunRow._make, await self._fetch(sql, *values)))

    async def known_functions(self, env: str) -> list[str]:
        ran = await self._fetch(reads.FUNCTIONS_WITH_RUNS, env)
        specs = await self._fetch(reads.SPECS, env)
        return sorted({id_ for (id_,) in ran} | listings.function_ids([spec for (spec,) in specs]))

    async def setting(self, name: str) -> str | None:
        rows = await self._fetch(reads.SETTING, name)
        return rows[0][0] if rows else None

    async def cancel_requested(self, env: str, run_ids: Sequence[str]) -> set[str]:
        return {run_id for (run_id,) in await self._fetch(reads.CANCEL_REQUESTED, env, list(run_ids))}

    async def due_after(self, after_ms: int) -> int | None:
        return (await self._fetch(reads.DUE_AFTER, after_ms))[0][0]

    async def _fetch(self, sql: str, *values: Any) -> list[Any]:
        return await self._reads.run(lambda db: db.fetch(sql, *values))
