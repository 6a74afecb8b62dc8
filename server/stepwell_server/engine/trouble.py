"""Runs that came to grief, gathered by function and error: what a queue of dead letters would show."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from stepwell_server.engine.fingerprints import Fingerprint, fingerprint
from stepwell_server.engine.ingest import check_text
from stepwell_server.engine.listing import INDEXED_TROUBLE, check_page
from stepwell_server.engine.node import Node
from stepwell_server.engine.scan import Row, Scan
from stepwell_server.model import ids
from stepwell_server.model.errors import InvalidError, NotFoundError
from stepwell_server.model.limits import LIMITS
from stepwell_server.model.run import RunRow, RunStatus
from stepwell_server.ports.store import RunFilter

DEFAULT_STATUSES = frozenset({RunStatus.FAILED, RunStatus.TIMED_OUT})
STATUSES = INDEXED_TROUBLE | {RunStatus.SKIPPED}
_FUNCTIONS_MOST = 100
_ROW_BYTES = 512


class FailureFilter(NamedTuple):
    """All must fit; empty or None fits always. Times are those of the end; a paused run fits any from_ms."""

    function_ids: frozenset[str] = frozenset()
    app: str = ""
    statuses: frozenset[RunStatus] = DEFAULT_STATUSES
    from_ms: int | None = None
    until_ms: int | None = None
    before: str = ""
    limit: int = 200

    def fits(self, row: RunRow) -> bool:
        """Whether a run fits."""
        return (
            row.status in self.statuses
            and (not self.function_ids or row.function_id in self.function_ids)
            and self.app in ("", row.app)
            and (self.from_ms is None or row.ended_ms is None or row.ended_ms >= self.from_ms)
            and (self.until_ms is None or seen_ms(row) < self.until_ms)
        )


@dataclass(slots=True)
class Group:
    """Runs of one function that failed in the same way. run_id: the one seen last."""

    function_id: str
    error: Fingerprint
    first_ms: int
    last_ms: int
    run_id: str
    count: int = 0
    statuses: set[int] = field(default_factory=set[int])


Groups = dict[tuple[str, str], Group]


class FailurePage(NamedTuple):
    """The groups among the runs looked at, the one seen last first; the token of the next page (empty at the end)."""

    groups: list[Group]
    token: str
    scanned: int


async def list_failures(node: Node, env: str, filter_: FailureFilter) -> FailurePage:
    """A page of failures. Raises InvalidError for what cannot be a filter, NotFoundError for an unknown function."""
    await _check(node, env, filter_)
    indexed = filter_.statuses <= INDEXED_TROUBLE
    statuses = tuple(sorted(int(status) for status in filter_.statuses)) if indexed else ()

    async def read(before: str, limit: int) -> list[Row[RunRow]]:
        rows = await node.history.list_runs(env, RunFilter(statuses=statuses, before=before, limit=limit))
        return [Row(row.id, len(row.failure or b"") + _ROW_BYTES, row) for row in rows]

    scan = Scan(node.clock, read, filter_.before)
    groups: Groups = {}
    async for row in scan:
        if filter_.fits(row):
            fold(groups, row)
            if len(groups) == filter_.limit:
                break
    return FailurePage(in_order(groups), scan.token, scan.scanned)


def fold(groups: Groups, row: RunRow) -> None:
    """Adds a run to its group."""
    failure: dict[str, Any] = orjson.loads(row.failure) if row.failure else {}
    error = fingerprint(failure)
    at_ms = seen_ms(row)
    group = groups.get((row.function_id, error.digest))
    if group is None:
        group = groups[row.function_id, error.digest] = Group(row.function_id, error, at_ms, at_ms, row.id)
    if at_ms > group.last_ms:
        group.last_ms, group.run_id, group.error = at_ms, row.id, error
    group.first_ms = min(group.first_ms, at_ms)
    group.count += 1
    group.statuses.add(row.status)


def in_order(groups: Groups) -> list[Group]:
    """The one seen last first."""
    return sorted(groups.values(), key=lambda group: (-group.last_ms, group.function_id, group.error.digest))


def seen_ms(row: RunRow) -> int:
    """When a run ended; of one that has not, when it was created."""
    return row.created_ms if row.ended_ms is None else row.ended_ms


async def _check(node: Node, env: str, filter_: FailureFilter) -> None:
    check_page(filter_.limit, filter_.before, ids.RUN_PREFIX)
    check_text(filter_.app, "app", LIMITS.name_bytes, empty=True)
    if odd := sorted(filter_.statuses - STATUSES):
        message = f"statuses: a run that is {odd[0].name} has not failed"
        raise InvalidError("BAD_STATUS", message, fields=(("statuses", "not one of trouble"),))
    if filter_.from_ms is not None and filter_.until_ms is not None and filter_.from_ms >= filter_.until_ms:
        message = "from_ms is not before until_ms: no time is between them"
        raise InvalidError("BAD_RANGE", message, fields=(("until_ms", "not after from_ms"),))
    if len(filter_.function_ids) > _FUNCTIONS_MOST:
        message = f"function_ids has more than {_FUNCTIONS_MOST}"
        raise InvalidError("TOO_LARGE", message, fields=(("function_ids", "too many"),))
    for function_id in filter_.function_ids:
        check_text(function_id, "function_ids", 2 * LIMITS.name_bytes)
    if filter_.function_ids:
        unknown = filter_.function_ids - set(await node.history.known_functions(env))
        if unknown:
            raise NotFoundError("FUNCTION_NOT_FOUND", f"there is no function {min(unknown)!r}")
