"""Takes events in: validated, stored, their runs started; afterwards their waits are served (H17, H21, H22)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from stepwell_server.engine import admission, fence, patience, schemas, serve
from stepwell_server.engine.node import Environment, Node
from stepwell_server.engine.register import refresh
from stepwell_server.model import ids
from stepwell_server.model.commit import Commit, CommitResult, Verdict
from stepwell_server.model.errors import ExistsError, InvalidError
from stepwell_server.model.event import RESERVED_PREFIX, CursorRow, DedupRow, EventRow
from stepwell_server.model.function import FunctionSpec
from stepwell_server.model.limits import LIMITS

_TRACE = frozenset({"traceparent", "tracestate"})
"""Keys of metadata in which a W3C trace context travels."""


class NewEvent(NamedTuple):
    """An event as sent. metadata: JSON object or empty."""

    name: str
    data: bytes
    encoding: str
    sender_id: str
    time_ms: int
    metadata: bytes


class Status(NamedTuple):
    """What became of an event: outcome "accepted", "duplicate" or "refused" with reason and message."""

    event_id: str
    outcome: str
    reason: str = ""
    message: str = ""


def check_text(text: str, field: str, most: int, *, empty: bool = False) -> None:
    """Raises InvalidError unless the text is short enough and has no control characters."""
    if not text and not empty:
        raise InvalidError("MISSING_FIELD", f"{field} is empty", fields=((field, "empty"),))
    if len(text) * 4 > most and len(text.encode("utf-8", "surrogatepass")) > most:
        raise InvalidError("TOO_LARGE", f"{field} is longer than {most} bytes", fields=((field, "too long"),))
    if not text.isprintable() and any(ord(letter) < 32 or 0xD800 <= ord(letter) < 0xE000 for letter in text):
        raise InvalidError("BAD_TEXT", f"{field} holds a control character", fields=((field, "control character"),))


def check_event(event: NewEvent, *, internal: bool = False) -> None:
    """Raises InvalidError where an event can never be accepted; says the limit."""
    check_text(event.name, "name", LIMITS.name_bytes)
    if not internal and event.name.startswith(RESERVED_PREFIX):
        raise InvalidError(
            "RESERVED_NAME", f"names that begin with {RESERVED_PREFIX} are the server's", fields=(("name", "reserved"),)
        )
    if "*" in event.name:
        raise InvalidError("BAD_NAME", "an event's name cannot hold a *", fields=(("name", "wildcard"),))
    check_text(event.sender_id, "id", LIMITS.key_bytes, empty=True)
    if len(event.data) > LIMITS.event_bytes:
        raise InvalidError(
            "TOO_LARGE",
            f"data has {len(event.data)} bytes, more than {LIMITS.event_bytes}",
            fields=(("data", "too large"),),
        )
    if len(event.metadata) > LIMITS.metadata_bytes:
        raise InvalidError(
            "TOO_LARGE", f"metadata is larger than {LIMITS.metadata_bytes} bytes", fields=(("metadata", "too large"),)
        )
    if not 0 <= event.time_ms < 2**53:
        raise InvalidError("BAD_TIME", "time_ms is not a time", fields=(("time_ms", "out of range"),))


def check_depth(data: bytes, value: Any, field: str) -> None:
    """Raises InvalidError where JSON is nested too deep: what reads it must be able to write it again."""
    if data.count(b"[") + data.count(b"{") <= LIMITS.json_depth:
        return
    level: list[Any] = [value]
    for _ in range(LIMITS.json_depth + 1):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        level = [item for item in inner if isinstance(item, (dict, list))]
        if not level:
            return
    raise InvalidError(
        "BAD_JSON", f"{field} is nested deeper than {LIMITS.json_depth} levels", fields=((field, "too deep"),)
    )


def decoded(event: NewEvent) -> Any:
    """The event's data; raises InvalidError unless it is a JSON object (other encodings are not opened)."""
    if event.encoding not in ("", "json"):
        check_text(event.encoding, "data.encoding", 64)
        return None
    if not event.data:
        return {}
    try:
        data = orjson.loads(event.data)
    except orjson.JSONDecodeError as error:
        raise InvalidError("BAD_JSON", f"data is not JSON: {error}", fields=(("data", str(error)),)) from error
    if not isinstance(data, dict):
        raise InvalidError("BAD_JSON", "data is not a JSON object", fields=(("data", "not an object"),))
    check_depth(event.data, data, "data")
    return data


def check_json(data: bytes, encoding: str, field: str) -> Any:
    """What the bytes hold; raises InvalidError where they call themselves JSON and are not. None of other encodings."""
    if not data or encoding not in ("", "json"):
        return None
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidError("BAD_JSON", f"{field} is not JSON: {error}", fields=((field, str(error)),)) from error
    check_depth(data, value, field)
    return value


