"""A run as lines of JSON: the run, what started it, and its journal; and back, as what a worker is given."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from stepwell.v1 import common_pb2, event_pb2, run_pb2, step_pb2

from stepwell_server.cli.failures import Exit, Failure
from stepwell_server.cli.output import plain

_KINDS = {name.removeprefix("STEP_KIND_"): name for name, _ in step_pb2.StepKind.items()}


class RecordingError(Exception):
    """A file that `runs pull` did not write."""


class Recording(NamedTuple):
    """What a worker is given to go on with the run, and where it stood in the end."""

    assign: step_pb2.Assign
    status: str


def run_line(run: run_pb2.Run) -> dict[str, Any]:
    """The first line."""
    shown = plain(run)
    _put(shown, run.output, f"the output of {run.id}", given=run.HasField("output"))
    return {"run": shown}


def event_line(event: event_pb2.Event) -> dict[str, Any]:
    """The second line."""
    shown = plain(event)
    shown["data"] = _value(event.data, f"the data of {event.name}")
    return {"event": shown}


def entry_line(entry: run_pb2.JournalEntry) -> dict[str, Any]:
    """A further line. Without an output: it is empty, as that of a time-out."""
    shown = plain(entry)
    _put(shown, entry.output, f"the result of {entry.key}", given=bool(entry.output.data))
    return {"entry": shown}


def _put(shown: dict[str, Any], payload: common_pb2.Payload, what: str, *, given: bool) -> None:
    shown.pop("output", None)
    if given:
        shown["output"] = _value(payload, what)


def _value(payload: common_pb2.Payload, what: str) -> Any:
    if payload.encoding not in ("", "json"):
        raise Failure(f"{what} is not JSON ({payload.encoding}): it cannot be a line", Exit.REFUSED)
    return json.loads(payload.data) if payload.data else None


def read(lines: Iterable[bytes]) -> Recording:
    """The run of a file. Raises RecordingError, which names the line."""
    parts: dict[str, dict[str, Any]] = {}
    journal: list[step_pb2.Outcome] = []
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
            ((name, value),) = line.items()
            if name == "entry":
                if value.get("number"):
                    journal.append(_outcome(value))
            elif name in ("run", "event") and name not in parts:
                parts[name] = value
            else:
                raise RecordingError(f"line {number} is {name!r}, which is unknown or came before")
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
            raise RecordingError(f"line {number} is no line of a run: {error}") from None
    if parts.keys() != {"run", "event"}:
        raise RecordingError("it has no run, or not what started it")
    run, event = parts["run"], parts["event"]
    try:
        assign = step_pb2.Assign(
            run_id=run["id"],
            turn=1,
            function_id=run["function_id"],
            event=_event(event),
            journal=sorted(journal, key=lambda one: one.number),
            created_ms=run["created_ms"],
        )
        return Recording(assign, str(run["status"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordingError(f"its run or event is no such thing: {error}") from None


def _event(value: dict[str, Any]) -> event_pb2.Event:
    message = event_pb2.Event(
        id=value["id"],
        name=value["name"],
        sender_id=value.get("sender_id", ""),
        time_ms=value.get("time_ms", 0),
        accepted_ms=value.get("accepted_ms", 0),
        metadata=value.get("metadata", {}),
    )
    message.data.data = _json(value.get("data"))
    return message


def _outcome(value: dict[str, Any]) -> step_pb2.Outcome:
    outcome = step_pb2.Outcome(
        key=value["key"],
        number=value["number"],
        kind=_KINDS.get(value.get("kind", "")),
        target=value.get("target", ""),
        attempt=value.get("attempt", 0),
        time_ms=value.get("ended_ms", 0),
    )
    if "failure" in value:
        outcome.failure.CopyFrom(_failure(value["failure"]))
    else:
        outcome.output.data = _json(value["output"]) if "output" in value else b""
    return outcome


def _failure(value: dict[str, Any]) -> common_pb2.Failure:
    texts = {key: value[key] for key in ("type", "message", "reason", "stack") if key in value}
    failure = common_pb2.Failure(**texts, non_retriable=bool(value.get("non_retriable")))
    if "details" in value:
        failure.details.data = _json(value["details"])
    if "cause" in value:
        failure.cause.CopyFrom(_failure(value["cause"]))
    return failure


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
