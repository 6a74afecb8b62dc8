"""Lines, slots and priorities: tables of what a flow makes of an event."""

from __future__ import annotations

from typing import Any

import pytest
from stepwell_server.engine import lines
from stepwell_server.model.flow import Concurrency, Flow, Hold, Scope, Throttle
from stepwell_server.model.function import FunctionSpec
from stepwell_server.model.pace import NS, Pace, free_ms, started
from stepwell_server.ports.limiter import Slot


def line(flow: Flow, data: Any, noted: list[str] | None = None) -> str:
    notes = noted if noted is not None else []
    event = {"id": "evt_1", "name": "n", "data": data, "time_ms": 1, "metadata": {}}
    return lines.line_of(flow, lambda: event, lambda text, why: notes.append(text))


def keyed(*keys: str) -> Flow:
    return Flow(tuple(Concurrency(1, key) for key in keys))


VALUES: dict[str, tuple[Any, str]] = {
    "a text": ("7", '["7"]'),
    "a number": (7, "[7]"),
    "a number with a fraction of nothing": (7.0, "[7]"),
    "a fraction": (7.5, "[7.5]"),
    "a truth": (True, "[true]"),
    "nothing": (None, "[null]"),
    "a list": ([1, "a", [2.0]], '[[1,"a",[2.0]]]'),
    "an object in any order": ({"b": 1, "a": {"d": 1, "c": 2}}, '[{"a":{"c":2,"d":1},"b":1}]'),
    "a text with a control character": ("a\x01b", '["a\\u0001b"]'),
    "a text beyond ASCII": ("Zoë", '["Zoë"]'),
}


@pytest.mark.parametrize(("value", "text"), VALUES.values(), ids=VALUES)
def test_a_line_is_a_mark_and_the_values_as_json(value: Any, text: str) -> None:
    flow = keyed("event.data.k")
    found = line(flow, {"k": value})
    assert found == lines.mark(flow) + text
    assert lines.fits(flow, found)
    assert not lines.fits(keyed("event.data.other"), found)


def test_a_function_without_keys_has_the_empty_line_and_every_line_fits_it() -> None:
    assert line(Flow((Concurrency(3),), Throttle(1, 1_000)), {}) == ""
    assert lines.fits(Flow((Concurrency(3),)), "whatever")


def test_each_expression_is_in_a_line_once() -> None:
    flow = Flow(
        (Concurrency(1, "event.data.a"), Concurrency(2, "event.data.b")), Throttle(1, 1_000, key="event.data.a")
    )
    assert line(flow, {"a": 1, "b": 2})[8:] == "[1,2]"


def test_a_long_value_is_its_beginning_and_a_hash() -> None:
    flow = keyed("event.data.k")
    first, second = line(flow, {"k": "x" * 1_000}), line(flow, {"k": "x" * 999 + "y"})
    assert first != second
    assert first[8:].startswith('["\\"xxxx')
    assert len(first) < 128


FAILING = {"missing": "event.data.k", "of no such type": "event.data.n + 'a'", "too long a loop": "1 / 0"}


@pytest.mark.parametrize("key", FAILING.values(), ids=FAILING)
def test_a_key_that_fails_is_null_and_noted(key: str) -> None:
    noted: list[str] = []
    assert line(keyed(key), {"n": 1}, noted)[8:] == "[null]"
    assert noted == [key]


def spec(flow: Flow, name: str = "f", app: str = "shop") -> FunctionSpec:
    return FunctionSpec(f"{app}/{name}", app, name, flow=flow)


def ids(flow: Flow, data: Any, name: str = "f", app: str = "shop") -> list[str]:
    need = lines.needs("dev", spec(flow, name, app), line(flow, data))
    return [slot.limit for slot in need.executing + need.whole]


def test_a_limit_of_a_function_is_its_own_for_each_expression_and_value() -> None:
    found = {
        *ids(keyed("event.data.a"), {"a": 1, "b": 1}),
        *ids(keyed("event.data.a"), {"a": 2, "b": 1}),
        *ids(keyed("event.data.b"), {"a": 1, "b": 1}),
        *ids(keyed("event.data.a"), {"a": 1}, name="g"),
        *ids(Flow((Concurrency(1),)), {}),
    }
    assert len(found) == 5


