"""What limits, gathers and orders the runs of a function, as values: options of `@app.function`.

A `key` is a CEL expression over `event`; runs whose key has the same value share what the option says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypedDict, TypeVar

from stepwell.duration import Duration, DurationError, to_ms
from stepwell.errors import UsageError
from stepwell.v1 import function_pb2

KEY_BYTES_MAX = 2048
COUNT_MAX = 1_000_000
CONCURRENCY_MAX = 4
BATCH_MAX = 1_000
LABELS_MAX = 16
LABEL_BYTES_MAX = 128
YEAR_MS = 366 * 86_400_000

T = TypeVar("T")
_SCOPES = {
    "function": function_pb2.Concurrency.SCOPE_FUNCTION,
    "app": function_pb2.Concurrency.SCOPE_APP,
    "environment": function_pb2.Concurrency.SCOPE_ENVIRONMENT,
}
_HOLDS = {"executing": function_pb2.Concurrency.HOLD_EXECUTING, "run": function_pb2.Concurrency.HOLD_RUN}
_MODES = {"skip": function_pb2.Singleton.MODE_SKIP, "cancel": function_pb2.Singleton.MODE_CANCEL}


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most `limit` runs of one key at once; the others wait in the queue.

    A run counts while it executes, not while it sleeps or waits; with `hold="run"` from its first start to its end.
    `scope` says among whose runs: those of the function, of the app, or of the environment. In a scope wider than the
    function all limits whose keys have the same value count the same runs.
    """

    limit: int
    key: str = ""
    scope: Literal["function", "app", "environment"] = "function"
    hold: Literal["executing", "run"] = "executing"


@dataclass(frozen=True, slots=True)
class Throttle:
    """At most `limit` starts of one key in each `period`, evenly spread, `burst` more at once; the others wait."""

    limit: int
    period: Duration
    burst: int = 0
    key: str = ""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `limit` runs of one key in any `period`; an event too many is recorded as a skipped run.

    A run that is invoked does not count, and is not skipped.
    """

    limit: int
    period: Duration
    key: str = ""


@dataclass(frozen=True, slots=True)
class Debounce:
    """One run for a flurry of events of one key: it starts once none has come for `period`, with the last one.

    `max_wait`: it starts so long after the first one at the latest.
    """

    period: Duration
    key: str = ""
    max_wait: Duration | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """One run for many events of one key: it starts with `max_size` of them, or `timeout` after the first.

    The function takes `events: list[Event[…]]`. An event that does not fit the condition `if_` starts a run alone, at
    once. A batch of 2 MiB starts too. A run that is invoked gets one event: the input.
    """

    max_size: int
    timeout: Duration
    key: str = ""
    if_: str = ""


@dataclass(frozen=True, slots=True)
class Singleton:
    """While a run of one key lives no other one starts: the new one is skipped, or the old one cancelled."""

    key: str = ""
    mode: Literal["skip", "cancel"] = "skip"


Concurrencies: TypeAlias = int | Concurrency | Sequence[int | Concurrency]


class FlowOptions(TypedDict, total=False):
    """The options of `@app.function` that are about flow.

    concurrency: a number, a Concurrency, or several. singleton: True is one live run of the function. priority: CEL
    over `event`: whole seconds by which a run goes before others that were queued later, or after them if negative.
    """

    concurrency: Concurrencies
    throttle: Throttle
    rate_limit: RateLimit
    debounce: Debounce
    batch: Batch
    singleton: Singleton | bool
    priority: str


def to_message(options: FlowOptions) -> function_pb2.Flow | None:
    """What the worker says of a function's flow; None where nothing was given. Raises UsageError naming the option."""
    flow = function_pb2.Flow()
    for name, value in options.items():
        kind, convert = _PARTS.get(name, (None, None))
        if convert is None:
            raise UsageError(f"there is no option {name}")
        if value is None or value is False:
            continue
        try:
            if kind is not None and not isinstance(value, kind):
                raise UsageError(f"{value!r} is not a {kind.__name__}")
            part = convert(value)
        except UsageError as error:
            raise UsageError(f"{name}: {error}") from None
        if name == "priority":
            flow.priority = part
        elif name == "concurrency":
            flow.concurrency.extend(part)
        else:
            getattr(flow, name).CopyFrom(part)
    if flow.HasField("batch") and flow.HasField("debounce"):
        raise UsageError("batch: a function gathers events by batch or by debounce, not by both")
    if flow.HasField("singleton") and (flow.HasField("batch") or flow.HasField("debounce")):
        raise UsageError("singleton: not together with batch or debounce")
    return flow if flow.ByteSize() else None


