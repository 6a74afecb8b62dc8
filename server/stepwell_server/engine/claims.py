"""What a gate counts by, and the waits that name a claim. Pure."""

from __future__ import annotations

from typing import Any

import orjson

from stepwell_server.engine import expressions, matching
from stepwell_server.engine.failures import failure_json
from stepwell_server.model.event import INVOKED
from stepwell_server.model.journal import CLAIM_KEY, GATE_KEY, StepKind, WaitRow
from stepwell_server.model.run import RunRow

LOOK_MS = 10_000
"""A run that waits at a gate for another one looks for itself after so long."""


def claim_key(
    unjudged: expressions.Unjudged, kind: str, function_id: str, expression: str, event: dict[str, Any]
) -> str:
    """The key of a claim: what the expression makes of an event tells whose share it counts to."""
    text = ""
    if expression:
        try:
            text = matching.value_text(expressions.value_of(expression, event))
        except expressions.UnjudgedError as error:
            unjudged.note(function_id, expressions.Note(expression, str(event.get("id", "")), str(error)))
            text = "null"
    return f"{kind}:{function_id}:{text}"


def invoked(run: RunRow) -> dict[str, Any]:
    """An invoked run's input, as expressions see it."""
    try:
        data = orjson.loads(run.input) if run.input and run.input_encoding in ("", "json") else None
    except orjson.JSONDecodeError:
        data = None
    return {"id": run.id, "name": INVOKED, "data": data, "time_ms": run.created_ms, "metadata": {}}


def gate_wait(run: RunRow, key: str, now: int, due_ms: int) -> WaitRow:
    """What a run at a gate waits for."""
    return _wait(run, GATE_KEY, StepKind.GATE, key, now, due_ms)


def claim_wait(run: RunRow, key: str, now: int) -> WaitRow:
    """What says of a run that it holds a claim."""
    return _wait(run, CLAIM_KEY, StepKind.CLAIM, key, now, None)


def _wait(run: RunRow, wait_key: str, kind: StepKind, key: str, now: int, due_ms: int | None) -> WaitRow:
    return WaitRow(
        run.env, run.id, wait_key, int(kind), key, None, "", due_ms, None, False, 1, None, b"", now, None,
        run.function_id,
    )  # fmt: skip


def skipped(reason: str, message: str, **details: Any) -> bytes:
    """The failure of a run that was skipped."""
    return failure_json(
        {"type": "RunSkippedError", "message": message, "reason": reason, "non_retriable": True, "details": details}
    )
