"""Deciders: each wins, loses, and recognises its own earlier success (H32)."""

from __future__ import annotations

from typing import Any

import pytest
from stepwell_server.model.commit import CommitResult, Decider, Verdict
from stepwell_server.model.journal import Number, StepKind
from stepwell_server.model.run import PausedReason, RunStatus
from stepwell_server.model.session import LeaseWrite, SessionWrite
from stepwell_server.ports.store import Store

from tests.contract.rows import (
    ENV,
    NOW,
    by_event,
    by_time_out,
    commit,
    dedup,
    end,
    held_run,
    lease,
    move,
    outcome,
    parked_run,
    run,
    run_id,
    session,
    session_id,
    take,
    wait,
)
from tests.contract.saying import dedups, keys, open_keys, open_session, put, result, run_row, say, state
from tests.support.stores import FullStore, OpenStore


async def test_the_first_request_of_a_key_wins_and_its_rows_are_written(opened: OpenStore) -> None:
    store = opened.store
    assert await say(store, decider=dedup("r:1", "evt_1"), runs=[run()]) == Verdict.APPLIED
    assert await dedups(opened) == {"r:1": "evt_1"}
    assert await run_row(store) == run()


async def test_a_second_request_of_a_key_loses_and_learns_what_the_first_was_given(opened: OpenStore) -> None:
    store = opened.store
    await put(store, decider=dedup("r:1", "evt_1,evt_2"))
    answer = await result(store, commit(decider=dedup("r:1", "evt_3"), runs=[run()]))
    assert answer == CommitResult(Verdict.LOST, "evt_1,evt_2")
    assert await store.load(ENV, [run_id(1)]) == {}
    assert await dedups(opened) == {"r:1": "evt_1,evt_2"}


async def test_a_request_that_comes_again_with_its_own_value_is_recognised(store: FullStore) -> None:
    again = commit(decider=dedup("r:1", "evt_1"), runs=[run()])
    assert (await result(store, again)).verdict == Verdict.APPLIED
    assert (await result(store, again)).verdict == Verdict.APPLIED


async def test_a_key_is_first_in_each_environment(store: FullStore) -> None:
    await put(store, decider=dedup("r:1", "evt_1"))
    assert await say(store, decider=dedup("r:1", "evt_2", env="test")) == Verdict.APPLIED


async def test_a_move_of_the_expected_turn_changes_the_run(store: Store) -> None:
    await put(store, runs=[run()])
    assert await say(store, decider=move(losses=2)) == Verdict.APPLIED
    assert await run_row(store) == held_run(deployment="d1", losses=2, started_ms=NOW + 5)


async def test_a_move_writes_the_place_that_it_names(store: Store) -> None:
    await put(store, runs=[held_run()])
    again = move(expect_turn=1, turn=1, status=int(RunStatus.QUEUED), session_id=None, priority=1, queued_ms=NOW + 7)
    assert [await say(store, decider=again), await say(store, decider=again)] == [Verdict.APPLIED] * 2
    row = await run_row(store)
    assert (row.status, row.priority, row.queued_ms) == (RunStatus.QUEUED, 1, NOW + 7)


@pytest.mark.parametrize("expect_turn", [0, 2])
async def test_a_move_of_another_turn_loses(store: Store, expect_turn: int) -> None:
    there = held_run(session=2)
    await put(store, runs=[there])
    assert await say(store, decider=move(expect_turn=expect_turn), outcomes=[outcome()]) == Verdict.LOST
    assert await run_row(store) == there
    assert await keys(store) == []


async def test_a_move_of_an_ended_run_loses(store: Store) -> None:
    await put(store, runs=[held_run()])
    await put(store, ends=[end()])
    assert await say(store, decider=move(expect_turn=1)) == Verdict.LOST


async def test_a_move_of_an_unknown_run_loses(store: Store) -> None:
    assert await say(store, decider=move()) == Verdict.LOST


async def test_a_move_that_comes_again_is_recognised_and_raises_no_turn(store: Store) -> None:
    await put(store, runs=[run()])
    assert await say(store, decider=move()) == Verdict.APPLIED
    once = await run_row(store)
    assert await say(store, decider=move()) == Verdict.APPLIED
    assert await run_row(store) == once


DIFFERENT_MOVES: list[dict[str, Any]] = [
    {"session_id": session_id(2)},
    {"session_id": None},
    {"status": int(RunStatus.PARKED)},
    {"reason": int(PausedReason.OPERATOR)},
    {"losses": 1},
    {"priority": 1},
    {"queued_ms": NOW},
    {"failure": b"{}"},
    {"turn": 2},
]