def to_labels(labels: Any) -> dict[str, str]:
    """Labels of a function or a worker, checked. Raises UsageError."""
    if not isinstance(labels, Mapping):
        raise UsageError(f"labels: {labels!r} is not a mapping of names to values")
    if len(labels) > LABELS_MAX:  # pyright: ignore[reportUnknownArgumentType]
        raise UsageError(f"labels: at most {LABELS_MAX}")
    found: dict[str, str] = {}
    for name, value in labels.items():  # pyright: ignore[reportUnknownVariableType]
        for text in (name, value):  # pyright: ignore[reportUnknownVariableType]
            if not isinstance(text, str) or not text.isprintable() or len(text.encode()) > LABEL_BYTES_MAX or not name:
                raise UsageError(f"labels: {name!r}: names and values are printable text of at most 128 bytes")
        found[str(name)] = str(value)  # pyright: ignore[reportUnknownArgumentType]
    return found


def _concurrency(given: Any) -> list[function_pb2.Concurrency]:
    items: Any = given if isinstance(given, (list, tuple)) else (given,)
    limits = [Concurrency(item) if isinstance(item, int) else item for item in items]
    if len(limits) > CONCURRENCY_MAX:
        raise UsageError(f"at most {CONCURRENCY_MAX} limits")
    messages: list[function_pb2.Concurrency] = []
    for limit in limits:
        if not isinstance(limit, Concurrency):
            raise UsageError(f"{limit!r} is neither a number nor a Concurrency")
        messages.append(
            function_pb2.Concurrency(
                limit=_count("limit", limit.limit),
                key=_key(limit.key),
                scope=_choice("scope", limit.scope, _SCOPES),
                hold=_choice("hold", limit.hold, _HOLDS),
            )
        )
    if len({(m.key, m.scope, m.hold) for m in messages}) < len(messages):
        raise UsageError("two limits count the same runs")
    return messages


def _throttle(given: Throttle) -> function_pb2.Throttle:
    return function_pb2.Throttle(
        limit=_count("limit", given.limit),
        period_ms=_span("period", given.period, 1_000),
        burst=_count("burst", given.burst, least=0),
        key=_key(given.key),
    )


def _rate_limit(given: RateLimit) -> function_pb2.RateLimit:
    period_ms = _span("period", given.period, 1_000)
    return function_pb2.RateLimit(limit=_count("limit", given.limit), period_ms=period_ms, key=_key(given.key))


def _debounce(given: Debounce) -> function_pb2.Debounce:
    period_ms = _span("period", given.period, 100)
    longest_ms = 0 if given.max_wait is None else _span("max_wait", given.max_wait, period_ms)
    return function_pb2.Debounce(period_ms=period_ms, key=_key(given.key), max_wait_ms=longest_ms)


def _batch(given: Batch) -> function_pb2.Batch:
    return function_pb2.Batch(
        max_size=_count("max_size", given.max_size, least=2, most=BATCH_MAX),
        timeout_ms=_span("timeout", given.timeout, 100),
        key=_key(given.key),
        condition=_key(given.if_),
    )


def _singleton(given: Any) -> function_pb2.Singleton:
    given = Singleton() if given is True else given
    if not isinstance(given, Singleton):
        raise UsageError(f"{given!r} is neither True nor a Singleton")
    return function_pb2.Singleton(key=_key(given.key), mode=_choice("mode", given.mode, _MODES))


def _count(name: str, value: Any, *, least: int = 1, most: int = COUNT_MAX) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise UsageError(f"{name} {value!r} is not a whole number from {least} to {most}")
    return value


def _span(name: str, value: Any, least_ms: int) -> int:
    try:
        ms = to_ms(value)
    except DurationError as error:
        raise UsageError(f"{name}: {error}") from None
    if not least_ms <= ms <= YEAR_MS:
        raise UsageError(f"{name} {value!r} is not {least_ms} ms to 366 days")
    return ms


def _key(value: Any) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{value!r} is not a CEL expression")
    if len(value.encode()) > KEY_BYTES_MAX:
        raise UsageError(f"an expression is at most {KEY_BYTES_MAX} bytes")
    return value


def _choice(name: str, value: Any, choices: Mapping[str, T]) -> T:
    if value not in choices:
        raise UsageError(f"{name} {value!r} is none of {', '.join(choices)}")
    return choices[value]


_PARTS: dict[str, tuple[type[Any] | None, Callable[[Any], Any]]] = {
    "concurrency": (None, _concurrency),
    "throttle": (Throttle, _throttle),
    "rate_limit": (RateLimit, _rate_limit),
    "debounce": (Debounce, _debounce),
    "batch": (Batch, _batch),
    "singleton": (None, _singleton),
    "priority": (None, _key),
}
