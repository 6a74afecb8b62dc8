"""Failures as the server stores them: JSON of {type, message, reason, stack, non_retriable, details, cause}."""

from __future__ import annotations

from typing import Any

import orjson

from stepwell_server.model.limits import LIMITS

_TEXT = 16 * 1024


def failure_json(failure: dict[str, Any]) -> bytes:
    """A failure within its limit: long texts are cut, then causes and details go."""
    data = orjson.dumps(failure)
    if len(data) <= LIMITS.failure_bytes:
        return data
    cut = {
        key: (value[:_TEXT] + " …" if isinstance(value, str) and len(value) > _TEXT else value)
        for key, value in failure.items()
        if key not in ("cause", "details")
    }
    return orjson.dumps(cut)


def too_large(what: str, most: int) -> bytes:
    """A failure that names a limit."""
    return failure_json(
        {
            "type": "LimitError",
            "message": f"{what} has more than {most} bytes",
            "reason": "TOO_LARGE",
            "non_retriable": True,
        }
    )


def of_child(failure: bytes | None, reason: str) -> bytes:
    """A run's failure as the run that invoked it sees it: its own type and text, and the reason of its end.

    Where it had a reason of its own already, that stays as the cause.
    """
    own: dict[str, Any] = orjson.loads(failure) if failure else {}
    if own.get("reason", "") == reason:
        return failure or b"{}"
    told = {**own, "reason": reason}
    if own.get("reason"):
        told["cause"] = {key: value for key, value in own.items() if key != "stack"}
    return failure_json(told)


def look_back_cut(event_id: str) -> bytes:
    """What is noted with a wait that has not looked at all the events since its run began."""
    message = f"its look-back was cut after event {event_id}: events between that one and the wait were not looked at"
    return failure_json({"type": "LookBackCut", "message": message, "details": {"after": event_id}})


def cut_after(failure: bytes | None) -> str:
    """The event after which the look-back of a wait was cut; empty where it was not."""
    return orjson.loads(failure)["details"]["after"] if failure else ""


def message_of(failure: bytes | None) -> str:
    """The text of a failure."""
    return str(orjson.loads(failure).get("message", "")) if failure else ""


def tried(failure: bytes | None) -> set[str]:
    """Deployments that a paused run did not fit."""
    if not failure:
        return set()
    try:
        details: Any = orjson.loads(failure).get("details") or {}
        return set(details.get("deployments", ()))
    except (orjson.JSONDecodeError, AttributeError):
        return set()