@pytest.mark.parametrize("changes", DIFFERENT_MOVES, ids=lambda changes: "-".join(changes))
async def test_a_move_is_not_recognised_where_the_row_stands_otherwise(store: Store, changes: dict[str, Any]) -> None:
    await put(store, runs=[run()])
    await put(store, decider=move())
    assert await say(store, decider=move(**changes)) == Verdict.LOST


async def test_a_move_is_recognised_though_start_and_deployment_were_set_before_it(store: Store) -> None:
    await put(store, runs=[parked_run(deployment="d0")])
    again = move(expect_turn=1)
    assert [await say(store, decider=again), await say(store, decider=again)] == [Verdict.APPLIED] * 2
    moved = await run_row(store)
    assert (moved.deployment, moved.started_ms, moved.turn) == ("d0", NOW + 1, 2)


async def test_a_move_that_says_nothing_of_start_and_deployment_leaves_them(store: Store) -> None:
    await put(store, runs=[run()])
    await put(store, decider=move(started_ms=None, deployment=""))
    moved = await run_row(store)
    assert (moved.started_ms, moved.deployment) == (None, "")


async def test_a_move_within_a_turn_parks_the_run_and_a_pause_shows_its_failure(store: Store) -> None:
    await put(store, runs=[held_run()])
    parks = move(expect_turn=1, turn=1, status=int(RunStatus.PARKED), session_id=None, started_ms=None)
    assert await say(store, decider=parks) == Verdict.APPLIED
    pauses = parks._replace(status=int(RunStatus.PAUSED), reason=int(PausedReason.WORKER_LOST), failure=b'{"x":1}')
    assert await say(store, decider=pauses) == Verdict.APPLIED
    row = await run_row(store)
    assert (row.status, row.reason, row.failure, row.turn) == (RunStatus.PAUSED, 2, b'{"x":1}', 1)
    assert await say(store, decider=parks) == Verdict.APPLIED
    assert (await run_row(store)).failure is None


@pytest.mark.parametrize("there", [run(), parked_run()], ids=["queued", "parked"])
async def test_a_run_without_a_session_is_taken(store: Store, there: Any) -> None:
    await put(store, runs=[there])
    assert await say(store, decider=take()) == Verdict.APPLIED
    row = await run_row(store)
    assert row == there._replace(
        status=int(RunStatus.RUNNING),
        session_id=session_id(1),
        turn=there.turn + 1,
        started_ms=there.started_ms or NOW + 5,
        deployment="d1",
    )


UNTAKEABLE = {
    "held by another": held_run(session=2),
    "parked with another": parked_run(session_id=session_id(2)),
    "parked with this session": parked_run(session_id=session_id(1)),
    "running without a session": held_run(session_id=None),
    "paused": parked_run(status=int(RunStatus.PAUSED)),
    "ended": parked_run(status=int(RunStatus.COMPLETED), ended_ms=NOW),
    "skipped": run(status=int(RunStatus.SKIPPED), ended_ms=NOW),
    "ended by this session": held_run(status=int(RunStatus.COMPLETED), ended_ms=NOW),
}


@pytest.mark.parametrize("there", UNTAKEABLE.values(), ids=UNTAKEABLE)
async def test_a_run_that_is_not_free_is_not_taken(store: Store, there: Any) -> None:
    await put(store, runs=[there])
    assert await say(store, decider=take(), outcomes=[outcome()]) == Verdict.LOST
    assert await run_row(store) == there
    assert await keys(store) == []


async def test_a_take_of_a_turn_wins_in_that_turn_alone(store: Store) -> None:
    await put(store, runs=[run(), parked_run(2)])
    moved = (await run_row(store, 2)).turn
    assert moved > 0
    assert await say(store, decider=take(2, turn=0)) == Verdict.LOST
    assert await say(store, decider=take(2, turn=moved)) == Verdict.APPLIED
    assert [await say(store, decider=take(turn=0)), await say(store, decider=take(turn=0))] == [Verdict.APPLIED] * 2
    assert await say(store, decider=take(turn=1)) == Verdict.LOST
    assert (await run_row(store)).turn == 1


async def test_an_unknown_run_is_not_taken(store: Store) -> None:
    assert await say(store, decider=take()) == Verdict.LOST


async def test_a_take_that_comes_again_is_recognised_and_raises_no_turn(store: Store) -> None:
    await put(store, runs=[run()])
    assert [await say(store, decider=take()), await say(store, decider=take())] == [Verdict.APPLIED] * 2
    assert (await run_row(store)).turn == 1


