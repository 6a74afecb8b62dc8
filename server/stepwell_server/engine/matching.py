"""Which functions an event triggers, and which waits it can resolve."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

import orjson

from stepwell_server.engine import expressions, schemas
from stepwell_server.model.errors import InvalidError
from stepwell_server.model.event import EventRow
from stepwell_server.model.function import FunctionSpec, Trigger
from stepwell_server.model.run import RunRow

_KEY_TEXT_MAX = 160
_MISSING = object()


def event_data(event: EventRow) -> Any:
    """The event's data, decoded; None where it is not JSON."""
    if event.encoding not in ("", "json"):
        return None
    try:
        return orjson.loads(event.data) if event.data else {}
    except orjson.JSONDecodeError:
        return None


def invoked_data(run: RunRow) -> Any:
    """The input of an invoked run, decoded; None where it is not JSON."""
    try:
        return orjson.loads(run.input) if run.input and run.input_encoding in ("", "json") else None
    except orjson.JSONDecodeError:
        return None


def event_value(event: EventRow, data: Any = _MISSING) -> dict[str, Any]:
    """An event as conditions see it."""
    return {
        "id": event.id,
        "name": event.name,
        "data": event_data(event) if data is _MISSING else data,
        "time_ms": event.time_ms,
        "metadata": orjson.loads(event.metadata) if event.metadata else {},
    }


def event_json(event: EventRow) -> bytes:
    """An event as an outcome: JSON of {id, name, data, time_ms, metadata}. Data in another encoding stays a string."""
    facts: dict[str, Any] = {"id": event.id, "name": event.name, "time_ms": event.time_ms}
    if event.sender_id:
        facts["sender_id"] = event.sender_id
    head = orjson.dumps(facts)
    data = (event.data or b"{}") if event.encoding in ("", "json") else orjson.dumps(event.data.decode("latin-1"))
    return head[:-1] + b',"data":' + data + b',"metadata":' + (event.metadata or b"{}") + b"}"


def _canonical(value: Any) -> bytes:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # too deep, or an integer of more than 64 bits
        return repr(value).encode("utf-8", "surrogatepass")


def match_key(path: str, value: Any) -> str:
    """The key under which a wait for `value` at `path` is found. Numbers compare by value (1 and 1.0 are one)."""
    text = f"{path}={_canonical(value).decode()}"
    return text if _is_short(text) else f"{path}#{_hash(text)}"


def value_text(value: Any) -> str:
    """What a key's value is counted by: its JSON, or the hash of a long one. Equal numbers are one."""
    text = _canonical(value).decode()
    return text if _is_short(text) else f"#{_hash(text)}"


def _is_short(text: str) -> bool:
    return len(text) <= _KEY_TEXT_MAX and "\0" not in text


def _hash(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


def at_path(event: dict[str, Any], path: str) -> Any:
    """What stands at a path of an event, dotted through objects; the module's _MISSING where nothing does."""
    value: Any = event
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            return _MISSING
        value = value[part]
    return value


def match_keys(event: dict[str, Any], paths: Iterable[str]) -> tuple[str, ...]:
    """The keys of all waits that an event can resolve, given the paths in use on its name."""
    keys: list[str] = []
    for path in paths:
        if not path:
            keys.append("")
            continue
        value = at_path(event, path)
        if value is not _MISSING:
            keys.append(match_key(path, value))
    return tuple(keys)


class TriggerIndex:
    """Functions by event name; wildcards by prefix."""

    __slots__ = ("_exact", "_judged", "_prefixes", "_unjudged", "judges", "known")

    def __init__(self, functions: Iterable[FunctionSpec], unjudged: expressions.Unjudged) -> None:
        self._unjudged = unjudged
        self._exact: dict[str, list[tuple[FunctionSpec, str]]] = {}
        self._prefixes: list[tuple[str, FunctionSpec, str]] = []
        self.known: dict[str, FunctionSpec] = {}
        self._judged: dict[str, list[tuple[FunctionSpec, Trigger]]] = {}  # by name; those of prefixes under "*"
        for function in functions:
            self.known[function.id] = function
            for trigger in function.triggers:
                if trigger.event.endswith("*"):
                    self._prefixes.append((trigger.event[:-1], function, trigger.condition))
                else:
                    self._exact.setdefault(trigger.event, []).append((function, trigger.condition))
                if trigger.schema:
                    name = "*" if trigger.event.endswith("*") else trigger.event
                    self._judged.setdefault(name, []).append((function, trigger))
        self.judges = bool(self._judged)

    def fitting(self, event: EventRow, data: Any) -> list[FunctionSpec]:
        """The functions that an event starts, each once, in the order of registration."""
        candidates = self._exact.get(event.name, ())
        if not self._prefixes and not candidates:
            return []
        found: dict[str, FunctionSpec] = {}
        value: dict[str, Any] | None = None
        for function, condition in candidates:
            if function.id in found:
                continue
            if condition:
                value = value or event_value(event, data)
                if not self._fits(function, condition, value):
                    continue
            found[function.id] = function
        for prefix, function, condition in self._prefixes:
            if function.id in found or not event.name.startswith(prefix):
                continue
            if condition:
                value = value or event_value(event, data)
                if not self._fits(function, condition, value):
                    continue
            found[function.id] = function
        return list(found.values())

    def misfit(self, event: EventRow, data: Any) -> InvalidError | None:
        """Why an event is refused: it fits a trigger whose schema its data does not fit. Ask only if `judges`."""
        for function, trigger in (*self._judged.get(event.name, ()), *self._judged.get("*", ())):
            if event.encoding not in ("", "json") or not event.name.startswith(trigger.event.removesuffix("*")):
                continue
            if trigger.condition and not self._fits(function, trigger.condition, event_value(event, data)):
                continue
            schema = schemas.of(trigger.schema)
            misfit = schema.misfit(data, len(event.data)) if schema is not None else None
            if misfit is not None:
                what = f"what function {function.id} takes for {trigger.event}"
                return misfit.refusal("EVENT_MISMATCH", "data", what)
        return None

    def _fits(self, function: FunctionSpec, condition: str, event: dict[str, Any]) -> bool:
        try:
            return expressions.trigger_fits(condition, event)
        except expressions.UnjudgedError as error:
            self._unjudged.note(function.id, expressions.Note(condition, event["id"], str(error)))
            return False
