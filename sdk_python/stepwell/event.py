"""Events: the one that started a run, the ones it waits for, the ones it sends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from stepwell import codec
from stepwell.errors import LimitError, UsageError
from stepwell.v1 import event_pb2

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepwell.v1.common_pb2 import Payload

T_co = TypeVar("T_co", covariant=True)

RESERVED = "stepwell/"
INVOKED = RESERVED + "function.invoked"
EVENT_NAME_BYTES_MAX = 256
UNIX_MS_MIN, UNIX_MS_MAX = -62_135_596_800_000, 253_402_300_799_999
"""The first and the last millisecond of the years 1 to 9999."""


@dataclass(frozen=True, slots=True)
class Event(Generic[T_co]):
    """An accepted event. An invoked function sees one named "stepwell/function.invoked" whose data is its input."""

    id: str
    name: str
    data: T_co
    time: datetime
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    sender_id: str = ""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to send. `id` is the sender's own: the same id within 24 hours is the same event."""

    name: str
    data: Any = None
    id: str = ""
    time: datetime | None = None
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])

    def to_message(self, max_bytes: int = 0) -> event_pb2.NewEvent:
        """The message. Raises UsageError, SerializationError or LimitError."""
        check_event_name(self.name)
        message = event_pb2.NewEvent(name=self.name, id=self.id, metadata=dict(self.metadata))
        if self.data is not None:
            data = codec.encode(self.data, f"the data of event {self.name!r}")
            if not data.startswith(b"{"):
                raise UsageError(f"the data of event {self.name!r} must be a JSON object, not {data[:40]!r}")
            if max_bytes and len(data) > max_bytes:
                raise LimitError(f"the data of event {self.name!r} has {len(data)} bytes; event_bytes is {max_bytes}")
            message.data.data = data
        if self.time is not None:
            message.time_ms = to_unix_ms(self.time)
        return message


def check_event_name(name: str, *, wildcard: bool = False) -> None:
    """Raises UsageError unless the name may stand for an event (or, in a trigger, for a prefix ending in `*`)."""
    if not name:
        raise UsageError("an event needs a name")
    if len(name.encode("utf-8", "replace")) > EVENT_NAME_BYTES_MAX:
        raise UsageError(f"event name {name[:40]!r}… is longer than {EVENT_NAME_BYTES_MAX} bytes")
    if not name.isprintable():
        raise UsageError(f"event name {name!r} holds a control character")
    stem = name[:-1] if wildcard and name.endswith("*") else name
    if "*" in stem:
        where = "only at its end" if wildcard else "only in triggers"
        raise UsageError(f"event name {name!r}: a wildcard is allowed {where}")


def check_awaited(name: str) -> None:
    """Raises UsageError unless a wait may be for an event of this name: the server's own reach none."""
    check_event_name(name)
    if name.startswith(RESERVED):
        raise UsageError(f"event name {name!r}: events that begin with {RESERVED} reach no wait")


def from_unix_ms(ms: int) -> datetime:
    """The instant in UTC, or the nearest one that a datetime can hold: others' clocks may say anything."""
    return datetime.fromtimestamp(min(max(ms, UNIX_MS_MIN), UNIX_MS_MAX) / 1000, UTC)


def to_unix_ms(instant: datetime | float) -> int:
    """Unix milliseconds of an aware datetime or of Unix seconds."""
    if isinstance(instant, datetime):
        if instant.tzinfo is None:
            raise UsageError(f"{instant!r} has no time zone; use datetime.now(UTC) or .astimezone()")
        return round(instant.timestamp() * 1000)
    is_number = isinstance(instant, (int, float)) and not isinstance(instant, bool)  # pyright: ignore[reportUnnecessaryIsInstance]
    if not is_number or not abs(instant) * 1000 <= UNIX_MS_MAX:  # nor is it "not a number"
        raise UsageError(f"{instant!r} is no Unix time in seconds")
    return round(instant * 1000)


def payload_data(payload: Payload, what: str) -> bytes:
    """The JSON text of a payload. Raises SerializationError for another encoding."""
    if payload.encoding and payload.encoding != "json":
        raise codec.SerializationError(f"{what} is encoded as {payload.encoding!r}; only json is understood")
    return payload.data


def from_message(message: event_pb2.Event, decode: Callable[[Any], Any] | None) -> Event[Any]:
    """The event that started a run, its data decoded."""
    what = f"the data of event {message.name!r}"
    raw = payload_data(message.data, what)
    # An empty payload is an empty object for events and null for the input of an invoked function (proto).
    data = codec.decode(raw, decode, what) if raw else _empty(message.name, decode, what)
    # To copy a message's empty map costs ten times as much as to ask whether it is.
    metadata = dict(message.metadata) if message.metadata else {}
    return Event(message.id, message.name, data, from_unix_ms(message.time_ms), metadata, message.sender_id)


def _empty(name: str, decode: Callable[[Any], Any] | None, what: str) -> Any:
    return codec.decode(b"null" if name == INVOKED else b"{}", decode, what)


def match_value(event: event_pb2.Event, path: str) -> bytes:
    """What stands at a path of the event that started the run, as JSON. Raises UsageError if nothing does."""
    head, _, rest = path.partition(".")
    raw = payload_data(event.data, "the event's data") or b"{}"
    roots: dict[str, Callable[[], Any]] = {
        "id": lambda: event.id,
        "name": lambda: event.name,
        "time_ms": lambda: event.time_ms,
        "metadata": lambda: dict(event.metadata),
        "data": lambda: codec.decode(raw, None, "the event's data"),
    }
    missing = UsageError(f"match={path!r}: the event that started this run holds nothing there")
    if head not in roots:
        raise missing
    value: Any = roots[head]()
    for part in rest.split(".") if rest else ():
        if not isinstance(value, dict) or part not in value:
            raise missing
        value = value[part]
    return codec.encode(value, f"match {path}")


def from_wait(data: bytes, decode: Callable[[Any], Any] | None, what: str) -> Event[Any] | None:
    """The event a wait was resolved with; None if it timed out (empty data)."""
    if not data:
        return None
    fields = codec.decode(data, None, what)
    if not isinstance(fields, dict):
        raise codec.SerializationError(f"{what}: no event but {data[:40]!r}")
    values: dict[str, Any] = fields  # pyright: ignore[reportUnknownVariableType]
    content: Any = values.get("data")
    return Event(
        str(values.get("id", "")),
        str(values.get("name", "")),
        codec.convert(content, decode, what),
        from_unix_ms(int(values.get("time_ms", 0))),
        dict(values.get("metadata") or {}),
        str(values.get("sender_id") or ""),
    )
