"""Reads of the hot path: matching, look-back, timers, the queue, the registry and what a sweep finds."""

from __future__ import annotations

from typing import Any

import pytest
from stepwell_server.model.commit import Verdict
from stepwell_server.model.function import Registry
from stepwell_server.model.journal import LookedBack, Number, StepKind, WaitDelete
from stepwell_server.model.run import ENDS, Reline, RunStatus
from stepwell_server.model.session import SessionWrite
from stepwell_server.ports.store import FIRST, Probe, Store, Stranded, Unseen

from tests.contract.rows import (
    BOOKED,
    ENV,
    FUNCTION,
    NOW,
    SIGNED_UP,
    by_event,
    cursor,
    deployment,
    end,
    enqueue,
    event,
    event_id,
    held_run,
    move,
    outcome,
    parked_run,
    ready,
    run,
    run_id,
    session,
    session_id,
    shape,
    sleep,
    take,
    wait,
)
from tests.contract.saying import open_session, put, say, stranded
from tests.support.stores import FullStore

# --- match ---


async def matched(store: Store, *probes: Probe, env: str = ENV) -> list[str]:
    return sorted(row.key for row in (await store.match(env, probes)).waits)


async def test_waits_are_found_by_event_and_any_of_several_keys(store: Store) -> None:
    waits = [
        wait("a", match_key="u1"),
        wait("b", match_key="u2"),
        wait("c", match_key="u3"),
        wait("d", match_key="u1", target="other"),
        wait("e", match_key="u1", n=2),
        wait("f", match_key=""),
    ]
    await put(store, waits=waits)
    assert await matched(store, Probe(BOOKED, ("u1", "u2", "unknown"))) == ["a", "b", "e"]
    assert await matched(store, Probe(BOOKED, ("",)), Probe("other", ("u1", "u2"))) == ["d", "f"]
    assert await matched(store, Probe(BOOKED, ()), Probe("nothing", ("u1",))) == []


async def test_a_wait_is_found_once_though_several_probes_fit(store: Store) -> None:
    await put(store, waits=[wait("a", match_key="u1")])
    assert await matched(store, Probe(BOOKED, ("u1", "u1")), Probe(BOOKED, ("u1",))) == ["a"]


async def test_no_probes_find_no_waits_but_the_version(store: Store) -> None:
    await put(store, deployments=[deployment()], waits=[wait()])
    found = await store.match(ENV, [])
    assert (found.waits, found.registry_version) == ((), (await store.registry(ENV)).version)


async def test_only_waits_for_events_of_the_environment_match(store: Store) -> None:
    child = wait("child", kind=int(StepKind.INVOKE), match_key="u1")
    await put(store, waits=[child, wait("there", env="test", match_key="u1"), wait("none", match_key=None)])
    assert await matched(store, Probe(BOOKED, ("u1", ""))) == []
    assert await matched(store, Probe(BOOKED, ("u1",)), env="test") == ["there"]


async def test_a_wait_matches_until_it_closes_whether_it_has_looked_back_or_not(store: Store) -> None:
    await put(
        store, waits=[wait("a", match_key="u", after_event="evt_0"), wait("b", match_key="u"), wait("c", match_key="u")]
    )
    await put(store, wait_deletes=[WaitDelete(ENV, run_id(1), "b")], resolves=[by_event("c")])
    assert await matched(store, Probe(BOOKED, ("u",))) == ["a"]


async def test_a_matching_wait_is_returned_whole(store: Store) -> None:
    row = wait(condition="event.data.x > 1", detached=True, attempt=3, failure=b"{}", input_hash=b"\1", after_event="e")
    await put(store, waits=[row])
    assert (await store.match(ENV, [Probe(BOOKED, ("data.user=u1",))])).waits == (row,)


# --- look back ---


