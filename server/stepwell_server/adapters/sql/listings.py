"""SELECT texts of listings, built from their filters; every one reads an index from its newest end."""

from __future__ import annotations

import json

from stepwell_server.adapters.sql.reads import EVENT, RUN, hinted
from stepwell_server.model.run import RunRow, RunStatus
from stepwell_server.ports.store import RunFilter

Query = tuple[str, list[str | int]]

_TROUBLE = (RunStatus.PAUSED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.TIMED_OUT)
_LISTED = ", ".join("NULL" if field in ("input", "output") else field for field in RunRow._fields)


def list_runs(env: str, filter_: RunFilter) -> Query:
    """Runs newest first."""
    where = _Where(env)
    if filter_.function_id:
        where.by_function()
        where.add("function_id = {}", filter_.function_id)
    if filter_.app:
        where.add("app = {}", filter_.app)
    if filter_.parent_id:
        # Said twice so that both databases see that the partial index serves.
        where.add("parent_id IS NOT NULL AND parent_id = {}", filter_.parent_id)
    if filter_.session_id:
        where.add("ended_ms IS NULL AND session_id IS NOT NULL AND session_id = {}", filter_.session_id)
    if filter_.begun:
        where.add("line <> '' AND started_ms IS NOT NULL AND ended_ms IS NULL")
    if filter_.event_id:
        # The ids of an event's runs carry its time (H21); a run invoked by hand for it need not.
        where.add("event_id = {}", filter_.event_id)
        prefix = f"run_{filter_.event_id[4:16]}"
        where.add_id(">=", prefix)
        where.add_id("<", prefix + "g")
    if filter_.statuses:
        wanted = ", ".join(str(int(status)) for status in sorted(set(filter_.statuses)))
        if set(filter_.statuses) <= set(_TROUBLE):
            where.add("status IN (4, 6, 7, 8)")
        where.add(f"status = {wanted}" if len(set(filter_.statuses)) == 1 else f"status IN ({wanted})")
    where.time("created_ms", filter_.from_ms, filter_.until_ms)
    if filter_.before:
        where.add_id("<", filter_.before)
    return where.query(f"SELECT {RUN if filter_.payloads else _LISTED} FROM {_runs(filter_)}", filter_.limit)


def _runs(filter_: RunFilter) -> str:
    if filter_.session_id:
        return hinted("runs", "runs_held")
    if filter_.begun and filter_.function_id:
        return hinted("runs", "runs_started")
    others = (filter_.function_id, filter_.event_id, filter_.parent_id)
    if filter_.statuses and set(filter_.statuses) <= set(_TROUBLE) and not any(others):
        return hinted("runs", "runs_trouble")
    return "runs"


def list_events(
    env: str, name: str, from_ms: int | None, until_ms: int | None, behind: str, limit: int, *, oldest_first: bool
) -> Query:
    """Events newest first, or oldest first."""
    where = _Where(env)
    if name.endswith("*"):
        prefix = name[:-1]
        if prefix:
            where.add(f"substr(name, 1, {len(prefix)}) = {{}}", prefix)
    elif name:
        where.add("name = {}", name)
    where.time("accepted_ms", from_ms, until_ms)
    if behind:
        where.add_id(">" if oldest_first else "<", behind)
    return where.query(f"SELECT {EVENT} FROM events", limit, "ASC" if oldest_first else "DESC")


def function_ids(specs: list[bytes]) -> set[str]:
    """Ids of the functions in deployments: each spec is a JSON list of objects with an "id"."""
    return {function["id"] for spec in specs for function in json.loads(spec or b"[]")}


class _Where:
    def __init__(self, env: str) -> None:
        self._terms = ["env = $1"]
        self._values: list[str | int] = [env]
        self._id = "id"

    def by_function(self) -> None:
        """Names the index by its collation: see _ordered_index in tables.py."""
        self._terms[0] = 'env COLLATE "POSIX" = $1'
        self._id = 'id COLLATE "POSIX"'

    def add_id(self, operator: str, id_: str) -> None:
        self.add(f"{self._id} {operator} {{}}", id_)

    def add(self, term: str, *values: str | int) -> None:
        numbers = range(len(self._values) + 1, len(self._values) + 1 + len(values))
        self._terms.append(term.format(*(f"${number}" for number in numbers)))
        self._values.extend(values)

    def time(self, column: str, from_ms: int | None, until_ms: int | None) -> None:
        if from_ms is not None:
            self.add(f"{column} >= {{}}", from_ms)
        if until_ms is not None:
            self.add(f"{column} < {{}}", until_ms)

    def query(self, select: str, limit: int, order: str = "DESC") -> Query:
        values = [*self._values, limit]
        return f"{select} WHERE {' AND '.join(self._terms)} ORDER BY {self._id} {order} LIMIT ${len(values)}", values
