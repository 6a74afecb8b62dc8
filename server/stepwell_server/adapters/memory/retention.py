"""Retention over the dictionaries."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from stepwell_server.adapters.memory.tables import Tables, discard
from stepwell_server.ports.retention import Expiry, Oldest, Page


class MemoryRetention:
    """See ports/retention.py."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def oldest(self, env: str) -> Oldest:
        cursors = [id_ for of, id_ in self._tables.cursor if of == env]
        runs = self._tables.run_ids.get(env, [])
        return Oldest(min(cursors, default=""), runs[0] if runs else "")

    async def forget_runs(self, env: str, after: str, before: str, expiries: Sequence[Expiry], limit: int) -> Page:
        page = _between(self._tables.run_ids.get(env, []), after, before, limit)
        until = dict(expiries)
        rows = [self._tables.run[env, id_] for id_ in page]
        gone = [row for row in rows if row.ended_ms is not None and row.ended_ms < until.get(row.status, 0)]
        for row in gone:
            self._tables.forget_run(env, row.id)
        return Page(page[-1] if len(page) == limit else "", len(gone))

    async def forget_events(self, env: str, after: str, before: str, limit: int) -> Page:
        tables = self._tables
        page = _between(tables.event_ids.get(env, []), after, before, limit)
        members = {event_id for of, event_id, _ in tables.member if of == env}
        gone = [id_ for id_ in page if id_ not in members]
        for id_ in gone:
            row = tables.event.pop((env, id_))
            discard(tables.event_ids[env], id_)
            discard(tables.event_ids_by_name[env, row.name], id_)
        return Page(page[-1] if len(page) == limit else "", len(gone))


def _between(ids: list[str], after: str, before: str, limit: int) -> list[str]:
    return ids[bisect_right(ids, after) : bisect_left(ids, before)][:limit]