async def test_a_look_back_reads_later_events_of_the_name_in_order(store: Store) -> None:
    events = [event(n, name=BOOKED if n % 2 else SIGNED_UP) for n in (5, 1, 4, 3, 2, 7)]
    await put(store, events=[*events, event(9, env="test", name=BOOKED)])
    found = await store.look_back(ENV, BOOKED, event_id(1), 10)
    assert found == [event(n, name=BOOKED) for n in (3, 5, 7)]
    assert [row.id for row in await store.look_back(ENV, BOOKED, "", 2)] == [event_id(1), event_id(3)]
    assert await store.look_back(ENV, BOOKED, event_id(7), 10) == []


# --- timers ---


async def test_due_waits_come_earliest_first_from_all_environments(store: Store) -> None:
    waits = [sleep("c", due_ms=30), sleep("a", due_ms=10, env="test"), sleep("b", due_ms=20), sleep("d", due_ms=41)]
    await put(store, waits=[*waits, wait("never", due_ms=None)])
    assert [row.key for row in await store.due(40, 10)] == ["a", "b", "c"]
    assert [row.key for row in await store.due(40, 2)] == ["a", "b"]
    assert [row.key for row in await store.due(10, 10)] == ["a"]
    assert await store.due(9, 10) == []


async def test_a_closed_wait_is_never_due(store: Store) -> None:
    await put(store, waits=[sleep("a", due_ms=1), sleep("b", due_ms=2), sleep("c", due_ms=3)])
    await put(store, wait_deletes=[WaitDelete(ENV, run_id(1), "a")], resolves=[outcome("c", output=None)])
    assert [row.key for row in await store.due(NOW, 10)] == ["b"]


async def test_the_next_due_time_is_later_than_the_one_given(store: FullStore) -> None:
    await put(store, waits=[sleep("a", due_ms=10), sleep("b", due_ms=20, env="test"), wait("never", due_ms=None)])
    assert [await store.due_after(at) for at in (0, 9, 10, 19, 20)] == [10, 10, 20, 20, None]


# --- the queue ---


async def test_queued_runs_stand_in_order_of_priority_time_and_id(store: Store) -> None:
    places = {3: (0, 5), 1: (1, 1), 4: (-1, 9), 2: (0, 5), 5: (0, 4)}
    runs = [run(n, priority=priority, queued_ms=at) for n, (priority, at) in places.items()]
    await put(store, runs=[*runs, run(6, function_id="other"), run(7, env="test")])
    rows = {n: ready(n, priority=priority, queued_ms=at) for n, (priority, at) in places.items()}
    assert await store.ready(ENV, FUNCTION, "", 10) == [rows[n] for n in (4, 5, 2, 3, 1)]
    assert await store.ready(ENV, "other", "", 10) == [ready(6, function_id="other")]
    assert await store.ready("test", FUNCTION, "", 10) == [ready(7, env="test")]


async def test_the_queue_is_read_line_by_line(store: Store) -> None:
    lines = {1: "b", 2: "a", 3: "", 4: "b", 5: 'a["x"]', 6: "c"}
    await put(store, runs=[run(n, line=line, priority=n % 2) for n, line in lines.items()])
    rows = {n: ready(n, line=line, priority=n % 2) for n, line in lines.items()}
    assert await store.ready(ENV, FUNCTION, "", 10) == [rows[3]]
    assert await store.ready(ENV, FUNCTION, "a", 10) == [rows[2]]
    assert await store.ready(ENV, FUNCTION, "aa", 10, lines=9) == [rows[4], rows[1], rows[6]]
    assert await store.ready(ENV, FUNCTION, "", 1, lines=4) == [rows[n] for n in (3, 2, 5, 4)]
    assert await store.ready(ENV, FUNCTION, "d", 10, lines=9) == []


async def test_of_a_line_the_first_are_read(store: Store) -> None:
    places = {n: {"priority": n % 3, "queued_ms": n % 4} for n in range(1, 24)}
    rows = [ready(n, **place) for n, place in places.items()]
    await put(store, runs=[run(n, **place) for n, place in places.items()])
    page = await store.ready(ENV, FUNCTION, "", 5)
    assert page == sorted(rows, key=lambda row: (row.priority, row.queued_ms, row.run_id))[:5]


