"""Outcomes: first wins, numbers once, and the order in which a re-entry reads them (H16, H19)."""

from __future__ import annotations

from typing import Any

import pytest
from stepwell_server.model.commit import Verdict
from stepwell_server.model.journal import Number, OutcomeDelete, StepKind, WaitDelete
from stepwell_server.ports.store import RunState, Store

from tests.contract.rows import (
    ENV,
    by_event,
    by_time_out,
    event,
    held_run,
    outcome,
    parked_run,
    run,
    run_id,
    sleep,
    wait,
)
from tests.contract.saying import keys, open_keys, put, say, state
from tests.support.stores import FullStore


def number(key: str, n: int) -> Number:
    return Number(ENV, run_id(1), key, n)


async def test_an_outcome_is_inserted_though_nobody_waits_for_it(store: Store) -> None:
    await put(store, runs=[held_run()], outcomes=[outcome("charge", number=1), outcome("$cancel")])
    assert (await state(store)).outcomes == (outcome("charge", number=1), outcome("$cancel"))


async def test_an_outcome_is_inserted_beside_the_wait_of_another_run(store: Store) -> None:
    await put(store, runs=[parked_run(1), parked_run(2)], waits=[wait(n=2)])
    await put(store, outcomes=[by_event(n=1)])
    assert (await keys(store, 1), await open_keys(store, 2)) == (["booking"], ["booking"])


async def test_a_resolve_closes_its_wait_and_inserts_its_outcome(store: Store) -> None:
    await put(store, runs=[parked_run()], waits=[wait(), sleep()])
    assert await say(store, resolves=[by_event()]) == Verdict.APPLIED
    assert (await keys(store), await open_keys(store)) == (["booking"], ["nap"])


async def test_a_resolve_without_its_wait_inserts_nothing_and_hinders_nothing(store: Store) -> None:
    await put(store, runs=[parked_run()], waits=[sleep()])
    asleep = outcome("nap", kind=int(StepKind.SLEEP), output=None)
    assert await say(store, resolves=[by_event(), asleep], outcomes=[outcome("x")]) == Verdict.APPLIED
    assert sorted(await keys(store)) == ["nap", "x"]


async def test_a_key_that_was_abandoned_stays_closed(store: Store) -> None:
    await put(store, runs=[held_run()], waits=[wait()])
    await put(store, wait_deletes=[WaitDelete(ENV, run_id(1), "booking")])
    await put(store, resolves=[by_event()])
    assert await keys(store) == []


async def test_a_wait_opened_by_the_same_commit_is_not_resolved_by_it(store: Store) -> None:
    await put(store, runs=[held_run()], resolves=[by_event()], waits=[wait()])
    assert (await keys(store), await open_keys(store)) == ([], ["booking"])


async def test_several_waits_of_several_runs_are_resolved_by_one_commit(store: Store) -> None:
    waits = [wait(n=1), wait("again", n=1), wait(n=2)]
    await put(store, runs=[parked_run(1), parked_run(2)], waits=waits)
    await put(store, resolves=[by_event(n=1), by_event("again", n=1), by_event(n=2)])
    assert (sorted(await keys(store, 1)), await keys(store, 2)) == (["again", "booking"], ["booking"])


async def test_a_resolve_that_follows_loses_to_the_one_before(store: Store) -> None:
    await put(store, runs=[parked_run()], waits=[wait()])
    await put(store, resolves=[by_time_out()])
    await put(store, resolves=[by_event()])
    assert (await state(store)).outcomes == (by_time_out(),)


async def test_an_undelivered_outcome_gets_its_number_and_nothing_else_changes(store: Store) -> None:
    row = outcome("charge", output=b"\x00\xff", failure=None, input_hash=b"\x01", child_id="run_c", event_id="evt_x")
    await put(store, runs=[held_run()], outcomes=[row])
    await put(store, numbers=[number("charge", 4)])
    assert (await state(store)).outcomes == (row._replace(number=4),)


async def test_an_outcome_is_numbered_only_once(store: Store) -> None:
    await put(store, runs=[held_run()], outcomes=[outcome("a"), outcome("b", number=1)])
    await put(store, numbers=[number("a", 2)])
    await put(store, numbers=[number("a", 3), number("b", 4)])
    assert [(row.key, row.number) for row in (await state(store)).outcomes] == [("b", 1), ("a", 2)]


async def test_a_number_for_an_unknown_key_does_nothing(store: Store) -> None:
    await put(store, runs=[held_run()])
    assert await say(store, numbers=[number("a", 1)]) == Verdict.APPLIED
    assert await keys(store) == []


async def test_an_outcome_inserted_by_a_commit_is_numbered_by_it(store: Store) -> None:
    await put(store, runs=[held_run()], waits=[wait()])
    await put(store, outcomes=[outcome("a")], resolves=[by_event()], numbers=[number("a", 1), number("booking", 2)])
    assert [(row.key, row.number) for row in (await state(store)).outcomes] == [("a", 1), ("booking", 2)]