def check_input(function: FunctionSpec, data: bytes, encoding: str) -> None:
    """Raises InvalidError where the input of an invoke is not JSON, or not what the function takes. No data is null."""
    value = check_json(data, encoding, "input")
    if function.input_schema and encoding in ("", "json"):
        schema = schemas.of(function.input_schema)
        misfit = schema.misfit(value, len(data)) if schema is not None else None
        if misfit is not None:
            raise misfit.refusal("INPUT_MISMATCH", "input", f"what function {function.id} takes")


def input_error(function: FunctionSpec, data: bytes, encoding: str) -> InvalidError | None:
    """What check_input raises."""
    try:
        check_input(function, data, encoding)
    except InvalidError as error:
        return error
    return None


def digest_in(digest: blake2b, name: bytes, data: bytes, encoding: str, metadata: bytes) -> None:
    """Adds what two requests of one id must have in common, each part with its length."""
    if b'"trace' in metadata:
        # Where a request comes from in a trace is not part of what it asks: it may be sent again from another place.
        kept = {key: value for key, value in orjson.loads(metadata).items() if key not in _TRACE}
        metadata = orjson.dumps(kept, option=orjson.OPT_SORT_KEYS) if kept else b""
    for part in (name, data, b"" if encoding == "json" else encoding.encode(), metadata):
        digest.update(b"%d:" % len(part))
        digest.update(part)


async def send_events(node: Node, env_name: str, request_id: str, events: Sequence[NewEvent]) -> list[Status]:
    """Accepts a batch; answers once every accepted event is durable.

    Raises InvalidError for the batch as a whole (size, request id), ExistsError where the request id was used for
    other events, UnavailableError where the store does not answer in time: the same request id is then safe.
    """
    node.check_accepting()
    if len(events) > LIMITS.send_events:
        raise InvalidError(
            "TOO_MANY", f"{len(events)} events, more than {LIMITS.send_events}", fields=(("events", "too many"),)
        )
    size = sum(len(event.data) for event in events)
    if size > LIMITS.send_bytes:
        raise InvalidError(
            "TOO_LARGE",
            f"the events have {size} bytes, more than {LIMITS.send_bytes}",
            fields=(("events", "too large"),),
        )
    check_text(request_id, "request_id", LIMITS.key_bytes, empty=True)
    env = node.environment(env_name)
    if not env.loaded:
        await refresh(node, env)
    now = node.clock.now_ms()
    statuses: list[Status] = []
    plain: list[tuple[EventRow, Any]] = []
    plain_at: list[tuple[int, str]] = []  # with the event's id, empty where its data does not fit
    single: list[tuple[int, EventRow, Any]] = []
    digest = blake2b(digest_size=8)
    for index, event in enumerate(events):
        try:
            check_event(event)
            data = decoded(event)
        except InvalidError as error:
            statuses.append(Status("", "refused", error.reason, error.message))
            continue
        row = _row(node, env_name, event, now)
        misfit = env.triggers.misfit(row, data) if env.triggers.judges else None
        statuses.append(
            Status(row.id, "accepted") if misfit is None else Status("", "refused", misfit.reason, misfit.message)
        )
        if not event.sender_id:
            plain_at.append((index, "" if misfit is not None else row.id))
            if request_id:
                digest_in(digest, event.name.encode(), event.data, event.encoding, event.metadata)
        if misfit is None:
            if event.sender_id:
                single.append((index, row, data))
            else:
                plain.append((row, data))
    work: list[asyncio.Future[CommitResult]] = []
    if plain:
        decider = None
        if request_id:
            value = digest.hexdigest() + ":" + ",".join(event_id for _, event_id in plain_at)
            decider = DedupRow(env_name, "r:" + request_id, value, now + LIMITS.dedup_ms)
        work.append(accept(node, env, plain, decider))
    for _, row, data in single:
        key = DedupRow(env_name, "e:" + row.sender_id, row.id, now + LIMITS.dedup_ms)
        work.append(accept(node, env, [(row, data)], key))
    if not work:
        return statuses
    results = await _settled(node, work)
    if plain:
        _plain_statuses(results.pop(0), digest.hexdigest(), plain_at, statuses)
    for (index, _, _), result in zip(single, results, strict=True):
        if result.verdict is Verdict.LOST:
            statuses[index] = Status(result.existing, "duplicate")
        elif result.verdict is Verdict.REFUSED:
            statuses[index] = Status("", "refused", "STORE_REFUSED", result.existing)
    return statuses


async def _settled(node: Node, work: list[asyncio.Future[CommitResult]]) -> list[CommitResult]:
    try:
        # Giving up on a future takes nothing back: its commit goes on.
        async with asyncio.timeout(patience.PATIENCE_S):
            results = [await future for future in work]
    except TimeoutError as error:
        raise patience.over(node) from error
    if any(result.verdict is Verdict.FENCED for result in results):
        raise fence.taken_over()
    return results


