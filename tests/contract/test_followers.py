"""Followers: what a Commit that was decided writes, in the order of its fields, each behind its own guard."""

from __future__ import annotations

from typing import Any

import pytest
from stepwell_server.model.commit import Verdict
from stepwell_server.model.event import CursorDelete
from stepwell_server.model.function import Standing
from stepwell_server.model.journal import LookedBack, Number, WaitDelete
from stepwell_server.model.run import RunStatus
from stepwell_server.model.session import LeaseWrite, SessionWrite, SettingRow
from stepwell_server.ports.store import Store

from tests.contract.rows import (
    ENV,
    FUNCTION,
    NOW,
    claim,
    cursor,
    dedup,
    deployment,
    end,
    enqueue,
    event,
    held_run,
    lease,
    member,
    move,
    outcome,
    parked_run,
    ready,
    run,
    run_id,
    session,
    session_id,
    shape,
    switch,
    take,
    wait,
)
from tests.contract.saying import open_keys, put, run_row, say, state, stranded
from tests.support.stores import FullStore, OpenStore

TWICE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "events": ({"events": [event()]}, {"events": [event(name="other", data=b"2")]}),
    "cursors": ({"cursors": [cursor()]}, {"cursors": [cursor(event_ids="other")]}),
    "runs": ({"runs": [run()]}, {"runs": [held_run(app="other")]}),
    "outcomes": ({"outcomes": [outcome()]}, {"outcomes": [outcome(output=b"2", number=3)]}),
    "waits": ({"waits": [wait()]}, {"waits": [wait(due_ms=1, target="other")]}),
    "dedups": ({"dedups": [dedup()]}, {"dedups": [dedup(value="evt_9")]}),
    "claims": ({"claims": [claim()]}, {"claims": [claim(n=2)]}),
    "members": ({"members": [member()]}, {"members": [member(n=2)]}),
    "switches": ({"switches": [switch()]}, {"switches": [switch(standing=Standing.HOLD)]}),
    "deployments": ({"deployments": [deployment()]}, {"deployments": [deployment(created_ms=1)]}),
}


@pytest.mark.parametrize(("first", "second"), TWICE.values(), ids=TWICE)
async def test_an_insert_of_a_row_that_is_there_does_nothing(
    opened: OpenStore, first: dict[str, Any], second: dict[str, Any]
) -> None:
    await put(opened.store, **first)
    before = await opened.dump()
    assert await say(opened.store, **second) == Verdict.APPLIED
    assert await opened.dump() == before


@pytest.mark.parametrize(("first", "second"), TWICE.values(), ids=TWICE)
async def test_an_insert_that_does_nothing_does_not_hinder_its_neighbours(
    store: FullStore, first: dict[str, Any], second: dict[str, Any]
) -> None:
    await put(store, **first)
    neighbours: dict[str, Any] = {"runs": [run(7)], "events": [event(7)]}
    parts = {name: [*second.get(name, []), *neighbours.get(name, [])] for name in {*second, *neighbours}}
    assert await say(store, **parts) == Verdict.APPLIED
    loaded = (await store.load(ENV, [run_id(7)]))[run_id(7)]
    assert (loaded.run, loaded.event) == (run(7), event(7))


@pytest.mark.parametrize(("first", "second"), TWICE.values(), ids=TWICE)
async def test_of_two_rows_of_one_key_in_one_commit_the_first_is_inserted(
    opened: OpenStore, first: dict[str, Any], second: dict[str, Any]
) -> None:
    [(field, [row])], [other] = first.items(), second[next(iter(second))]
    assert await say(opened.store, **{field: [row, other]}) == Verdict.APPLIED
    assert (await opened.dump())[field.replace("dedups", "dedup")] == [tuple(row)]


LOSERS = {
    "dedup": dedup(value="evt_9"),
    "move": move(expect_turn=5),
    "take": take(9),
    "end": end(turn=0),
    "outcome": outcome("unknown"),
    "session": SessionWrite(4, session(epoch=5)),
    "lease": LeaseWrite("node-9", 4, lease("node-9", 5)),
}


@pytest.mark.parametrize("loser", LOSERS.values(), ids=LOSERS)
async def test_nothing_follows_a_decider_that_lost(opened: OpenStore, loser: Any) -> None:
    await put(opened.store, runs=[held_run()], waits=[wait(), wait("open", after_event="")], dedups=[dedup()])
    await put(opened.store, outcomes=[outcome("seen")], cursors=[cursor()])
    before = await opened.dump()
    assert await say(opened.store, decider=loser, **_everything()) == Verdict.LOST
    assert await opened.dump() == before


