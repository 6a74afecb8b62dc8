"""Which line a run waits in, and which slots it needs: what its function's flow says, for the values of its keys. Pure.

A line is text: a mark of the key expressions and the values they have for the run, as JSON. A limit's id names the
environment, how it counts, its scope and the value; limits of a wider scope than the function are the same wherever
the values are, whatever the expressions. A function without keys has the line "", unless a limit counts its runs to
their end: those are found by their line.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from stepwell_server.engine import expressions
from stepwell_server.model.flow import Concurrency, Flow, Hold, Scope
from stepwell_server.model.function import FunctionSpec
from stepwell_server.model.pace import Pace
from stepwell_server.ports.limiter import Slot

_VALUE_BYTES = 128
_SHOWN = 48
_MARK = 8
_SHIFT_S = 43_200

Noted = Callable[[str, str], None]
"""Learns which expression could not be evaluated, and why."""


class Needs(NamedTuple):
    """What a run of a function has to be granted. executing: while it executes. whole: from its first start to its end.
    pace: of its first start."""

    executing: tuple[Slot, ...]
    whole: tuple[Slot, ...]
    pace: Pace | None


def is_limited(function: FunctionSpec | None) -> bool:
    """Whether runs of a function have to be granted anything."""
    flow = function.flow if function is not None else None
    return flow is not None and bool(flow.concurrency or flow.throttle)


@lru_cache(maxsize=4_096)
def keys(flow: Flow) -> tuple[str, ...]:
    """The expressions whose values make the line, each once."""
    found = [limit.key for limit in flow.concurrency]
    if flow.throttle is not None:
        found.append(flow.throttle.key)
    return tuple(dict.fromkeys(filter(None, found)))


@lru_cache(maxsize=4_096)
def mark(flow: Flow) -> str:
    """What the lines of these expressions begin with; empty where nothing needs a line."""
    names = keys(flow)
    needed = names or any(limit.hold is Hold.RUN for limit in flow.concurrency)
    return _hash(orjson.dumps(names).decode(), _MARK // 2) if needed else ""


def line_of(flow: Flow, event: Callable[[], dict[str, Any]], noted: Noted) -> str:
    """The line of a run that an event (as conditions see it) starts. A key that fails has the value null."""
    if not mark(flow):
        return ""
    names = keys(flow)
    value = event() if names else {}
    return mark(flow) + orjson.dumps([_key_value(name, value, noted) for name in names]).decode()


def _key_value(name: str, event: dict[str, Any], noted: Noted) -> Any:
    try:
        value = expressions.sure_value_of(name, event)
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # equal numbers are one
        text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    except (expressions.UnjudgedError, TypeError) as error:
        noted(name, str(error))
        return None
    if len(text.encode()) > _VALUE_BYTES:
        return f"{text[:_SHOWN]}…{_hash(text, 16)}"
    return orjson.loads(text)


def fits(flow: Flow, line: str) -> bool:
    """Whether a line was made by the expressions that the function has now."""
    return line.startswith(mark(flow))


def needs(env: str, function: FunctionSpec, line: str) -> Needs:
    """What a run in a line that fits has to be granted."""
    flow = function.flow
    assert flow is not None, "only the runs of a function with a flow need something"
    names = keys(flow)
    values: dict[str, str] = {}
    if names:
        for name, value in zip(names, orjson.loads(line[_MARK:]), strict=True):
            values[name] = orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    slots = [(limit.hold, Slot(limit_id(env, function, limit, values), limit.limit)) for limit in flow.concurrency]
    pace = None
    if (throttle := flow.throttle) is not None:
        id_ = _id(env, "throttle", _function_scope(function, throttle.key), values.get(throttle.key, ""))
        pace = Pace(id_, throttle.limit, throttle.period_ms, throttle.burst)
    executing = tuple(slot for hold, slot in slots if hold is Hold.EXECUTING)
    return Needs(executing, tuple(slot for hold, slot in slots if hold is Hold.RUN), pace)


def limit_id(env: str, function: FunctionSpec, limit: Concurrency, values: dict[str, str]) -> str:
    """Of a concurrency limit, for the value of its key as JSON."""
    scopes = {
        Scope.FUNCTION: _function_scope(function, limit.key),
        Scope.APP: f"app {function.app}",
        Scope.ENVIRONMENT: "environment",
    }
    kind = "executing" if limit.hold is Hold.EXECUTING else "run"
    return _id(env, kind, scopes[limit.scope], values.get(limit.key, ""))


def _id(env: str, kind: str, scope: str, value: str) -> str:
    return f"{env}|{kind}|{scope}|{value}"


def _function_scope(function: FunctionSpec, key: str) -> str:
    return f"function {function.id}" + (f" {_hash(key, _MARK // 2)}" if key else "")


class LimitName(NamedTuple):
    """The parts of a limit's id. kind: executing, run or throttle. owner: the function or app, empty for environment.
    mark: of the key expression, in the scope of a function. value: JSON, empty without a key."""

    env: str
    kind: str
    scope: Scope
    owner: str
    mark: str
    value: str


def parse(id_: str) -> LimitName:
    """The parts of a limit's id."""
    env, kind, scope, value = id_.split("|", 3)
    what, owner, key_mark = [*scope.split(" "), "", ""][:3]
    return LimitName(env, kind, Scope[what.upper()], owner, key_mark, value)


def key_of(flow: Flow | None, name: LimitName) -> str:
    """The expression of a limit, if the function still has it."""
    if flow is None:
        return ""
    if name.scope is Scope.FUNCTION:
        return next((key for key in keys(flow) if _hash(key, _MARK // 2) == name.mark), "")
    return next((limit.key for limit in flow.concurrency if limit.scope is name.scope and limit.key), "")


def shown(name: LimitName, key: str) -> str:
    """A limit as people call it: user=7, or its scope where it has no key."""
    if name.value:
        return f"{key.removeprefix('event.data.') or 'key'}={name.value}"
    return " ".join(filter(None, (name.scope.name.lower(), name.owner)))


def shift_ms(flow: Flow, event: Callable[[], dict[str, Any]], noted: Noted) -> int:
    """By how much a run goes before others that were queued later; 0 where its priority is no number."""
    if not flow.priority:
        return 0
    try:
        value = expressions.sure_value_of(flow.priority, event())
    except expressions.UnjudgedError as error:
        noted(flow.priority, str(error))
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        noted(flow.priority, f"{value!r:.64} is not a number")
        return 0
    return int(max(-_SHIFT_S, min(_SHIFT_S, value))) * 1_000


def _hash(text: str, size: int) -> str:
    return blake2b(text.encode(), digest_size=size).hexdigest()
