"""Functions: what the decorator reads, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel
from stepwell import App, Batch, Event, RegistrationError, Retry, Step, SyncStep, Trigger


@dataclass
class SignedUp:
    email: str


class Charge(BaseModel):
    amount: int


def test_a_function_says_what_it_is() -> None:
    app = App("shop")

    @app.function(on=["user/signed.up", Trigger("user/*", if_="event.data.vip")], retries=2, strict=True)
    async def drip(step: Step, event: Event[Charge]) -> Charge:
        return event.data

    spec = app.specs()[0]
    assert (drip.id, spec.name, spec.strict, spec.retry.max_attempts) == ("shop/drip", "drip", True, 3)
    assert [(t.event, t.condition) for t in spec.triggers] == [("user/signed.up", ""), ("user/*", "event.data.vip")]
    assert b'"amount"' in spec.input_schema
    assert b'"amount"' in spec.output_schema


def test_time_outs_are_registered_in_milliseconds() -> None:
    app = App("shop")

    @app.function(timeout="1h30m", start_timeout=timedelta(seconds=20))
    async def timed(step: Step) -> None: ...

    @app.function
    async def free(step: Step) -> None: ...

    assert [(one.timeout_ms, one.start_timeout_ms) for one in app.specs()] == [(5_400_000, 20_000), (0, 0)]


def test_the_event_is_read_as_its_annotation_says() -> None:
    app = App("shop")

    @dataclass
    class Local:
        n: int

    @app.function
    async def here(event: Event[Local], step: Step) -> None: ...

    assert here.parameters == ["event", "step"]
    assert here.decode_input is not None
    assert here.decode_input({"n": 1}) == Local(1)


def test_a_function_that_gathers_batches_takes_a_list_of_events() -> None:
    app = App("shop")

    @app.function(on="a", batch=Batch(10, "5s"))
    async def typed(step: Step, events: list[Event[Charge]]) -> None: ...

    @app.function(on="a", batch=Batch(10, "5s"))
    def plain(events, step): ...  # type: ignore[no-untyped-def]  # pyright: ignore

    assert (typed.parameters, plain.parameters) == (["step", "events"], ["events", "step"])
    assert typed.decode_input is not None
    assert typed.decode_input({"amount": 1}) == Charge(amount=1)
    assert b'"amount"' in app.specs()[0].triggers[0].schema


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "a/b"}, "function name 'a/b'"),
        ({"name": ""}, "function name ''"),
        ({"name": "x" * 129}, "128"),
        ({"retries": -1}, "retries=-1"),
        ({"retries": 100}, "retries=100"),
        ({"retries": "3"}, "retries='3'"),
        ({"retries": Retry(attempts=0)}, "attempts=0"),
        ({"retries": Retry(initial="4x")}, "initial"),
        ({"retries": Retry(factor=0.5)}, "factor"),
        ({"retries": Retry(attempts="3")}, "attempts='3'"),  # pyright: ignore[reportArgumentType]
        ({"retries": Retry(attempts=2.5)}, "attempts=2.5"),  # pyright: ignore[reportArgumentType]
        ({"retries": Retry(factor="2")}, "factor='2'"),  # pyright: ignore[reportArgumentType]
        ({"retries": Retry(factor=float("nan"))}, "factor=nan"),
        ({"retries": Retry(jitter="no")}, "jitter='no'"),  # pyright: ignore[reportArgumentType]
        ({"on": ""}, "an event needs a name"),
        ({"on": "a*b"}, "wildcard"),
        ({"on": "a\n"}, "control"),
        ({"on": "x" * 257}, "256"),
        ({"on": 5}, "neither"),
        ({"timeout": "4x"}, "function drip, timeout: '4x' is no duration"),
        ({"timeout": 0}, "function drip, timeout: it must be longer than zero"),
        ({"timeout": -1}, "negative"),
        ({"timeout": "367d"}, "366 days"),
        ({"start_timeout": "2 parsecs"}, "function drip, start_timeout"),
        ({"start_timeout": True}, "function drip, start_timeout"),
        ({"on": ["a", 5]}, "neither"),
        ({"on": [f"e{n}" for n in range(11)]}, "at most 10 triggers, not 11"),
        ({"on": Trigger("a", "x" * 2_049)}, "2048"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], says: str) -> None:
    async def drip(step: Step) -> None: ...

    with pytest.raises(RegistrationError, match="function") as caught:
        App("shop").function(**options)(drip)
    assert says in str(caught.value)


def test_wrong_functions_are_refused() -> None:
    app = App("shop")

    async def one(step: Step) -> None: ...
    async def stranger(step: Step, other: int) -> None: ...
    async def two_steps(a: Step, b: Step) -> None: ...
    async def keyword(*, step: Step) -> None: ...
    async def sync_flavour(step: SyncStep) -> None: ...
    def async_flavour(step: Step) -> None: ...
    def generator(step: SyncStep) -> Any:
        yield 1

    async def unknown(step: Step, event: Event[Nowhere]) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    app.function(on="a")(one)
    for fn, says in [
        (one, "already"),
        (stranger, "other"),
        (two_steps, "b"),
        (keyword, "plain"),
        (sync_flavour, "Step"),
        (async_flavour, "SyncStep"),
        (generator, "generators"),
        (unknown, "Nowhere"),
        (5, "5"),
    ]:
        with pytest.raises(RegistrationError, match=says):
            app.function(on="a")(fn)  # type: ignore[arg-type]
    with pytest.raises(RegistrationError, match="app name"):
        App("a b")


def test_a_list_of_events_and_a_batch_belong_together() -> None:
    async def one(step: Step, event: Event[Charge]) -> None: ...
    async def none(step: Step) -> None: ...
    async def many(step: Step, events: list[Event[Charge]]) -> None: ...
    async def numbers(step: Step, events: list[int]) -> None: ...

    for fn in (one, none):
        with pytest.raises(RegistrationError, match=f"function {fn.__name__}, batch: .* `events: list"):
            App("shop").function(on="a", batch=Batch(10, "5s"))(fn)
    with pytest.raises(RegistrationError, match="function many: only one with batch= gets a list of events"):
        App("shop").function(on="a")(many)
    with pytest.raises(RegistrationError, match="parameter 'events' is neither"):
        App("shop").function(on="a", batch=Batch(10, "5s"))(numbers)


def test_importing_does_no_work() -> None:
    code = "import sys, stepwell; assert not {'grpc', 'google.protobuf', 'asyncio'} & set(sys.modules); stepwell.App"
    code += "; assert 'grpc' not in sys.modules and 'pydantic' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
