"""What a step asks the server for: a time, an event, a child run, events sent. Each opens a wait, or is answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from stepwell_server.engine import admission, expressions, ingest, limits, matching, sending
from stepwell_server.engine.advance import Frame
from stepwell_server.engine.draft import Draft
from stepwell_server.engine.failures import failure_json
from stepwell_server.engine.residents import Resident
from stepwell_server.model import ids
from stepwell_server.model.errors import InvalidError
from stepwell_server.model.event import RESERVED_PREFIX, EventRow
from stepwell_server.model.function import ShapeRow
from stepwell_server.model.journal import OutcomeRow, StepKind, WaitRow
from stepwell_server.model.limits import LIMITS
from stepwell_server.model.run import RunRow, RunStatus


def sleep(frame: Frame, run_id: str, turn: int, key: str, duration_ms: int | None, until_ms: int) -> None:
    """A sleep begins."""
    draft = frame.draft(run_id, turn, key)
    if draft is None or not frame.key_ok(draft, key):
        return
    due = frame.now + duration_ms if duration_ms is not None else max(until_ms, 0)
    if due > frame.now + LIMITS.wait_ms:
        too_long = InvalidError("TOO_LONG", f"{key} sleeps longer than 366 days")
        _reject(frame, draft, key, StepKind.SLEEP, "", too_long)
        return
    resident = draft.resident
    open_wait(frame, draft, _row(frame, resident, key, StepKind.SLEEP, due=due))


def wait_for_event(
    frame: Frame,
    run_id: str,
    turn: int,
    key: str,
    event: str,
    match_path: str,
    match_value: bytes,
    condition: str,
    timeout_ms: int,
) -> None:
    """A wait for an event begins."""
    draft = frame.draft(run_id, turn, key)
    if draft is None or not frame.key_ok(draft, key):
        return
    try:
        ingest.check_text(event, "event", LIMITS.name_bytes)
        ingest.check_text(match_path, "match", LIMITS.name_bytes, empty=True)
        if event.startswith(RESERVED_PREFIX):
            raise InvalidError("RESERVED_NAME", f"events that begin with {RESERVED_PREFIX} reach no wait")
        if "*" in event:
            raise InvalidError("BAD_NAME", "a wait names one event, without wildcard")
        if condition:
            expressions.check_wait(condition, f"step {key}: if")
        value = orjson.loads(match_value) if match_path else None
        ingest.check_depth(match_value, value, "match")
        if timeout_ms > LIMITS.wait_ms:
            raise InvalidError("TOO_LONG", "the time-out is longer than 366 days")
    except (InvalidError, orjson.JSONDecodeError) as error:
        _reject(frame, draft, key, StepKind.EVENT, event, error)
        return
    resident = draft.resident
    if (event, match_path) not in frame.env.kept:
        shapes = frame.env.shapes
        shapes[event] = shapes.get(event, frozenset()) | {match_path}
        row = ShapeRow(resident.env, event, match_path)
        if row not in (draft.shapes or ()):
            draft.shapes = [*(draft.shapes or ()), row]
    began = resident.run.event_id or f"evt_{ids.time_part(resident.run.created_ms)}{'0' * 20}"
    open_wait(
        frame,
        draft,
        _row(
            frame,
            resident,
            key,
            StepKind.EVENT,
            target=event,
            match_key=matching.match_key(match_path, value) if match_path else "",
            condition=condition,
            due=frame.now + (timeout_ms or LIMITS.wait_ms),
            after_event=began,
        ),
    )


def invoke(
    frame: Frame,
    run_id: str,
    turn: int,
    key: str,
    function_id: str,
    data: bytes,
    encoding: str,
    timeout_ms: int,
    detached: bool,
    input_hash: bytes,
    metadata: bytes = b"",
) -> None:
    """A child run begins. metadata: JSON object or empty."""
    draft = frame.draft(run_id, turn, key)
    if draft is None or not frame.key_ok(draft, key):
        return
    resident = draft.resident
    if (resident.open is not None and key in resident.open) or resident.is_decided(key):
        return
    function = frame.env.triggers.known.get(function_id)
    error: InvalidError | None = None
    if function is None:
        error = InvalidError("FUNCTION_NOT_FOUND", f"no app has registered function {function_id[:256]!r}")
    elif resident.run.depth + 1 > LIMITS.invoke_depth:
        error = InvalidError("TOO_DEEP", f"invokes are nested deeper than {LIMITS.invoke_depth}")
    elif len(data) > LIMITS.result_bytes:
        error = InvalidError("TOO_LARGE", f"the input has more than {LIMITS.result_bytes} bytes")
    elif len(metadata) > LIMITS.metadata_bytes:
        error = InvalidError("TOO_LARGE", f"metadata is larger than {LIMITS.metadata_bytes} bytes")
    elif (bad := ingest.input_error(function, data, encoding)) is not None:
        error = bad
    elif timeout_ms > LIMITS.wait_ms:
        error = InvalidError("TOO_LONG", "the time-out is longer than 366 days")
    if error is not None or function is None:
        _reject(frame, draft, key, StepKind.INVOKE, function_id, error or InvalidError("FUNCTION_NOT_FOUND", key))
        return
    child_id = ids.run_id_for_child(resident.env, resident.run_id, key)
    child = RunRow(
        resident.env,
        child_id,
        function_id,
        function.app,
        int(RunStatus.QUEUED),
        0,
        0,
        None,
        None,
        resident.run_id,
        key,
        detached,
        resident.run.depth + 1,
        "",
        0,
        0,
        0,
        frame.now,
        None,
        None,
        data,
        encoding,
        None,
        "",
        None,
        metadata,
    )
    free = detached or key in (resident.open or ())  # … as it is where the command comes twice
    stuck = "" if free else limits.deadlock(frame.node, frame.env, function, child, resident.run)
    if stuck:
        _reject(frame, draft, key, StepKind.INVOKE, function_id, InvalidError("LIMIT_DEADLOCK", stuck))
        return
    due = frame.now + timeout_ms if timeout_ms else None
    wait = _row(
        frame,
        resident,
        key,
        StepKind.INVOKE,
        target=function_id,
        due=due,
        child=child_id,
        detached=detached,
        input_hash=input_hash,
    )
    if not open_wait(frame, draft, wait):
        return
    if draft.children is None:
        draft.children = []
    at_once = frame.node.cluster is None
    draft.children.append(admission.begin(frame.node, frame.env, function, child, None, at_once=at_once))
    draft.size += len(data)


def send(frame: Frame, run_id: str, turn: int, key: str, events: Sequence[ingest.NewEvent], input_hash: bytes) -> None:
    """Events are sent, once: they and the step's outcome are one commit, unless they have ids of their own."""
    draft = frame.draft(run_id, turn, key)
    if draft is None or not frame.key_ok(draft, key):
        return
    resident = draft.resident
    if resident.is_decided(key) or (resident.pending and key in resident.pending):
        return
    rows: list[tuple[EventRow, Any]] = []
    try:
        if not events:
            raise InvalidError("MISSING_FIELD", "no events", fields=(("events", "empty"),))
        if len(events) > LIMITS.send_events:
            raise InvalidError("TOO_MANY", f"{len(events)} events, more than {LIMITS.send_events}")
        for event in events:
            ingest.check_event(event)
            data = ingest.decoded(event)
            row = EventRow(
                resident.env,
                frame.node.event_id(frame.now),
                event.name,
                event.data,
                event.encoding,
                event.sender_id,
                event.time_ms or frame.now,
                frame.now,
                event.metadata,
            )
            misfit = frame.env.triggers.misfit(row, data) if frame.env.triggers.judges else None
            if misfit is not None:
                raise misfit
            rows.append((row, data))
    except InvalidError as error:
        _reject(frame, draft, key, StepKind.SEND, "", error)
        return
    outcome = OutcomeRow(
        resident.env,
        run_id,
        key,
        None,
        int(StepKind.SEND),
        ",".join(dict.fromkeys(row.name for row, _ in rows))[:256],
        orjson.dumps([row.id for row, _ in rows]),
        "",
        None,
        1,
        frame.now,
        frame.now,
        input_hash,
        None,
        None,
    )
    if any(row.sender_id for row, _ in rows):
        sending.send_known(frame.node, frame.env, frame.session, resident, outcome, rows)
        return
    draft.events = [*(draft.events or ()), *rows]
    draft.answer(outcome)


