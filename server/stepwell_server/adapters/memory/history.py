"""Reads for people, over the tables in memory."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

from stepwell_server.adapters.memory.tables import Tables
from stepwell_server.model.event import EventRow
from stepwell_server.model.journal import CANCEL_KEY, StepKind
from stepwell_server.model.limits import DAY_MS
from stepwell_server.model.run import RunRow
from stepwell_server.model.session import NODE_LEASE
from stepwell_server.ports.store import RunFilter


class MemoryHistory:
    """History over Tables."""

    tables: Tables

    async def events(self, env: str, event_ids: Sequence[str]) -> list[EventRow]:
        found = self.tables.event
        return [found[env, id_] for id_ in sorted(set(event_ids)) if (env, id_) in found]

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
        listed: list[EventRow] = []
        for id_ in _in_order(self.tables.event_ids.get(env, []), behind, oldest_first):
            if len(listed) >= limit:
                break
            row = self.tables.event[env, id_]
            if _name_fits(name, row.name) and _in_time(row.accepted_ms, from_ms, until_ms):
                listed.append(row)
        return listed

    async def run(self, env: str, run_id: str) -> RunRow | None:
        return self.tables.run.get((env, run_id))

    async def list_runs(self, env: str, filter_: RunFilter) -> list[RunRow]:
        listed: list[RunRow] = []
        for id_ in _newest_first(self.tables.run_ids.get(env, []), filter_.before):
            if len(listed) >= filter_.limit:
                break
            row = self.tables.run[env, id_]
            if filter_.fits(row):
                listed.append(row if filter_.payloads else row._replace(input=None, output=None))
        return listed

    async def known_functions(self, env: str) -> list[str]:
        known = {self.tables.run[env, id_].function_id for id_ in self.tables.run_ids.get(env, [])}
        for row in self.tables.deployment.values():
            if row.env == env:
                known.update(_function_ids(row.spec))
        return sorted(known)

    async def setting(self, name: str) -> str | None:
        return self.tables.setting.get(name)

    async def cancel_requested(self, env: str, run_ids: Sequence[str]) -> set[str]:
        found = {run_id: self.tables.outcome.get((env, run_id), {}).get(CANCEL_KEY) for run_id in run_ids}
        return {run_id for run_id, row in found.items() if row is not None and row.kind == StepKind.CANCEL}

    async def due_after(self, after_ms: int) -> int | None:
        due = self.tables.due
        at = bisect_left(due, (after_ms + 1, "", "", ""))
        return due[at][0] if at < len(due) else None

    async def purge(self, now_ms: int, limit: int) -> int:
        tables = self.tables
        expired = [at for at, row in tables.dedup.items() if row.expires_ms <= now_ms][:limit]
        for at in expired:
            del tables.dedup[at]
        over = [at for at, row in tables.claim.items() if row.until_ms <= now_ms][: limit - len(expired)]
        for at in over:
            del tables.claim[at]
        closed = [
            at for at, row in tables.session.items() if row.closed_ms is not None and row.closed_ms <= now_ms - DAY_MS
        ][: limit - len(expired) - len(over)]
        for at in closed:
            del tables.session[at]
        left = [name for name, row in tables.lease.items() if name.startswith(NODE_LEASE) and not row.holder]
        for name in left:
            del tables.lease[name]
        return len(expired) + len(over) + len(closed) + len(left)


def _newest_first(ids: list[str], before: str) -> Iterator[str]:
    end = bisect_left(ids, before) if before else len(ids)
    return (ids[at] for at in range(end - 1, -1, -1))


def _in_order(ids: list[str], behind: str, oldest_first: bool) -> Iterator[str]:
    if not oldest_first:
        return _newest_first(ids, behind)
    return (ids[at] for at in range(bisect_right(ids, behind), len(ids)))


def _name_fits(wanted: str, name: str) -> bool:
    if wanted.endswith("*"):
        return name.startswith(wanted[:-1])
    return wanted in ("", name)


def _in_time(at_ms: int, from_ms: int | None, until_ms: int | None) -> bool:
    return (from_ms is None or at_ms >= from_ms) and (until_ms is None or at_ms < until_ms)


def _function_ids(spec: bytes) -> Iterator[str]:
    """Function ids in a deployment's spec: a JSON list of objects with an "id"."""
    for function in json.loads(spec or b"[]"):
        yield function["id"]
