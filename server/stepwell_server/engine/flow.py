"""What functions say of their flow: checked at the door, and kept with their deployment. Pure."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from stepwell_server.engine import expressions
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
from stepwell_server.model.limits import LIMITS

_CONCURRENCY_MAX = 4
_COUNT_MAX = 1_000_000
_PERIOD_MS = 1_000
_GATHER_MS = 100
_BATCH_MAX = 1_000
_LABELS_MAX = 16


def check(where: str, flow: Flow) -> None:
    """Raises InvalidError (BAD_FLOW, BAD_EXPRESSION), naming function and option, where a Flow can never be right."""
    if len(flow.concurrency) > _CONCURRENCY_MAX:
        raise _bad(where, "concurrency", f"{len(flow.concurrency)} limits, more than {_CONCURRENCY_MAX}")
    seen: set[tuple[str, Scope, Hold]] = set()
    for limit in flow.concurrency:
        _count(where, "concurrency", "limit", limit.limit)
        _key(where, "concurrency", limit.key)
        if (limit.key, limit.scope, limit.hold) in seen:
            raise _bad(where, "concurrency", "two limits count the same runs")
        seen.add((limit.key, limit.scope, limit.hold))
    if (throttle := flow.throttle) is not None:
        _count(where, "throttle", "limit", throttle.limit)
        _span(where, "throttle", "period", throttle.period_ms, _PERIOD_MS)
        _key(where, "throttle", throttle.key)
        if throttle.burst > _COUNT_MAX:
            raise _bad(where, "throttle", f"burst is not 0 to {_COUNT_MAX}")
    if (rate := flow.rate_limit) is not None:
        _count(where, "rate_limit", "limit", rate.limit)
        _span(where, "rate_limit", "period", rate.period_ms, _PERIOD_MS)
        _key(where, "rate_limit", rate.key)
    _check_gathering(where, flow)
    if flow.singleton is not None:
        _key(where, "singleton", flow.singleton.key)
    if flow.priority:
        expressions.check_value(flow.priority, f"{where}: priority")


def check_cluster(where: str, flow: Flow) -> None:
    """Raises InvalidError (NOT_SUPPORTED) for what a node among others does not carry out yet: it is not ignored."""
    for option, said in (("concurrency", flow.concurrency), ("throttle", flow.throttle)):
        if said:
            raise InvalidError(
                "NOT_SUPPORTED", f"{where}: {option}: a server with --redis does not carry it out yet", fields=()
            )


def _check_gathering(where: str, flow: Flow) -> None:
    if flow.debounce is not None and flow.batch is not None:
        raise _bad(where, "batch", "a function gathers events by batch or by debounce, not by both")
    if flow.singleton is not None and (flow.debounce is not None or flow.batch is not None):
        raise _bad(where, "singleton", "not together with batch or debounce: a run that gathers has not started yet")
    if (debounce := flow.debounce) is not None:
        _span(where, "debounce", "period", debounce.period_ms, _GATHER_MS)
        _key(where, "debounce", debounce.key)
        if debounce.max_wait_ms:
            _span(where, "debounce", "max_wait", debounce.max_wait_ms, debounce.period_ms)
    if (batch := flow.batch) is not None:
        if not 2 <= batch.max_size <= _BATCH_MAX:
            raise _bad(where, "batch", f"max_size is not 2 to {_BATCH_MAX}")
        _span(where, "batch", "timeout", batch.timeout_ms, _GATHER_MS)
        _key(where, "batch", batch.key)
        if batch.condition:
            expressions.check_trigger(batch.condition, f"{where}: batch: if")


def check_labels(where: str, labels: tuple[tuple[str, str], ...]) -> None:
    """Raises InvalidError (BAD_LABEL) for labels of a function or a worker that are too many, too long or no text."""
    if len(labels) > _LABELS_MAX:
        raise InvalidError("BAD_LABEL", f"{where}: more than {_LABELS_MAX} labels", fields=((where, "labels"),))
    for label in labels:
        for text in label:
            if len(text.encode("utf-8", "surrogatepass")) > LIMITS.key_bytes or not text.isprintable() or not label[0]:
                message = f"{where}: label {label[0][:64]!r}: at most {LIMITS.key_bytes} printable bytes, and a name"
                raise InvalidError("BAD_LABEL", message, fields=((where, "labels"),))


def _bad(where: str, option: str, why: str) -> InvalidError:
    return InvalidError("BAD_FLOW", f"{where}: {option}: {why}", fields=((f"{where}: {option}", why),))


def _count(where: str, option: str, name: str, value: int) -> None:
    if not 1 <= value <= _COUNT_MAX:
        raise _bad(where, option, f"{name} is not 1 to {_COUNT_MAX}")


def _span(where: str, option: str, name: str, ms: int, least_ms: int) -> None:
    if not least_ms <= ms <= LIMITS.wait_ms:
        raise _bad(where, option, f"{name} is not {least_ms} ms to 366 days")


def _key(where: str, option: str, key: str) -> None:
    if key:
        expressions.check_value(key, f"{where}: {option}: key")


def pack(flow: Flow) -> dict[str, Any]:
    """As JSON; what is not said is left out."""
    return {name: value for name, value in asdict(flow).items() if value}


def unpack(packed: dict[str, Any]) -> Flow:
    """What pack made."""
    kinds = {"throttle": Throttle, "rate_limit": RateLimit, "debounce": Debounce, "batch": Batch}
    said: dict[str, Any] = {name: kind(**packed[name]) for name, kind in kinds.items() if name in packed}
    if "singleton" in packed:
        singleton = packed["singleton"]
        said["singleton"] = Singleton(singleton["key"], SingletonMode(singleton["mode"]))
    limits = tuple(
        Concurrency(item["limit"], item["key"], Scope(item["scope"]), Hold(item["hold"]))
        for item in packed.get("concurrency", ())
    )
    return Flow(concurrency=limits, priority=packed.get("priority", ""), **said)