def _everything() -> dict[str, Any]:
    """A follower of every kind, each of which would change something."""
    return {
        "events": [event(3)],
        "cursors": [cursor(3)],
        "runs": [run(3)],
        "outcomes": [outcome("new")],
        "resolves": [outcome("booking")],
        "numbers": [Number(ENV, run_id(1), "seen", 1)],
        "waits": [wait("new wait")],
        "looked_back": [LookedBack(ENV, run_id(1), "open")],
        "wait_deletes": [WaitDelete(ENV, run_id(1), "open")],
        "ends": [end()],
        "cursor_deletes": [CursorDelete(ENV, cursor().id)],
        "dedups": [dedup("r:new")],
        "deployments": [deployment("new")],
        "shapes": [shape("new")],
        "settings": [SettingRow("offset", "1")],
    }


async def test_a_move_that_follows_is_guarded_by_its_turn_alone(store: Store) -> None:
    await put(store, runs=[held_run(1), run(2)])
    assert await say(store, moves=[move(1), move(2)], outcomes=[outcome()]) == Verdict.APPLIED
    assert await run_row(store, 1) == held_run(1)
    assert (await run_row(store, 2)).status == RunStatus.RUNNING
    assert len((await state(store)).outcomes) == 1


async def test_a_move_that_follows_does_nothing_to_an_ended_run(store: Store) -> None:
    ended = held_run(status=int(RunStatus.FAILED), ended_ms=NOW)
    await put(store, runs=[ended])
    assert await say(store, moves=[move(expect_turn=1)]) == Verdict.APPLIED
    assert await run_row(store) == ended


async def test_a_take_that_follows_does_nothing_to_a_run_that_is_held(store: Store) -> None:
    await put(store, runs=[held_run(1, session=2), run(2)])
    assert await say(store, takes=[take(1), take(2)]) == Verdict.APPLIED
    assert await run_row(store, 1) == held_run(1, session=2)
    assert (await run_row(store, 2)).session_id == session_id(1)


async def test_a_parked_run_without_a_session_is_enqueued_in_its_turn(store: Store) -> None:
    await put(store, runs=[parked_run(losses=2)])
    assert await say(store, enqueues=[enqueue(priority=1, queued_ms=NOW + 3)]) == Verdict.APPLIED
    there = parked_run(losses=2, status=int(RunStatus.QUEUED), priority=1, queued_ms=NOW + 3)
    assert await run_row(store) == there


NOT_ENQUEUED = {
    "queued": run(),
    "running": held_run(),
    "held": parked_run(session_id=session_id(1)),
    "paused": parked_run(status=int(RunStatus.PAUSED), reason=4),
    "ended": parked_run(status=int(RunStatus.CANCELLED), ended_ms=NOW),
}


@pytest.mark.parametrize("there", NOT_ENQUEUED.values(), ids=NOT_ENQUEUED)
async def test_no_other_run_is_enqueued(store: Store, there: Any) -> None:
    await put(store, runs=[there])
    assert await say(store, enqueues=[enqueue(priority=5, queued_ms=NOW + 3)]) == Verdict.APPLIED
    assert await run_row(store) == there


async def test_an_end_of_the_right_turn_ends_the_run_and_keeps_its_session(store: Store) -> None:
    await put(store, runs=[held_run(losses=1, deployment="d1")])
    assert await say(store, ends=[end(output=b"2", output_encoding="proto")]) == Verdict.APPLIED
    assert await run_row(store) == held_run(
        losses=1,
        deployment="d1",
        status=int(RunStatus.COMPLETED),
        ended_ms=NOW + 9,
        output=b"2",
        output_encoding="proto",
    )


async def test_an_end_of_another_turn_does_nothing(store: Store) -> None:
    await put(store, runs=[held_run()])
    assert await say(store, ends=[end(turn=0)]) == Verdict.APPLIED
    assert await say(store, ends=[end(turn=2)]) == Verdict.APPLIED
    assert await run_row(store) == held_run()


async def test_a_run_ends_once(store: Store) -> None:
    await put(store, runs=[held_run()])
    await put(store, ends=[end()])
    once = await run_row(store)
    await put(store, ends=[end(status=int(RunStatus.FAILED), output=None, failure=b"{}")])
    assert await run_row(store) == once


async def test_a_paused_run_that_ends_gives_no_reason_for_a_pause(store: Store) -> None:
    await put(store, runs=[parked_run(status=int(RunStatus.PAUSED), reason=4, failure=b"{}")])
    await put(store, ends=[end(status=int(RunStatus.CANCELLED), output=None)])
    row = await run_row(store)
    assert (row.status, row.reason, row.failure) == (RunStatus.CANCELLED, 0, None)


