"""The options of a function that limit, gather and order its runs, as the worker registers them."""

from __future__ import annotations

from typing import Any

import pytest
import stepwell
from stepwell.errors import UsageError
from stepwell.frames import Introduction, hello_frames
from stepwell.settings import WorkerSettings
from stepwell.v1 import function_pb2


def registered(**options: Any) -> function_pb2.FunctionSpec:
    app = stepwell.App("shop")

    async def one(step: stepwell.Step) -> None: ...
    async def many(step: stepwell.Step, events: list[stepwell.Event[Any]]) -> None: ...

    app.function(name="a", on="x", **options)(many if "batch" in options else one)
    return app.specs()[0]


def test_a_function_without_such_options_says_nothing() -> None:
    assert not registered().HasField("flow")
    assert not registered(singleton=False, concurrency=()).HasField("flow")


def test_every_option_is_said() -> None:
    flow = registered(
        concurrency=[10, stepwell.Concurrency(2, key="event.data.user", scope="app", hold="run")],
        throttle=stepwell.Throttle(5, "1m", burst=2),
        rate_limit=stepwell.RateLimit(1, "1d", key="event.data.user"),
        debounce=stepwell.Debounce("30s", max_wait="5m"),
        priority="event.data.vip ? 120 : 0",
    ).flow
    assert [(one.limit, one.key, one.scope, one.hold) for one in flow.concurrency] == [
        (10, "", function_pb2.Concurrency.SCOPE_FUNCTION, function_pb2.Concurrency.HOLD_EXECUTING),
        (2, "event.data.user", function_pb2.Concurrency.SCOPE_APP, function_pb2.Concurrency.HOLD_RUN),
    ]
    assert (flow.throttle.limit, flow.throttle.period_ms, flow.throttle.burst) == (5, 60_000, 2)
    assert (flow.rate_limit.limit, flow.rate_limit.period_ms, flow.rate_limit.key) == (1, 86_400_000, "event.data.user")
    assert (flow.debounce.period_ms, flow.debounce.max_wait_ms) == (30_000, 300_000)
    single = registered(singleton=stepwell.Singleton(mode="cancel")).flow.singleton
    assert single.mode == function_pb2.Singleton.MODE_CANCEL
    assert flow.priority == "event.data.vip ? 120 : 0"
    batch = registered(batch=stepwell.Batch(100, "5s", key="event.data.tenant", if_="event.data.n > 1")).flow.batch
    assert (batch.max_size, batch.timeout_ms, batch.key, batch.condition) == (
        100, 5_000, "event.data.tenant", "event.data.n > 1",
    )  # fmt: skip
    assert registered(concurrency=3).flow.concurrency[0].limit == 3
    assert registered(singleton=True).flow.singleton.mode == function_pb2.Singleton.MODE_SKIP


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"concurrency": 0}, "concurrency: limit 0 is not a whole number from 1 to 1000000"),
        ({"concurrency": "3"}, "concurrency: '3' is neither a number nor a Concurrency"),
        ({"concurrency": [1, 2]}, "concurrency: two limits count the same runs"),
        ({"concurrency": stepwell.Concurrency(1, scope="galaxy")}, "scope 'galaxy' is none of"),  # pyright: ignore[reportArgumentType]
        ({"concurrency": [stepwell.Concurrency(1, str(n)) for n in range(5)]}, "at most 4 limits"),
        ({"throttle": 5}, "throttle: 5 is not a Throttle"),
        ({"throttle": stepwell.Throttle(1, "10ms")}, "throttle: period '10ms' is not 1000 ms to 366 days"),
        ({"rate_limit": stepwell.RateLimit(1, "soon")}, "rate_limit: period"),
        ({"debounce": stepwell.Debounce("10s", max_wait="1s")}, "debounce: max_wait '1s' is not 10000 ms"),
        ({"batch": stepwell.Batch(1, "1s")}, "batch: max_size 1"),
        ({"batch": stepwell.Batch(5, "1s"), "debounce": stepwell.Debounce("1s")}, "by batch or by debounce"),
        ({"singleton": True, "debounce": stepwell.Debounce("1s")}, "singleton: not together with batch or debounce"),
        ({"singleton": "yes"}, "singleton: 'yes' is neither True nor a Singleton"),
        ({"priority": 5}, "priority: 5 is not a CEL expression"),
        ({"priority": "x" * 3000}, "priority: an expression is at most 2048 bytes"),
        ({"throtle": 1}, "there is no option throtle"),
    ],
)
def test_a_bad_option_is_refused_by_name(options: dict[str, Any], why: str) -> None:
    with pytest.raises(stepwell.RegistrationError, match="function a: ") as refused:
        registered(**options)
    assert why in str(refused.value)


def test_labels_are_said_of_functions_and_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert dict(registered(labels={"gpu": "a100"}).labels) == {"gpu": "a100"}
    assert not registered().labels
    monkeypatch.setenv("STEPWELL_LABELS", "gpu=a100, region=eu,empty=")
    assert WorkerSettings.resolve().labels == {"gpu": "a100", "region": "eu", "empty": ""}
    assert WorkerSettings.resolve(labels={"disk": "big"}).labels == {"disk": "big"}
    introduction = Introduction("", "shop", "d1", "i1", "0", [], {"disk": "big"})
    (frame,) = hello_frames(introduction, "", 1, [])
    assert dict(frame.hello.labels) == {"disk": "big"}


@pytest.mark.parametrize("text", ["gpu", "gpu=a,gpu=b", "=x", "g\x07=x"])
def test_labels_of_the_environment_that_are_none_are_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("STEPWELL_LABELS", text)
    with pytest.raises(UsageError, match=r"abels|LABELS"):
        WorkerSettings.resolve()


@pytest.mark.parametrize("labels", [["gpu"], {"": "x"}, {"a": 1}, {"a": "x" * 129}, {f"l{n}": "x" for n in range(17)}])
def test_labels_of_a_function_that_are_none_are_refused(labels: Any) -> None:
    with pytest.raises(stepwell.RegistrationError, match="labels"):
        registered(labels=labels)


def test_a_worker_whose_functions_ask_for_labels_needs_a_server_that_heeds_them() -> None:
    introduction = Introduction("", "shop", "d1", "i1", "0", [registered(labels={"gpu": "a100"})])
    assert "flow" in introduction.missing(["timeouts"])
    assert not introduction.missing(["timeouts", "flow"])
