"""Events as lines of JSON: what `events pull` writes and `events push` reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, NamedTuple

from stepwell.v1 import event_pb2

BATCH_EVENTS = 500
BATCH_BYTES = 1024 * 1024
LINE_BYTES = 8 * 1024 * 1024
_FIELDS = frozenset({"name", "data", "metadata", "time", "id", "sender_id"})


class LineError(Exception):
    """A line that is no event."""


class Line(NamedTuple):
    """An event with the number of its line."""

    number: int
    event: event_pb2.NewEvent


class Bad(NamedTuple):
    """A line that is no event, and why."""

    number: int
    why: str


def from_event(event: event_pb2.Event) -> dict[str, Any] | None:
    """An event as a line's object, always with its fields in this order; None where its data is not JSON."""
    if event.data.encoding not in ("", "json"):
        return None
    line: dict[str, Any] = {
        "name": event.name,
        "data": json.loads(event.data.data or b"{}"),
        "metadata": dict(sorted(event.metadata.items())),
        "time": time_text(event.time_ms),
        "id": event.id,
    }
    if event.sender_id:
        line["sender_id"] = event.sender_id
    return line


def to_event(text: bytes, *, keep_ids: bool) -> event_pb2.NewEvent:
    """The event of a line. keep_ids: with the id that its sender gave it, or else the server's. Raises LineError."""
    try:
        line = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise LineError(f"not JSON: {error}") from None
    if not isinstance(line, dict):
        raise LineError("not a JSON object")
    if unknown := sorted(line.keys() - _FIELDS):
        raise LineError(f"there is no field {unknown[0]!r}")
    name, data, metadata = line.get("name"), line.get("data", {}), line.get("metadata", {})
    ids = [line.get("sender_id", ""), line.get("id", "")]
    if not isinstance(name, str) or not name:
        raise LineError("name is missing or no text")
    if not isinstance(data, dict):
        raise LineError("data is no object")
    if not isinstance(metadata, dict) or not all(isinstance(one, str) for one in metadata.values()):
        raise LineError("metadata is no object of texts")
    if not all(isinstance(one, str) for one in ids):
        raise LineError("id is no text")
    event = event_pb2.NewEvent(time_ms=time_ms(line.get("time", 0)))
    try:
        event.name = name
        event.data.data = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()
        event.metadata.update(metadata)
        event.id = (ids[0] or ids[1]) if keep_ids else ""
    except ValueError as error:  # a lone surrogate is an error of that kind, too
        raise LineError(f"a text that UTF-8 cannot hold: {error}") from None
    return event


def time_text(ms: int) -> str:
    """Milliseconds as people read them: 2026-11-23T03:17:33.042Z."""
    text = datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{ms % 1000:03d}Z"


def time_ms(value: Any) -> int:
    """The milliseconds of such a text, or of a number. Raises LineError."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53:
        return value
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        raise LineError("time is neither ISO 8601 nor milliseconds") from None
    if found.tzinfo is None:
        raise LineError("time has no offset; end it with Z")
    return round(found.timestamp() * 1000)


def read(lines: Iterable[bytes], *, keep_ids: bool) -> Iterator[Line | Bad]:
    """The events of numbered lines, one by one; empty lines are passed over."""
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        if len(text) > LINE_BYTES:
            yield Bad(number, f"longer than {LINE_BYTES} bytes")
            continue
        try:
            yield Line(number, to_event(text, keep_ids=keep_ids))
        except LineError as error:
            yield Bad(number, str(error))


def batches(lines: Iterable[Line]) -> Iterator[tuple[str, list[Line]]]:
    """Lines in requests, each with an id made of its place and its content: sent again it stores nothing twice."""
    for place, batch in enumerate(_batches(lines)):
        digest = blake2b(place.to_bytes(8, "big"), digest_size=16)
        for line in batch:
            text = line.event.SerializeToString(deterministic=True)
            digest.update(len(text).to_bytes(8, "big") + text)
        yield f"push:{digest.hexdigest()}", batch


def _batches(lines: Iterable[Line]) -> Iterator[list[Line]]:
    batch: list[Line] = []
    size = 0
    for line in lines:
        weight = line.event.ByteSize()
        if batch and (len(batch) == BATCH_EVENTS or size + weight > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += weight
    if batch:
        yield batch


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not a JSON number")