async def test_a_run_is_inserted_moved_and_ended_by_one_commit(store: Store) -> None:
    assert await say(store, runs=[run()], moves=[move()], ends=[end()]) == Verdict.APPLIED
    row = await run_row(store)
    assert (row.status, row.turn, row.session_id) == (RunStatus.COMPLETED, 1, session_id(1))


async def test_a_move_then_a_take_then_an_end_of_one_commit_follow_each_other(store: Store) -> None:
    await put(store, runs=[held_run()])
    parks = move(expect_turn=1, turn=1, status=int(RunStatus.PARKED), session_id=None)
    await put(store, moves=[parks], takes=[take(session=2)], ends=[end(turn=2)])
    row = await run_row(store)
    assert (row.status, row.turn, row.session_id) == (RunStatus.COMPLETED, 2, session_id(2))


async def test_an_end_of_the_turn_before_the_move_of_its_commit_does_nothing(store: Store) -> None:
    await put(store, runs=[held_run()])
    await put(store, moves=[move(expect_turn=1)], ends=[end(turn=1)])
    row = await run_row(store)
    assert (row.status, row.turn) == (RunStatus.RUNNING, 2)


async def test_a_run_parked_by_a_commit_is_enqueued_by_it(store: FullStore) -> None:
    await put(store, runs=[held_run()])
    parks = move(expect_turn=1, turn=1, status=int(RunStatus.PARKED), session_id=None)
    await put(store, moves=[parks], enqueues=[enqueue()])
    assert (await run_row(store)).status == RunStatus.QUEUED
    assert await store.ready(ENV, FUNCTION, "", 10) == [ready()]


async def test_a_wait_opened_and_closed_by_one_commit_is_closed(store: Store) -> None:
    await put(store, runs=[run()], waits=[wait()], wait_deletes=[WaitDelete(ENV, run_id(1), "booking")])
    assert await open_keys(store) == []


async def test_a_run_queued_and_taken_by_one_commit_is_in_the_queue_no_more(store: FullStore) -> None:
    await put(store, runs=[run()], takes=[take()])
    assert await store.ready(ENV, FUNCTION, "", 10) == []


async def test_a_look_back_is_remembered(store: Store) -> None:
    await put(store, runs=[run()], waits=[wait(after_event="evt_0"), wait("other", after_event="")])
    await put(store, looked_back=[LookedBack(ENV, run_id(1), "booking")])
    assert {row.key: row.after_event for row in (await state(store)).waits} == {"booking": None, "other": ""}


async def test_a_look_back_that_was_cut_says_so(store: Store) -> None:
    await put(store, runs=[run()], waits=[wait(after_event="evt_0"), wait("other", after_event="evt_0")])
    marks = [LookedBack(ENV, run_id(1), "booking", b"after evt_7"), LookedBack(ENV, run_id(1), "other")]
    await put(store, looked_back=marks)
    waits = {row.key: (row.after_event, row.failure) for row in (await state(store)).waits}
    assert waits == {"booking": (None, b"after evt_7"), "other": (None, None)}


async def test_a_cursor_is_deleted_when_its_events_are_served(store: FullStore) -> None:
    await put(store, cursors=[cursor(1), cursor(2)])
    await put(store, cursor_deletes=[CursorDelete(ENV, cursor(1).id)])
    assert (await stranded(store)).cursors == (cursor(2),)


async def test_deleting_what_is_not_there_does_nothing(opened: OpenStore) -> None:
    before = await opened.dump()
    gone: dict[str, Any] = {
        "looked_back": [LookedBack(ENV, run_id(1), "x")],
        "wait_deletes": [WaitDelete(ENV, run_id(1), "x")],
        "cursor_deletes": [CursorDelete(ENV, "x")],
    }
    assert await say(opened.store, **gone) == Verdict.APPLIED
    assert await opened.dump() == before


async def test_a_setting_is_replaced(store: FullStore) -> None:
    assert await store.setting("offset") is None
    await put(store, settings=[SettingRow("offset", "1"), SettingRow("other", "x")])
    await put(store, settings=[SettingRow("offset", "2")])
    assert (await store.setting("offset"), await store.setting("other")) == ("2", "x")


async def test_an_empty_commit_is_applied(store: Store) -> None:
    assert await say(store) == Verdict.APPLIED


async def test_an_empty_batch_has_no_results(store: Store) -> None:
    assert await store.commit([]) == []


async def test_a_switch_raises_the_version_of_the_registry_and_the_switches_come_oldest_first(store: FullStore) -> None:
    later = switch(NOW + 5, Standing.RUNNING)
    await put(store, switches=[later])
    first = await store.registry(ENV)
    await put(store, switches=[switch(), switch(function_id="shop/other"), later])
    second = await store.registry(ENV)
    assert second.version > first.version > 0
    assert second.switches == (switch(), switch(function_id="shop/other"), later)