def open_wait(frame: Frame, draft: Draft, wait: WaitRow) -> bool:
    """Opens a wait; False where the command came twice, or is one too many."""
    resident = draft.resident
    if resident.open is None:
        resident.open = {}
    if wait.key in resident.open or resident.is_decided(wait.key):
        return False
    if len(resident.open) >= LIMITS.branches and resident.open_steps() >= LIMITS.branches:
        too_many = InvalidError("TOO_MANY", f"a run has at most {LIMITS.branches} open keys")
        _reject(frame, draft, wait.key, StepKind(wait.kind), wait.target, too_many)
        return False
    resident.open[wait.key] = wait
    if draft.waits is None:
        draft.waits = []
    draft.waits.append(wait)
    if not resident.executing:
        frame.awake(resident)
    return True


def _row(
    frame: Frame,
    resident: Resident,
    key: str,
    kind: StepKind,
    *,
    target: str = "",
    match_key: str | None = None,
    condition: str = "",
    due: int | None = None,
    child: str | None = None,
    detached: bool = False,
    input_hash: bytes = b"",
    after_event: str | None = None,
) -> WaitRow:
    return WaitRow(
        resident.env,
        resident.run_id,
        key,
        int(kind),
        target,
        match_key,
        condition,
        due,
        child,
        detached,
        1,
        None,
        input_hash,
        frame.now,
        after_event,
        resident.function_id,
    )


def _reject(frame: Frame, draft: Draft, key: str, kind: StepKind, target: str, error: Exception) -> None:
    """A step that can never be right fails in the code, as a typed error."""
    resident = draft.resident
    if resident.is_decided(key):
        return
    reason = error.reason if isinstance(error, InvalidError) else "BAD_JSON"
    failure = failure_json({"type": "InvalidError", "message": str(error), "reason": reason, "non_retriable": True})
    outcome = OutcomeRow(
        resident.env,
        resident.run_id,
        key,
        None,
        int(kind),
        target[:256].replace("\0", "\N{REPLACEMENT CHARACTER}"),
        None,
        "",
        failure,
        1,
        frame.now,
        frame.now,
        b"",
        None,
        None,
    )
    draft.answer(outcome)