async def test_an_end_ends_a_live_run_of_its_turn_with_its_followers(store: Store) -> None:
    await put(store, runs=[held_run(1), parked_run(2)], waits=[wait("child", n=2)])
    assert await say(store, decider=end(), resolves=[by_event("child", n=2)]) == Verdict.APPLIED
    row = await run_row(store)
    assert (row.status, row.ended_ms, row.output, row.session_id) == (
        RunStatus.COMPLETED,
        NOW + 9,
        b'"done"',
        session_id(1),
    )
    assert await keys(store, 2) == ["child"]


NOT_ENDED_BY_IT = {
    "an earlier turn": held_run(turn=0),
    "a later turn": held_run(turn=2),
    "ended before": held_run(status=int(RunStatus.CANCELLED), ended_ms=NOW + 9, output=b'"done"'),
}


@pytest.mark.parametrize("there", NOT_ENDED_BY_IT.values(), ids=NOT_ENDED_BY_IT)
async def test_an_end_of_a_run_that_stands_otherwise_loses(store: Store, there: Any) -> None:
    await put(store, runs=[there, parked_run(2)], waits=[wait("child", n=2)])
    assert await say(store, decider=end(), resolves=[by_event("child", n=2)]) == Verdict.LOST
    assert await run_row(store) == there
    assert await keys(store, 2) == []


async def test_an_end_of_an_unknown_run_loses(store: Store) -> None:
    assert await say(store, decider=end()) == Verdict.LOST


async def test_an_end_that_comes_again_is_recognised_and_changes_nothing(store: Store) -> None:
    await put(store, runs=[held_run()])
    assert await say(store, decider=end()) == Verdict.APPLIED
    once = await run_row(store)
    assert await say(store, decider=end()) == Verdict.APPLIED
    assert await run_row(store) == once


DIFFERENT_ENDS: list[dict[str, Any]] = [
    {"status": int(RunStatus.FAILED)},
    {"turn": 2},
    {"turn": 0},
    {"ended_ms": NOW + 10},
    {"output": b"2"},
    {"output": None},
    {"output_encoding": "proto"},
    {"failure": b"{}"},
]


@pytest.mark.parametrize("changes", DIFFERENT_ENDS, ids=repr)
async def test_an_end_is_not_recognised_where_the_row_stands_otherwise(store: Store, changes: dict[str, Any]) -> None:
    await put(store, runs=[held_run()])
    await put(store, decider=end())
    assert await say(store, decider=end(**changes)) == Verdict.LOST


async def test_an_outcome_resolves_its_wait_and_closes_it(store: Store) -> None:
    await put(store, runs=[parked_run()], waits=[wait(), wait("other")])
    assert await say(store, decider=by_event()) == Verdict.APPLIED
    assert (await state(store)).outcomes == (by_event(),)
    assert await open_keys(store) == ["other"]


async def test_an_outcome_of_a_key_that_nobody_waits_for_loses(opened: OpenStore) -> None:
    await put(opened.store, runs=[parked_run()], waits=[wait("other")])
    before = await opened.dump()
    assert await say(opened.store, decider=by_event()) == Verdict.LOST
    assert await opened.dump() == before


async def test_of_an_event_and_a_time_out_the_second_loses_with_its_followers(store: Store) -> None:
    await put(store, runs=[parked_run()], waits=[wait()])
    assert await say(store, decider=by_time_out()) == Verdict.APPLIED
    assert await say(store, decider=by_event(), runs=[run(2)]) == Verdict.LOST
    assert (await state(store)).outcomes == (by_time_out(),)
    assert run_id(2) not in await store.load(ENV, [run_id(2)])


async def test_an_outcome_that_comes_again_is_recognised_even_when_it_was_delivered(store: Store) -> None:
    await put(store, runs=[parked_run()], waits=[wait()])
    assert await say(store, decider=by_event()) == Verdict.APPLIED
    await put(store, numbers=[Number(ENV, run_id(1), "booking", 1)])
    assert await say(store, decider=by_event(ended_ms=NOW + 99)) == Verdict.APPLIED
    assert (await state(store)).outcomes == (by_event(number=1),)


DIFFERENT_OUTCOMES: list[dict[str, Any]] = [
    {"kind": int(StepKind.SLEEP)},
    {"output": b"2"},
    {"output": b""},
    {"failure": b"{}"},
    {"event_id": "evt_other"},
    {"event_id": None},
    {"attempt": 2},
]


