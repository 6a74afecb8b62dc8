"""The sentences of ports/limiter.py, held against every limiter there is."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from stepwell_server.adapters.local.limiter import LocalLimiter
from stepwell_server.model.pace import Pace
from stepwell_server.ports.limiter import Ask, Held, Limiter, Slot, Use

NOW = 1_800_000_000_000


@pytest.fixture(params=["local"])
def limiter(request: pytest.FixtureRequest) -> Limiter:
    return {"local": LocalLimiter}[request.param]()


def ask(run_id: str, *slots: Slot, pace: Pace | None = None) -> Ask:
    return Ask(run_id, slots, pace)


def asked(limiter: Limiter, *asks: Ask, now: int = NOW) -> list[Held | None]:
    """What is answered, in the order of the asks."""
    answers: dict[str, Held | None] = {}
    limiter.acquire(asks, now, lambda one, held: answers.update({one.run_id: held}))
    return [answers[one.run_id] for one in asks]


def granted(limiter: Limiter, *asks: Ask, now: int = NOW) -> list[bool]:
    return [held is None for held in asked(limiter, *asks, now=now)]


def used(limiter: Limiter, *limits: str) -> list[int]:
    return [use.used for use in limiter.use(limits)]


def freed(limiter: Limiter) -> Sequence[str]:
    """The limits that are told free from now on."""
    told: list[str] = []
    limiter.listen(told.append)
    return told


def test_a_limit_grants_as_many_slots_as_it_has(limiter: Limiter) -> None:
    two = Slot("l", 2)
    assert granted(limiter, ask("a", two), ask("b", two), ask("c", two)) == [True, True, False]
    assert asked(limiter, ask("c", two)) == [Held("l", 0, ())]
    assert used(limiter, "l") == [2]


def test_a_slot_that_is_given_back_is_granted_again_and_told_free(limiter: Limiter) -> None:
    told = freed(limiter)
    one = Slot("l", 1)
    assert granted(limiter, ask("a", one), ask("b", one)) == [True, False]
    limiter.release("a", ["l"])
    assert told == ["l"]
    assert granted(limiter, ask("b", one)) == [True]


def test_what_is_given_back_twice_or_was_never_held_frees_nothing(limiter: Limiter) -> None:
    told = freed(limiter)
    one = Slot("l", 1)
    assert granted(limiter, ask("a", one)) == [True]
    limiter.release("b", ["l", "m"])
    limiter.release("a", ["l"])
    limiter.release("a", ["l"])
    assert told == ["l"]
    assert granted(limiter, ask("b", one), ask("c", one)) == [True, False]


def test_a_run_holds_a_slot_once_however_often_it_asks(limiter: Limiter) -> None:
    two = Slot("l", 2)
    assert granted(limiter, ask("a", two), ask("a", two), ask("b", two), ask("a", two)) == [True] * 4
    assert used(limiter, "l") == [2]
    limiter.release("a", ["l"])
    assert used(limiter, "l") == [1]


def test_all_slots_of_an_ask_are_granted_or_none(limiter: Limiter) -> None:
    one, two = Slot("one", 1), Slot("two", 2)
    assert granted(limiter, ask("a", one, two)) == [True]
    assert asked(limiter, ask("b", two, one)) == [Held("one", 0, ("two",))]
    assert used(limiter, "one", "two") == [1, 1]


def test_whoever_is_held_learns_which_other_limits_have_room(limiter: Limiter) -> None:
    full, other, free = Slot("full", 1), Slot("other", 1), Slot("free", 1)
    assert granted(limiter, ask("a", full, other)) == [True]
    assert asked(limiter, ask("b", free, full, other)) == [Held("full", 0, ("free",))]


def test_the_number_of_a_limit_is_that_of_whoever_asks(limiter: Limiter) -> None:
    assert granted(limiter, *(ask(run, Slot("l", 3)) for run in "abc")) == [True] * 3
    assert granted(limiter, ask("d", Slot("l", 2))) == [False]
    limiter.release("a", ["l"])
    assert granted(limiter, ask("d", Slot("l", 2))) == [False]
    assert granted(limiter, ask("d", Slot("l", 3))) == [True]
    assert [use.bound for use in limiter.use(["l"])] == [3]


def test_what_is_counted_counts_above_the_limit_until_it_is_given_back(limiter: Limiter) -> None:
    one = Slot("l", 1)
    for run in "ab":
        limiter.count(run, [one])
    assert used(limiter, "l") == [2]
    limiter.release("a", ["l"])
    assert granted(limiter, ask("c", one)) == [False]
    limiter.release("b", ["l"])
    assert granted(limiter, ask("c", one)) == [True]


def test_a_pace_spreads_starts_evenly(limiter: Limiter) -> None:
    pace = Pace("p", 2, 10_000, 0)
    assert granted(limiter, ask("a", pace=pace)) == [True]
    assert asked(limiter, ask("b", pace=pace)) == [Held("p", NOW + 5_000, ())]
    assert granted(limiter, ask("b", pace=pace), now=NOW + 4_999) == [False]
    assert granted(limiter, ask("b", pace=pace), now=NOW + 5_000) == [True]
    assert asked(limiter, ask("c", pace=pace), now=NOW + 5_000) == [Held("p", NOW + 10_000, ())]


def test_a_burst_is_granted_at_once_and_is_there_again_after_a_rest(limiter: Limiter) -> None:
    pace = Pace("p", 1, 1_000, 2)
    assert granted(limiter, *(ask(run, pace=pace) for run in "abcd")) == [True, True, True, False]
    assert granted(limiter, ask("d", pace=pace), ask("e", pace=pace), now=NOW + 1_000) == [True, False]
    later = NOW + 60_000
    assert granted(limiter, *(ask(run, pace=pace) for run in "efgh"), now=later) == [True, True, True, False]


def test_a_start_that_no_slot_is_free_for_costs_no_pace(limiter: Limiter) -> None:
    one, pace = Slot("l", 1), Pace("p", 1, 1_000, 0)
    limiter.count("a", [one])
    assert asked(limiter, ask("b", one, pace=pace)) == [Held("l", 0, ())]
    limiter.release("a", ["l"])
    assert granted(limiter, ask("b", one, pace=pace)) == [True]


def test_a_start_that_comes_too_early_takes_no_slot(limiter: Limiter) -> None:
    one, pace = Slot("l", 1), Pace("p", 1, 1_000, 0)
    assert granted(limiter, ask("a", pace=pace)) == [True]
    assert asked(limiter, ask("b", one, pace=pace)) == [Held("p", NOW + 1_000, ("l",))]
    assert used(limiter, "l") == [0]


def test_many_starts_in_a_short_period_keep_their_pace(limiter: Limiter) -> None:
    pace = Pace("p", 1_000_000, 1_000, 0)
    now, count = float(NOW), 0
    while now < NOW + 20:
        count += granted(limiter, ask(f"r{count}", pace=pace), now=int(now))[0]
        now += 0.01
    assert 19 <= count <= 2_000


def test_limits_in_use_are_listed_page_by_page(limiter: Limiter) -> None:
    for n in range(5):
        limiter.count(f"r{n}", [Slot(f"env|l{n}", 9)])
    limiter.count("other", [Slot("else|l", 1)])
    pace = Pace("env|p", 1, 1_000, 0)
    granted(limiter, ask("a", pace=pace))
    found: list[Use] = []
    while page := limiter.page("env|", found[-1].limit if found else "", 4):
        assert len(page) <= 4
        found += page
    assert found == [*(Use(f"env|l{n}", 1, 9, 0) for n in range(5)), Use("env|p", 0, 1, NOW + 1_000)]


def test_a_limit_that_nobody_uses_is_not_kept(limiter: Limiter) -> None:
    limiter.count("a", [Slot("l", 1)])
    limiter.release("a", ["l"])
    assert limiter.page("", "", 9) == []