async def test_an_undelivered_outcome_that_nobody_asks_for_is_deleted(store: Store) -> None:
    await put(store, runs=[held_run()], outcomes=[outcome("a"), outcome("b")])
    await put(store, outcome_deletes=[OutcomeDelete(ENV, run_id(1), "a")])
    assert await keys(store) == ["b"]


async def test_a_delivered_outcome_is_never_deleted(store: Store) -> None:
    await put(store, runs=[held_run()], outcomes=[outcome("a", number=1), outcome("b")])
    gone = [OutcomeDelete(ENV, run_id(1), key) for key in ("a", "b", "unknown")]
    await put(store, numbers=[number("b", 2)], outcome_deletes=gone)
    assert await keys(store) == ["a", "b"]


async def test_a_run_is_loaded_with_its_event_its_outcomes_and_its_waits(store: Store) -> None:
    await put(store, events=[event(1), event(2)], runs=[held_run(1), held_run(2)])
    await put(store, outcomes=[outcome(n=1), outcome("other", n=2)], waits=[sleep(n=1), wait(n=2)])
    loaded = await store.load(ENV, [run_id(1), run_id(2), run_id(3)])
    assert loaded == {
        run_id(1): RunState(held_run(1), event(1), (outcome(n=1),), (sleep(n=1),)),
        run_id(2): RunState(held_run(2), event(2), (outcome("other", n=2),), (wait(n=2),)),
    }


async def test_a_run_without_an_event_is_loaded_without_one(store: Store) -> None:
    await put(store, runs=[run(1, event_id=None, input=b"{}"), run(2)])
    loaded = await store.load(ENV, [run_id(1), run_id(2)])
    assert [loaded[run_id(n)].event for n in (1, 2)] == [None, None]


async def test_a_run_of_another_environment_is_not_loaded(store: Store) -> None:
    await put(store, runs=[run()], outcomes=[outcome("x", env="test")], events=[event(env="test")])
    assert await store.load("test", [run_id(1)]) == {}
    assert await state(store) == RunState(run(), None, (), ())


async def test_nothing_is_loaded_for_no_ids(store: Store) -> None:
    assert await store.load(ENV, []) == {}


async def test_outcomes_are_loaded_by_number_then_the_undelivered_in_the_order_they_were_inserted(store: Store) -> None:
    await put(store, runs=[held_run()], waits=[wait("m")])
    await put(store, outcomes=[outcome("z"), outcome("y", number=10)])
    await put(store, resolves=[by_event("m")])
    await put(store, outcomes=[outcome("a"), outcome("b", number=9), outcome("c", number=2)])
    await put(store, outcomes=[outcome("d")])
    assert await keys(store) == ["c", "b", "y", "z", "m", "a", "d"]


async def test_outcomes_of_one_millisecond_keep_the_order_of_their_commits(store: Store) -> None:
    await put(store, runs=[held_run()])
    inserted = [f"k{n}" for n in (5, 3, 9, 1, 7, 0)]
    for key in inserted:
        await put(store, outcomes=[outcome(key)])
    assert await keys(store) == inserted


KINDS: dict[str, dict[str, Any]] = {
    "an output": {"output": b'{"a":1}'},
    "an empty output": {"output": b""},
    "a failure": {"output": None, "failure": b'{"message":"no"}'},
    "neither": {"output": None},
    "an encoding": {"output": b"\x00\x01", "output_encoding": "proto"},
}


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
async def test_an_outcome_comes_back_as_it_was_written(store: Store, changes: dict[str, Any]) -> None:
    await put(store, runs=[held_run()], outcomes=[outcome(**changes)])
    assert (await state(store)).outcomes == (outcome(**changes),)


async def test_changes_are_what_lies_behind_a_number_and_what_has_none(store: FullStore) -> None:
    seen = [outcome(f"k{n}", number=n) for n in range(1, 6)]
    cancel = outcome("$cancel", number=2)._replace(kind=int(StepKind.CANCEL))
    await put(store, events=[event()], runs=[run(1), run(2)], waits=[wait()])
    await put(store, outcomes=[*(row for row in seen if row.number != 2), cancel, outcome("new"), outcome("x", n=2)])
    whole = await state(store)
    assert await store.changes(ENV, run_id(1), 0) == whole
    for after, expected in ((3, ["$cancel", "k4", "k5", "new"]), (9, ["$cancel", "new"])):
        changes = await store.changes(ENV, run_id(1), after)
        assert changes is not None
        assert [row.key for row in changes.outcomes] == expected
        assert (changes.run, changes.event, changes.waits) == (whole.run, whole.event, whole.waits)
    assert await store.changes(ENV, run_id(9), 0) is None
    assert await store.changes("test", run_id(1), 0) is None