@pytest.mark.parametrize("changes", DIFFERENT_OUTCOMES, ids=repr)
async def test_an_outcome_is_not_recognised_where_the_row_says_otherwise(store: Store, changes: dict[str, Any]) -> None:
    await put(store, runs=[parked_run()], waits=[wait()])
    await put(store, decider=by_event())
    assert await say(store, decider=by_event(**changes)) == Verdict.LOST


@pytest.mark.parametrize("changes", [{}, {"output": b"2"}], ids=["equal", "other"])
async def test_an_outcome_that_was_there_before_its_wait_closes_it(store: Store, changes: dict[str, Any]) -> None:
    await put(store, runs=[parked_run()], outcomes=[by_event(number=1)], waits=[wait(), wait("other")])
    verdict = Verdict.LOST if changes else Verdict.APPLIED
    assert await say(store, decider=by_event(**changes)) == verdict
    assert (await state(store)).outcomes == (by_event(number=1),)
    assert await open_keys(store) == ["other"]
    assert [row.key for row in await store.due(NOW + 10_000, 10)] == ["other"]


async def test_an_outcome_without_anything_in_it_is_recognised_too(store: Store) -> None:
    await put(store, runs=[parked_run()], waits=[wait()])
    assert [await say(store, decider=by_time_out()), await say(store, decider=by_time_out())] == [Verdict.APPLIED] * 2


async def test_a_session_opens_once(store: Store) -> None:
    assert await say(store, decider=SessionWrite(0, session())) == Verdict.APPLIED
    assert await say(store, decider=SessionWrite(0, session(node="node-2"))) == Verdict.LOST
    assert await store.sessions(ENV) == [session()]


async def test_a_session_is_adopted_by_whoever_knows_its_epoch(store: Store) -> None:
    await open_session(store)
    adopted = session(epoch=2, node="node-2", capacity=5)
    assert await say(store, decider=SessionWrite(1, adopted)) == Verdict.APPLIED
    assert await say(store, decider=SessionWrite(1, session(epoch=2, node="node-3"))) == Verdict.LOST
    assert await store.sessions(ENV) == [adopted]


async def test_a_session_that_is_not_there_is_not_adopted(store: Store) -> None:
    assert await say(store, decider=SessionWrite(1, session(epoch=2))) == Verdict.LOST
    assert await store.sessions(ENV) == []


async def test_a_closed_session_is_listed_no_more(store: Store) -> None:
    await open_session(store)
    assert await say(store, decider=SessionWrite(1, session(epoch=2, closed_ms=NOW))) == Verdict.APPLIED
    assert await store.sessions(ENV) == []


async def test_a_lease_is_taken_once_and_renewed_by_its_holder(store: Store) -> None:
    assert await say(store, decider=LeaseWrite("", 0, lease("node-1", 1))) == Verdict.APPLIED
    assert await say(store, decider=LeaseWrite("", 0, lease("node-2", 1))) == Verdict.LOST
    assert await say(store, decider=LeaseWrite("node-1", 1, lease("node-1", 2))) == Verdict.APPLIED
    assert await say(store, decider=LeaseWrite("node-1", 1, lease("node-2", 3))) == Verdict.LOST
    assert await say(store, decider=LeaseWrite("node-2", 2, lease("node-2", 3))) == Verdict.LOST
    assert await store.lease("serve") == lease("node-1", 2)


async def test_a_lease_that_was_not_renewed_is_taken_over(store: Store) -> None:
    await put(store, decider=LeaseWrite("", 0, lease("node-1", 1)))
    assert await say(store, decider=LeaseWrite("node-1", 1, lease("node-2", 2, info="host b"))) == Verdict.APPLIED
    assert await store.lease("serve") == lease("node-2", 2, info="host b")


async def test_nobody_holds_a_lease_that_was_never_taken(store: Store) -> None:
    assert await store.lease("serve") is None
    assert await say(store, decider=LeaseWrite("node-1", 1, lease("node-1", 2))) == Verdict.LOST
    assert await store.lease("serve") is None


@pytest.mark.parametrize(
    "write",
    [SessionWrite(0, session()), SessionWrite(1, session(epoch=2)), LeaseWrite("", 0, lease())],
    ids=["open", "adopt", "lease"],
)
async def test_a_write_that_comes_again_is_recognised_with_its_followers(store: Store, write: Decider) -> None:
    if isinstance(write, SessionWrite) and write.expect_epoch:
        await open_session(store)
    assert await say(store, decider=write) == Verdict.APPLIED
    assert await say(store, decider=write, runs=[run()]) == Verdict.APPLIED
    assert await run_row(store) == run()