async def test_a_queued_run_is_put_into_another_line_and_no_other_run_is(store: Store) -> None:
    await put(store, runs=[run(1, line="old"), run(2, line="old"), parked_run(3, line="old")])
    await put(store, relines=[Reline(ENV, run_id(1), "new"), Reline(ENV, run_id(3), "new")])
    assert await store.ready(ENV, FUNCTION, "", 9, lines=9) == [ready(1, line="new"), ready(2, line="old")]
    states = await store.load(ENV, [run_id(1), run_id(3)])
    assert [states[run_id(n)].run.line for n in (1, 3)] == ["new", "old"]


async def test_a_run_keeps_its_line_wherever_it_goes(store: Store) -> None:
    await put(store, runs=[run(line="k"), run(2, line="k")])
    await put(store, takes=[take()])
    await put(store, moves=[move(1, 1, turn=1, status=int(RunStatus.PARKED), session_id=None)])
    await put(store, enqueues=[enqueue(queued_ms=NOW)])
    assert await store.ready(ENV, FUNCTION, "k", 9) == [ready(queued_ms=NOW, line="k"), ready(2, line="k")]


async def test_only_queued_runs_are_in_the_queue(store: Store) -> None:
    others = [status for status in RunStatus if status != RunStatus.QUEUED]
    ended = {status: NOW if status in ENDS else None for status in others}
    await put(store, runs=[run(n, status=int(s), ended_ms=ended[s]) for n, s in enumerate(others, 2)])
    await put(store, runs=[run(1)])
    assert await store.ready(ENV, FUNCTION, "", 99) == [ready(1)]


LEAVES: dict[str, dict[str, Any]] = {
    "taken": {"decider": take()},
    "taken by a follower": {"takes": [take()]},
    "moved": {"decider": move()},
    "moved by a follower": {"moves": [move()]},
    "paused": {"moves": [move(turn=0, status=int(RunStatus.PAUSED), session_id=None, queued_ms=NOW + 1)]},
    "ended": {"decider": end(turn=0)},
    "ended by a follower": {"ends": [end(turn=0, status=int(RunStatus.CANCELLED))]},
}


@pytest.mark.parametrize("change", LEAVES.values(), ids=LEAVES)
async def test_a_run_that_is_queued_no_more_leaves_the_queue(store: Store, change: dict[str, Any]) -> None:
    await put(store, runs=[run(1), run(2)])
    await put(store, **change)
    assert await store.ready(ENV, FUNCTION, "", 10) == [ready(2)]


BACK: dict[str, dict[str, Any]] = {
    "a move": {"decider": move(1, 1, turn=1, status=int(RunStatus.QUEUED), session_id=None, priority=1, queued_ms=NOW)},
    "a move that follows": {
        "moves": [move(1, 1, turn=1, status=int(RunStatus.QUEUED), session_id=None, priority=1, queued_ms=NOW)]
    },
    "an enqueue": {"enqueues": [enqueue(priority=1, queued_ms=NOW)]},
}


@pytest.mark.parametrize("change", BACK.values(), ids=BACK)
async def test_a_run_that_is_queued_again_has_its_new_place(store: Store, change: dict[str, Any]) -> None:
    await put(store, runs=[run(1), run(2), run(3, priority=2)])
    await put(store, takes=[take(1)])
    parks = move(1, 1, turn=1, status=int(RunStatus.PARKED), session_id=None)
    await put(store, moves=[parks])
    assert await store.ready(ENV, FUNCTION, "", 10) == [ready(2), ready(3, priority=2)]
    await put(store, **change)
    again = ready(1, priority=1, queued_ms=NOW)
    assert await store.ready(ENV, FUNCTION, "", 10) == [ready(2), again, ready(3, priority=2)]


async def test_a_queued_run_that_is_moved_within_the_queue_is_in_it_once(store: Store) -> None:
    await put(store, runs=[run(1), run(2)])
    await put(store, moves=[move(turn=0, status=int(RunStatus.QUEUED), session_id=None, queued_ms=NOW + 9)])
    assert await store.ready(ENV, FUNCTION, "", 10) == [ready(2), ready(1, queued_ms=NOW + 9)]


