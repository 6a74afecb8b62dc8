"""What a function may say of its flow, and that it is kept as it was said."""

from __future__ import annotations

import orjson
import pytest
from stepwell_server.engine import flow
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

ALL = (
    Flow(
        (Concurrency(3, "event.data.user", Scope.APP, Hold.RUN), Concurrency(10)),
        Throttle(5, 60_000, 2, "event.name"),
        RateLimit(1, 86_400_000, "event.data.user"),
        Debounce(30_000, "event.data.id", 90_000),
        None,
        None,
        "event.data.vip ? 120 : 0",
    ),
    Flow(rate_limit=RateLimit(3, 1_000), singleton=Singleton("event.data.user", SingletonMode.CANCEL)),
    Flow(batch=Batch(100, 5_000, "event.data.tenant", "event.data.size < 10")),
    Flow(singleton=Singleton()),
)


@pytest.mark.parametrize("said", ALL)
def test_what_was_said_is_right_and_kept(said: Flow) -> None:
    flow.check("function shop/a", said)
    assert flow.unpack(orjson.loads(orjson.dumps(flow.pack(said)))) == said


@pytest.mark.parametrize(
    ("said", "reason", "why"),
    [
        (Flow((Concurrency(0),)), "BAD_FLOW", "concurrency: limit is not 1 to 1000000"),
        (Flow((Concurrency(1_000_001),)), "BAD_FLOW", "concurrency: limit is not 1 to 1000000"),
        (Flow(tuple(Concurrency(1, str(n)) for n in range(5))), "BAD_FLOW", "concurrency: 5 limits, more than 4"),
        (Flow((Concurrency(1), Concurrency(2))), "BAD_FLOW", "two limits count the same runs"),
        (Flow((Concurrency(1, "event.data["),)), "BAD_EXPRESSION", "concurrency: key: not a CEL expression"),
        (Flow((Concurrency(1, "x" * 3000),)), "BAD_EXPRESSION", "concurrency: key: the expression is longer"),
        (Flow(throttle=Throttle(1, 999)), "BAD_FLOW", "throttle: period is not 1000 ms to 366 days"),
        (Flow(throttle=Throttle(0, 1000)), "BAD_FLOW", "throttle: limit"),
        (Flow(throttle=Throttle(1, 1000, 1_000_001)), "BAD_FLOW", "throttle: burst"),
        (Flow(rate_limit=RateLimit(1, 367 * 86_400_000)), "BAD_FLOW", "rate_limit: period"),
        (Flow(debounce=Debounce(99)), "BAD_FLOW", "debounce: period is not 100 ms"),
        (Flow(debounce=Debounce(1_000, "", 500)), "BAD_FLOW", "debounce: max_wait is not 1000 ms"),
        (Flow(batch=Batch(1, 1_000)), "BAD_FLOW", "batch: max_size is not 2 to 1000"),
        (Flow(batch=Batch(2, 1_000, "", "1 + 1")), "BAD_EXPRESSION", "is not true or false"),
        (Flow(batch=Batch(2, 1_000), debounce=Debounce(1_000)), "BAD_FLOW", "by batch or by debounce, not by both"),
        (Flow(batch=Batch(2, 1_000), singleton=Singleton()), "BAD_FLOW", "singleton: not together with batch"),
        (Flow(debounce=Debounce(1_000), singleton=Singleton()), "BAD_FLOW", "singleton: not together with batch"),
        (Flow(singleton=Singleton("nobody")), "BAD_EXPRESSION", "singleton: key"),
        (Flow(priority="event.data.'"), "BAD_EXPRESSION", "priority: not a CEL expression"),
    ],
)
def test_what_can_never_be_right_is_refused(said: Flow, reason: str, why: str) -> None:
    with pytest.raises(InvalidError) as refused:
        flow.check("function shop/a", said)
    assert refused.value.reason == reason
    assert refused.value.message.startswith("function shop/a: ")
    assert why in refused.value.message