def _plain_statuses(result: CommitResult, digest: str, at: list[tuple[int, str]], statuses: list[Status]) -> None:
    if result.verdict is Verdict.LOST:
        theirs, _, existing = result.existing.partition(":")
        if theirs != digest:
            raise ExistsError("REQUEST_ID_REUSED", "this request id was used for other events")
        # The request is answered as the first time, also where the schemas have changed since.
        for (index, _), event_id in zip(at, existing.split(","), strict=True):
            if event_id:
                statuses[index] = Status(event_id, "duplicate")
            elif statuses[index].outcome == "accepted":
                statuses[index] = Status("", "refused", "EVENT_MISMATCH", "data did not fit when this was first sent")
    elif result.verdict is Verdict.REFUSED:
        for index, event_id in at:
            if event_id:
                statuses[index] = Status("", "refused", "STORE_REFUSED", result.existing)


def _row(node: Node, env: str, event: NewEvent, now: int) -> EventRow:
    return EventRow(
        env,
        node.event_id(now),
        event.name,
        event.data,
        event.encoding,
        event.sender_id,
        event.time_ms or now,
        now,
        event.metadata,
    )


def accept(
    node: Node, env: Environment, events: list[tuple[EventRow, Any]], decider: DedupRow | None
) -> asyncio.Future[CommitResult]:
    """Submits events with the runs they start; the future has the result once it is durable."""
    future: asyncio.Future[CommitResult] = node.loop.create_future()
    commit, starts, batch = accepting(node, env, events, decider)
    admission.submit(node, commit, starts, _accepted, (node, commit, starts, batch, future))
    return future


def accepting(
    node: Node, env: Environment, events: list[tuple[EventRow, Any]], decider: DedupRow | None, *, at_once: bool = True
) -> tuple[Commit, list[admission.Start], serve.Accepted]:
    """The commit of a batch of events, the runs in it, and those that follow it: too many, or with a gate to pass.

    at_once: see admission.begin().
    """
    now = events[0][0].accepted_ms
    starts: list[admission.Start] = []
    rest: list[tuple[FunctionSpec, EventRow]] = []
    size = 0
    for row, data in events:
        size += len(row.data)
        env.last_event[row.name] = max(env.last_event.get(row.name, ""), row.id)
        for function in env.triggers.fitting(row, data):
            if len(starts) < serve.RUNS_AT_ONCE and (function.flow is None or not function.flow.gated):
                run_id = ids.run_id_for_event(env.name, row.id, function.id)
                starts.append(admission.start(node, env, function, run_id, row, now, at_once=at_once))
            else:
                rest.append((function, row))
    rows = [row for row, _ in events]
    cursors: tuple[CursorRow, ...] = ()
    names = {row.name for row in rows}
    if rest or node.alone_since_ms is None or not env.shapes.keys().isdisjoint(names):
        cursors = (CursorRow(env.name, rows[0].id, ",".join(row.id for row in rows)),)
    else:
        # Nobody waits for such an event, and nobody else registers anything. A wait that opens meanwhile looks back
        # once these are durable (engine/lookback.py).
        for name in names:
            env.unmarked[name] = env.unmarked.get(name, 0) + 1
    deletes, node.cursor_deletes = node.cursor_deletes, []
    marks, node.looked_back = node.looked_back, []
    commit = Commit(
        env.name,
        touches=tuple(f"{mark.run_id}/{mark.key}" for mark in marks) if decider is None else (f"dedup:{decider.key}",),
        decider=decider,
        events=rows,
        cursors=cursors,
        runs=[item.run for item in starts],
        cursor_deletes=deletes if decider is None else (),
        looked_back=marks if decider is None else (),
        size=size,
    )
    waits = admission.opened(starts)
    if waits:
        commit.waits = waits
    if decider is not None:
        # What rides along must not depend on the decider.
        node.cursor_deletes = deletes
        node.looked_back = marks
    return commit, starts, serve.Accepted(env, events, cursors[0] if cursors else None, rest, env.triggers)


def settled(node: Node, env: Environment, commit: Commit, applied: bool) -> None:
    """A batch of events is durable, or refused: look-backs need not wait for it any more. What rode along and was
    refused with it goes another time."""
    if not applied and (commit.cursor_deletes or commit.looked_back):
        node.cursor_deletes.extend(commit.cursor_deletes)
        node.looked_back.extend(commit.looked_back)
        serve.tidy_soon(node)
    if commit.events and not commit.cursors:
        for name in {row.name for row in commit.events}:
            left = env.unmarked[name] - 1
            if left:
                env.unmarked[name] = left
            else:
                del env.unmarked[name]


def _accepted(result: CommitResult, argument: tuple[Any, ...]) -> None:
    node, commit, starts, batch, future = argument
    applied = result.verdict is Verdict.APPLIED
    settled(node, batch.env, commit, applied)
    if not future.done():
        future.set_result(result)
    admission.started(node, starts, applied)
    if applied:
        serve.accepted(node, batch)
        for watcher in tuple(node.event_watchers):
            for row, _ in batch.events:
                watcher(row)