async def test_a_run_whose_change_was_not_applied_keeps_its_place(store: Store) -> None:
    await put(store, runs=[run()])
    assert await say(store, decider=outcome("x"), takes=[take()]) == Verdict.LOST
    await put(store, enqueues=[enqueue(queued_ms=1)], moves=[move(expect_turn=3)], ends=[end(turn=3)])
    assert await store.ready(ENV, FUNCTION, "", 10) == [ready()]


# --- registry ---


async def test_an_environment_without_registrations_has_version_zero(store: Store) -> None:
    assert await store.registry(ENV) == Registry(ENV, 0, (), ())


async def test_a_new_deployment_or_shape_raises_the_version_of_its_environment_alone(store: Store) -> None:
    versions = [(await store.registry(ENV)).version]
    for parts in ({"deployments": [deployment("d1")]}, {"shapes": [shape("a")]}, {"deployments": [deployment("d2")]}):
        await put(store, **parts)
        versions.append((await store.registry(ENV)).version)
    assert versions == sorted(set(versions))
    assert (await store.registry("test")).version == 0


async def test_what_was_registered_before_leaves_the_version(store: Store) -> None:
    await put(store, deployments=[deployment()], shapes=[shape()])
    before = await store.registry(ENV)
    await put(store, deployments=[deployment(created_ms=1, spec=b"[]")], shapes=[shape()])
    assert await store.registry(ENV) == before


async def test_a_commit_that_is_not_applied_raises_no_version(store: Store) -> None:
    assert await say(store, decider=outcome("x"), shapes=[shape()]) == Verdict.LOST
    assert await store.registry(ENV) == Registry(ENV, 0, (), ())


async def test_deployments_are_read_oldest_first(store: Store) -> None:
    rows = [deployment("b", created_ms=2), deployment("c", created_ms=1), deployment("a", created_ms=3, app="other")]
    await put(store, deployments=rows, shapes=[shape("y"), shape("x"), shape("x", event="other")])
    registry = await store.registry(ENV)
    assert registry.deployments == (rows[1], rows[0], rows[2])
    assert set(registry.shapes) == {shape("y"), shape("x"), shape("x", event="other")}


# --- sessions ---


async def test_open_sessions_are_those_of_the_environment_that_are_not_closed(store: Store) -> None:
    for row in (session(1), session(2, closed_ms=NOW), session(3, env="test"), session(4)):
        await put(store, decider=SessionWrite(0, row))
    assert sorted(await store.sessions(ENV)) == [session(1), session(4)]


# --- what a sweep finds ---


async def test_a_store_in_order_strands_nothing(store: Store) -> None:
    await open_session(store)
    await put(store, runs=[held_run(1), run(2), parked_run(3)], waits=[wait(n=3), sleep(n=1)])
    await put(store, outcomes=[outcome("seen", 3, number=1), outcome("new", 1), outcome("cancel", 2)])
    unseen = (Unseen(ENV, run_id(1), "new"), Unseen(ENV, run_id(2), "cancel"))
    assert await stranded(store) == Stranded((), (), (), (), unseen)


async def test_a_cursor_that_was_not_deleted_is_stranded(store: Store) -> None:
    await put(store, cursors=[cursor(1), cursor(2, env="test")])
    assert set((await stranded(store)).cursors) == {cursor(1), cursor(2, env="test")}


async def test_a_wait_that_has_not_looked_back_is_stranded(store: Store) -> None:
    await put(store, waits=[wait("a", after_event=event_id(1)), wait("b", after_event=""), wait("c", after_event="")])
    await put(store, looked_back=[LookedBack(ENV, run_id(1), "b")], wait_deletes=[WaitDelete(ENV, run_id(1), "c")])
    assert (await stranded(store)).lookbacks == (wait("a", after_event=event_id(1)),)


