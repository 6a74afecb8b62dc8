"""Flow: what limits, gathers and orders a function's runs, between messages and values."""

from __future__ import annotations

from enum import IntEnum
from typing import TypeVar

from stepwell.v1 import function_pb2

from stepwell_server.model.errors import InvalidError
from stepwell_server.model.flow import (
    Batch,
    Concurrency,
    Debounce,
    Flow,
    Hold,
    RateLimit,
    Scope,
    Singleton,
    SingletonMode,
    Throttle,
)

E = TypeVar("E", bound=IntEnum)


def flow_value(where: str, message: function_pb2.Flow) -> Flow | None:
    """What a function says; None where it says nothing. Raises InvalidError for what no enumeration has."""
    flow = Flow(
        tuple(
            Concurrency(
                item.limit,
                item.key,
                _member(where, "concurrency", "scope", Scope, item.scope, Scope.FUNCTION),
                _member(where, "concurrency", "hold", Hold, item.hold, Hold.EXECUTING),
            )
            for item in message.concurrency
        ),
        _throttle(message.throttle) if message.HasField("throttle") else None,
        _rate_limit(message.rate_limit) if message.HasField("rate_limit") else None,
        _debounce(message.debounce) if message.HasField("debounce") else None,
        _batch(message.batch) if message.HasField("batch") else None,
        _singleton(where, message.singleton) if message.HasField("singleton") else None,
        message.priority,
    )
    return flow if flow != Flow() else None


def _member(where: str, option: str, field: str, kind: type[E], number: int, default: E) -> E:
    if not number:
        return default
    try:
        return kind(number)
    except ValueError:
        why = f"there is no such {field}"
        raise InvalidError("BAD_FLOW", f"{where}: {option}: {why}", fields=((f"{where}: {option}", why),)) from None


def _throttle(message: function_pb2.Throttle) -> Throttle:
    return Throttle(message.limit, message.period_ms, message.burst, message.key)


def _rate_limit(message: function_pb2.RateLimit) -> RateLimit:
    return RateLimit(message.limit, message.period_ms, message.key)


def _debounce(message: function_pb2.Debounce) -> Debounce:
    return Debounce(message.period_ms, message.key, message.max_wait_ms)


def _batch(message: function_pb2.Batch) -> Batch:
    return Batch(message.max_size, message.timeout_ms, message.key, message.condition)


def _singleton(where: str, message: function_pb2.Singleton) -> Singleton:
    mode = _member(where, "singleton", "mode", SingletonMode, message.mode, SingletonMode.SKIP)
    return Singleton(message.key, mode)


def flow_message(flow: Flow) -> function_pb2.Flow:
    """A registered function's flow."""
    message = function_pb2.Flow(priority=flow.priority)
    for limit in flow.concurrency:
        message.concurrency.add(limit=limit.limit, key=limit.key, scope=int(limit.scope), hold=int(limit.hold))  # pyright: ignore[reportArgumentType]
    if (throttle := flow.throttle) is not None:
        message.throttle.limit, message.throttle.period_ms = throttle.limit, throttle.period_ms
        message.throttle.burst, message.throttle.key = throttle.burst, throttle.key
    if (rate := flow.rate_limit) is not None:
        message.rate_limit.limit, message.rate_limit.period_ms = rate.limit, rate.period_ms
        message.rate_limit.key = rate.key
    if (debounce := flow.debounce) is not None:
        message.debounce.period_ms, message.debounce.max_wait_ms = debounce.period_ms, debounce.max_wait_ms
        message.debounce.key = debounce.key
    if (batch := flow.batch) is not None:
        message.batch.max_size, message.batch.timeout_ms = batch.max_size, batch.timeout_ms
        message.batch.key, message.batch.condition = batch.key, batch.condition
    if (singleton := flow.singleton) is not None:
        message.singleton.key, message.singleton.mode = singleton.key, int(singleton.mode)  # pyright: ignore[reportAttributeAccessIssue]
    return message
