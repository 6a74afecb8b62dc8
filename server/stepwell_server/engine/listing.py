"""Listings of events and runs: by an index where one serves, else by a bounded look through what is there."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Generic, NamedTuple, TypeVar

import orjson

from stepwell_server.engine import expressions
from stepwell_server.engine.ingest import check_text
from stepwell_server.engine.matching import event_value
from stepwell_server.engine.node import Node
from stepwell_server.engine.scan import Row, Scan
from stepwell_server.model import ids
from stepwell_server.model.errors import InvalidError
from stepwell_server.model.event import INVOKED, EventRow
from stepwell_server.model.limits import LIMITS
from stepwell_server.model.run import RunRow, RunStatus
from stepwell_server.ports.store import RunFilter

T = TypeVar("T")

_ID = re.compile(r"[0-9a-f]{32}\Z", re.ASCII)
_PAGE_BYTES = LIMITS.send_bytes // 2
_ROW_BYTES = 512
_PARTS = 3
"""Strokes in the name of a limit."""
_TIME_MOST = 16**12 - 1
_AHEAD_MS = 60_000
"""An id is at most so far ahead of the time at which its event was accepted."""
INDEXED_TROUBLE = frozenset({RunStatus.PAUSED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.TIMED_OUT})
"""The statuses that have an index of their own."""
_TROUBLE = tuple(sorted(int(status) for status in INDEXED_TROUBLE))


class Page(NamedTuple, Generic[T]):
    """Some rows, the token of the next page (empty at the end), and what was done for them (see the proto)."""

    rows: list[T]
    token: str
    scanned: int = 0
    unjudged: int = 0


class EventFilter(NamedTuple):
    """All must fit; empty or None fits always. behind: only ids behind this one (the page token)."""

    name: str = ""
    from_ms: int | None = None
    until_ms: int | None = None
    condition: str = ""
    behind: str = ""
    limit: int = 50
    oldest_first: bool = False


async def list_events(node: Node, env: str, filter_: EventFilter) -> Page[EventRow]:
    """A page of events.

    Raises InvalidError for a bad page size or token, text that no name can hold, or what is no condition.
    """
    check_page(filter_.limit, filter_.behind, ids.EVENT_PREFIX)
    check_event_pattern(filter_.name)
    condition = filter_.condition
    if condition:
        expressions.check_trigger(condition, "condition")
    # An index serves a whole name. That of the ids serves the time: an event's id is made when it is accepted, or it
    # carries the time of the one before.
    name, prefix = filter_.name, ""
    if name.endswith("*"):
        name, prefix = "", name[:-1]

    async def read(behind: str, limit: int) -> list[Row[EventRow]]:
        order = filter_.oldest_first
        rows = await node.history.list_events(env, name, None, None, behind, limit, oldest_first=order)
        return [Row(row.id, len(row.data) + len(row.metadata) + _ROW_BYTES, row) for row in rows]

    judged = bool(condition or prefix)
    scan = Scan(node.clock, read, _start(filter_), **({} if judged else {"most": filter_.limit}))
    found: list[EventRow] = []
    size = unjudged = 0
    async for row in scan:
        if _beyond(filter_, ids.time_of(row.id)):
            scan.token = ""
            break
        if not _in_time(filter_, row.accepted_ms) or not row.name.startswith(prefix):
            continue
        try:
            if condition and not expressions.trigger_fits(condition, event_value(row)):
                continue
        except expressions.UnjudgedError:
            unjudged += 1
            continue
        found.append(row)
        size += len(row.data)
        if len(found) == filter_.limit or size >= _PAGE_BYTES:
            break
    return Page(found, scan.token, scan.scanned, unjudged)


def _start(filter_: EventFilter) -> str:
    """Where to begin: behind the page before, and not before the time."""
    if filter_.oldest_first:
        return max(_id_at(filter_.from_ms or 0), filter_.behind)
    if filter_.until_ms is None:
        return filter_.behind
    end = _id_at(filter_.until_ms + _AHEAD_MS)
    return min(end, filter_.behind) if filter_.behind else end


def _id_at(ms: int) -> str:
    return f"{ids.EVENT_PREFIX}{ids.time_part(max(0, min(ms, _TIME_MOST)))}"


def _beyond(filter_: EventFilter, id_ms: int) -> bool:
    """Whether all further events are out of the time."""
    if filter_.oldest_first:
        return filter_.until_ms is not None and id_ms >= filter_.until_ms + _AHEAD_MS
    return filter_.from_ms is not None and id_ms < filter_.from_ms


def _in_time(filter_: EventFilter, at_ms: int) -> bool:
    return (filter_.from_ms is None or at_ms >= filter_.from_ms) and (
        filter_.until_ms is None or at_ms < filter_.until_ms
    )


async def list_runs(
    node: Node, env: str, filter_: RunFilter, condition: str = "", error_type: str = ""
) -> tuple[Page[RunRow], set[str]]:
    """A page of runs, newest first, and the ids of those whose end was asked for.

    Raises InvalidError for a bad page size or token, text that no field can hold, or what is no condition.
    """
    check_page(filter_.limit, filter_.before, ids.RUN_PREFIX)
    for field, text in (
        ("function_id", filter_.function_id),
        ("app", filter_.app),
        ("event_id", filter_.event_id),
        ("parent_run_id", filter_.parent_id),
        ("error_type", error_type),
    ):
        check_text(text, field, 2 * LIMITS.name_bytes, empty=True)
    if condition:
        expressions.check_run(condition, "condition")
    if condition or error_type:
        page = await _judged(node, env, filter_, condition, error_type)
    else:
        rows = await node.history.list_runs(env, filter_)
        page = Page(rows, rows[-1].id if len(rows) == filter_.limit else "")
    found = [row.id for row in page.rows]
    return page, await node.history.cancel_requested(env, found) if found else set()


async def _judged(node: Node, env: str, filter_: RunFilter, condition: str, error_type: str) -> Page[RunRow]:
    asks_event = re.search(r"\bevent\b", condition) is not None
    payloads = asks_event or re.search(r"\boutput\b", condition) is not None
    if error_type and not filter_.statuses:
        filter_ = replace(filter_, statuses=_TROUBLE)
    driven = driving(filter_)

    async def read(before: str, limit: int) -> list[Row[tuple[RunRow, EventRow | None]]]:
        rows = await node.history.list_runs(env, replace(driven, before=before, limit=limit, payloads=payloads))
        wanted = {row.event_id for row in rows if row.event_id and filter_.fits(row)} if asks_event else ()
        events = {event.id: event for event in await node.history.events(env, sorted(wanted))} if wanted else {}
        paired = [(row, events.get(row.event_id or "")) for row in rows]
        return [Row(row.id, _size(row, event), (row, event)) for row, event in paired]

    scan = Scan(node.clock, read, filter_.before)
    found: list[RunRow] = []
    unjudged = 0
    async for row, event in scan:
        if not filter_.fits(row) or (error_type and not _has_type(row.failure, error_type)):
            continue
        try:
            if condition and not expressions.run_fits(condition, _facts(row, event)):
                continue
        except expressions.UnjudgedError:
            unjudged += 1
            continue
        found.append(row._replace(input=None, output=None))
        if len(found) == filter_.limit:
            break
    return Page(found, scan.token, scan.scanned, unjudged)


def driving(filter_: RunFilter) -> RunFilter:
    """The one part of a filter whose index a bounded look goes along; the rest is judged row by row.

    With two, the store could look through everything to find the few that fit both.
    """
    if filter_.event_id:
        return RunFilter(event_id=filter_.event_id)
    if filter_.parent_id:
        return RunFilter(parent_id=filter_.parent_id)
    if filter_.statuses and set(filter_.statuses) <= INDEXED_TROUBLE:
        return RunFilter(statuses=filter_.statuses)
    if filter_.function_id:
        return RunFilter(function_id=filter_.function_id)
    return RunFilter()


def _size(row: RunRow, event: EventRow | None) -> int:
    own = len(row.input or b"") + len(row.output or b"") + len(row.failure or b"") + _ROW_BYTES
    return own + (len(event.data) if event is not None else 0)


def _facts(row: RunRow, event: EventRow | None) -> dict[str, Any]:
    """A run as conditions see it."""
    failure: dict[str, Any] = orjson.loads(row.failure) if row.failure else {}
    error = {key: failure.get(key, "") for key in ("type", "message", "reason")} if failure else None
    metadata = orjson.loads(row.metadata) if row.metadata else {}
    run = {
        "id": row.id,
        "function_id": row.function_id,
        "app": row.app,
        "status": RunStatus(row.status).name,
        "created_ms": row.created_ms,
        "started_ms": row.started_ms,
        "ended_ms": row.ended_ms,
        "turn": row.turn,
        "deployment": row.deployment,
        "event_id": row.event_id or "",
        "parent_run_id": row.parent_id or "",
        "error": error,
        "metadata": metadata,
    }
    if event is not None:
        cause = event_value(event)
    else:
        data = _json(row.input, row.input_encoding)
        cause = {"id": row.id, "name": INVOKED, "data": data, "time_ms": row.created_ms, "metadata": metadata}
    return {"run": run, "output": _json(row.output, row.output_encoding), "event": cause}


def _json(data: bytes | None, encoding: str) -> Any:
    if not data or encoding not in ("", "json"):
        return None
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def _has_type(failure: bytes | None, wanted: str) -> bool:
    told: Any = orjson.loads(failure) if failure else None
    while isinstance(told, dict):
        if told.get("type") == wanted:
            return True
        told = told.get("cause")
    return False


def check_event_pattern(name: str) -> None:
    """Raises InvalidError unless this may be the name of events, a prefix of names and `*`, or empty for all."""
    check_text(name, "name", LIMITS.name_bytes + 1, empty=True)
    if "*" in name.removesuffix("*"):
        message = f"{name!r} is not an event name, or a prefix and '*'"
        raise InvalidError("BAD_NAME", message, fields=(("name", "a wildcard is allowed only at the end"),))


def check_limits_page(size: int, after: str, function_id: str, app: str) -> None:
    """Raises InvalidError for a bad page size or token of a list of limits, or text that no name can hold."""
    check_text(function_id, "function_id", 2 * LIMITS.name_bytes, empty=True)
    check_text(app, "app", LIMITS.name_bytes, empty=True)
    check_page(size, "", "")
    if after and after.count("|") < _PARTS:
        raise InvalidError("BAD_PAGE_TOKEN", "page_token is not one of ours", fields=(("page_token", "unknown"),))


def check_page(limit: int, before: str, prefix: str) -> None:
    """Raises InvalidError unless a page may have this size and token."""
    if not 1 <= limit <= LIMITS.page_size:
        raise InvalidError(
            "BAD_PAGE_SIZE", f"page_size is not 1 to {LIMITS.page_size}", fields=(("page_size", "out of range"),)
        )
    if before and not (before.startswith(prefix) and _ID.match(before, len(prefix))):
        raise InvalidError("BAD_PAGE_TOKEN", "page_token is not one of ours", fields=(("page_token", "unknown"),))