def test_a_limit_of_a_wider_scope_is_one_wherever_the_value_is() -> None:
    of_app, of_all = (
        [Flow((Concurrency(1, key, scope),)) for key in ("event.data.a", "event.data.b")]
        for scope in (Scope.APP, Scope.ENVIRONMENT)
    )
    data = {"a": 7, "b": 7}
    assert ids(of_app[0], data, "f") == ids(of_app[1], data, "g") != ids(of_app[0], data, app="bank")
    assert ids(of_all[0], data, "f") == ids(of_all[1], data, "g", "bank")


def test_what_counts_while_executing_and_what_counts_for_the_whole_run_are_two() -> None:
    flow = Flow((Concurrency(1), Concurrency(2, hold=Hold.RUN)), Throttle(3, 60_000, 2))
    need = lines.needs("dev", spec(flow), "")
    assert need.executing == (Slot("dev|executing|function shop/f|", 1),)
    assert need.whole == (Slot("dev|run|function shop/f|", 2),)
    assert need.pace == Pace("dev|throttle|function shop/f|", 3, 60_000, 2)


def test_a_limit_has_a_name_for_people() -> None:
    flow = keyed("event.data.user")
    (id_,) = ids(flow, {"user": 7})
    name = lines.parse(id_)
    assert (name.env, name.kind, name.scope, name.owner, name.value) == (
        "dev", "executing", Scope.FUNCTION, "shop/f", "7",
    )  # fmt: skip
    assert lines.shown(name, lines.key_of(flow, name)) == "user=7"
    assert lines.key_of(keyed("event.data.other"), name) == ""
    assert lines.shown(lines.parse("dev|executing|app shop|"), "") == "app shop"
    assert lines.shown(lines.parse('dev|executing|environment|"a|b"'), "") == 'key="a|b"'


PRIORITIES: dict[str, tuple[str, int, bool]] = {
    "a number": ("event.data.n", 3_000, False),
    "a fraction is cut": ("2.9", 2_000, False),
    "negative": ("-event.data.n", -3_000, False),
    "clamped": ("1000000", 43_200_000, False),
    "clamped below": ("-1000000", -43_200_000, False),
    "infinite": ("1.0 / 0.0", 43_200_000, False),
    "not a number": ("event.data.s", 0, True),
    "a truth is no number": ("true", 0, True),
    "NaN": ("0.0 / 0.0", 0, True),
    "missing": ("event.data.missing", 0, True),
    "none": ("", 0, False),
}


@pytest.mark.parametrize(("text", "ms", "told"), PRIORITIES.values(), ids=PRIORITIES)
def test_a_priority_is_whole_seconds(text: str, ms: int, told: bool) -> None:
    noted: list[str] = []
    event = {"data": {"n": 3, "s": "x"}}
    assert lines.shift_ms(Flow(priority=text), lambda: event, lambda text, why: noted.append(text)) == ms
    assert bool(noted) == told


def test_a_pace_has_one_moment() -> None:
    pace = Pace("p", 4, 1_000, 1)
    moment = started(0, pace, 10_000)
    assert (moment, free_ms(moment, pace)) == (10_250 * NS, 10_000)
    moment = started(moment, pace, 10_000)
    assert (moment, free_ms(moment, pace)) == (10_500 * NS, 10_250)
    assert started(moment, pace, 20_000) == 20_250 * NS


@pytest.mark.parametrize(
    ("starts", "period_ms", "burst"),
    [(3, 1_000, 0), (7, 1_000, 2), (1_500, 1_000, 0), (700_000, 1_000, 0), (1_000_000, 1_000, 5), (1, 60_000, 0)],
)
def test_whoever_always_wants_to_start_gets_the_whole_pace_and_never_more(
    starts: int, period_ms: int, burst: int
) -> None:
    """However fast: a thousand starts a millisecond too, of which the clock tells one time."""
    pace, moment, now, begun = Pace("p", starts, period_ms, burst), 0, 10_000, list[int]()
    wanted = min(3 * starts, 20_000)
    while len(begun) < wanted:
        if (free := free_ms(moment, pace)) > now:
            now = free
        begun.append(now)
        moment = started(moment, pace, now)
    for at, first in enumerate(begun):
        assert at + starts + burst >= wanted or begun[at + starts + burst] - first >= period_ms
    assert now - 10_000 <= (wanted - burst) * pace.interval_ns // NS