async def test_an_undelivered_outcome_of_a_parked_run_without_a_session_is_stranded(store: Store) -> None:
    await open_session(store)
    others = {
        2: parked_run(2, session_id=session_id(1)),
        3: held_run(3),
        4: run(4),
        5: parked_run(5, status=int(RunStatus.PAUSED), reason=4),
        6: parked_run(6, status=int(RunStatus.COMPLETED), ended_ms=NOW),
    }
    await put(store, runs=[parked_run(1), *others.values()])
    await put(store, outcomes=[outcome("new", n) for n in (1, *others)] + [outcome("seen", 1, number=1)])
    assert (await stranded(store)).inbox == (outcome("new", 1),)
    await put(store, numbers=[Number(ENV, run_id(1), "new", 2)])
    assert (await stranded(store)).inbox == ()


async def test_a_live_run_whose_session_is_closed_or_unknown_is_stranded(store: Store) -> None:
    await open_session(store, 1)
    await open_session(store, 2)
    ended = held_run(5, 2, status=int(RunStatus.COMPLETED), ended_ms=NOW)
    await put(store, runs=[held_run(1, 1), held_run(2, 2), held_run(3, 3), parked_run(4), ended])
    await put(store, runs=[parked_run(6, session_id=session_id(2))])
    await put(store, decider=SessionWrite(1, session(2, epoch=2, closed_ms=NOW)))
    held = (await stranded(store)).held
    assert {row.id for row in held} == {run_id(2), run_id(3), run_id(6)}
    assert held_run(3, 3) in held


async def test_a_run_that_was_moved_or_ended_is_held_by_a_lost_session_no_more(store: Store) -> None:
    await open_session(store, 1)
    await put(store, runs=[held_run(n, 9) for n in (1, 2, 3, 4)])
    await put(store, moves=[move(1, expect_turn=1), move(2, expect_turn=1, session_id=None)], ends=[end(3)])
    assert [row.id for row in (await stranded(store)).held] == [run_id(4)]


async def test_a_session_of_another_environment_holds_no_run_here(store: Store) -> None:
    await put(store, decider=SessionWrite(0, session(env="test")))
    await put(store, runs=[held_run()])
    assert [row.id for row in (await stranded(store)).held] == [run_id(1)]


async def test_undelivered_outcomes_are_read_in_order_page_by_page_whoever_has_their_run(store: Store) -> None:
    await put(store, runs=[parked_run(1), held_run(2), run(3), run(4, env="test")])
    await put(store, outcomes=[outcome(key, n) for n in (1, 2, 3) for key in ("b", "a")])
    await put(store, outcomes=[outcome("c", 4, env="test"), outcome("seen", 1, number=1)])
    await put(store, outcomes=[outcome("later", 1, ended_ms=NOW + 500)])
    everything = [Unseen(ENV, run_id(n), key) for n in (1, 2, 3) for key in ("a", "b")] + [
        Unseen("test", run_id(4), "c")
    ]
    found: list[Unseen] = []
    after = FIRST
    while page := (await store.stranded(3, NOW + 499, after)).unseen:
        assert len(page) <= 3
        found += page
        after = page[-1]
    assert found == everything
    await put(store, numbers=[Number(ENV, run_id(2), "a", 1)])
    assert Unseen(ENV, run_id(2), "a") not in (await stranded(store)).unseen
    assert Unseen(ENV, run_id(1), "later") in (await stranded(store)).unseen


FIVE: dict[str, dict[str, Any]] = {
    "cursors": {"cursors": [cursor(n) for n in range(5)]},
    "lookbacks": {"waits": [wait(n=n, after_event="") for n in range(5)]},
    "inbox": {"runs": [parked_run(n) for n in range(5)], "outcomes": [outcome(n=n) for n in range(5)]},
    "held": {"runs": [held_run(n) for n in range(5)]},
}


@pytest.mark.parametrize(("kind", "rows"), FIVE.items(), ids=FIVE)
async def test_each_kind_of_stranded_row_is_cut_at_the_limit(store: Store, kind: str, rows: dict[str, Any]) -> None:
    await put(store, **rows)
    assert len(getattr(await stranded(store, 3), kind)) == 3
    assert len(set(getattr(await stranded(store, 9), kind))) == 5
