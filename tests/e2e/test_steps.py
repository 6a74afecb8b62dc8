"""Every kind of step and option through the public SDK: time, events, children, sending, parallel code, values."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest
from stepwell.values import RunStatus

from tests.e2e.conftest import World
from tests.support.servers import ended, reached


def open_wait(world: World, run_id: str, kind: str = "EVENT") -> None:
    """Returns once the run is parked and says that it waits for such a thing."""
    reached(
        world.client,
        run_id,
        lambda run: run.status is RunStatus.PARKED and any(one.kind == kind for one in run.waiting_for),
    )


def one_run(world: World, name: str, data: Any) -> str:
    """The id of the run that an event starts."""
    (run_id,) = world.client.get_event(world.client.send(name, data)).run_ids
    return run_id


def test_a_step_runs_once_and_its_result_is_the_output(world: World) -> None:
    handle = world.client.start("features/echo", {"a": [1, None, "ü"]})
    assert handle.result(20) == {"a": [1, None, "ü"]}
    assert world.executed(handle.run_id, "note") == 1
    (entry,) = world.client.journal(handle.run_id)
    assert (entry.key, entry.kind, entry.number, entry.attempt) == ("note", "RUN", 1, 1)


def test_a_synchronous_function_runs_bodies_of_both_kinds(world: World) -> None:
    assert world.client.invoke("features/plain", 3, timeout=20) == [3, "child"]


def test_a_sleep_takes_its_time_and_one_in_the_past_none(world: World) -> None:
    before, after = world.client.invoke("features/sleeper", {"for": "250ms"}, timeout=20)
    assert 0.25 <= after - before < 5
    before, after = world.client.invoke("features/sleeper", {"until": time.time() + 0.3}, timeout=20)
    assert 0.2 <= after - before < 5
    before, after = world.client.invoke("features/sleeper", {"until": 1.0}, timeout=20)
    assert after - before < 2


# --- waiting for events ---


def test_a_wait_matches_a_path_of_the_event_that_started_the_run(world: World) -> None:
    user = uuid.uuid4().hex
    wait = {"event": "w/done", "match": "data.u", "timeout": "20s"}
    run_id = one_run(world, "w/start", {"u": user, "waits": [wait]})
    open_wait(world, run_id)
    world.client.send("w/done", {"u": "somebody else", "n": 1})
    world.client.send("w/other", {"u": user, "n": 2})
    world.client.send("w/done", {"u": user, "n": 3})
    assert ended(world.client, run_id).output == [3]


def test_a_wait_fits_a_condition_over_both_events(world: World) -> None:
    user = uuid.uuid4().hex
    wait = {"event": "w/done", "if_": "async.data.u == event.data.u && async.data.n > 1", "timeout": "20s"}
    run_id = one_run(world, "w/start", {"u": user, "waits": [wait]})
    open_wait(world, run_id)
    for n in range(3):
        world.client.send("w/done", {"u": user, "n": n})
    assert ended(world.client, run_id).output == [2]


def test_match_and_condition_must_both_fit(world: World) -> None:
    user = uuid.uuid4().hex
    wait = {"event": "w/done", "match": "data.u", "if_": "async.data.n == 7", "timeout": "20s"}
    run_id = one_run(world, "w/start", {"u": user, "waits": [wait]})
    open_wait(world, run_id)
    world.client.send("w/done", {"u": "another", "n": 7})
    world.client.send("w/done", {"u": user, "n": 6})
    world.client.send("w/done", {"u": user, "n": 7})
    assert ended(world.client, run_id).output == [7]


def test_a_wait_that_times_out_answers_none_and_the_next_one_still_waits(world: World) -> None:
    user = uuid.uuid4().hex
    first = {"event": "w/never", "timeout": "150ms"}
    second = {"event": "w/done", "match": "data.u", "timeout": "20s"}
    run_id = one_run(world, "w/start", {"u": user, "waits": [first, second]})
    reached(world.client, run_id, lambda run: any(one.event == "w/done" for one in run.waiting_for))
    world.client.send("w/done", {"u": user, "n": 1})
    assert ended(world.client, run_id).output == [None, 1]


def test_h18_a_wait_looks_back_to_the_events_since_its_run_began(world: World) -> None:
    user = uuid.uuid4().hex
    wait = {"event": "w/early", "match": "data.u", "timeout": "20s"}
    world.client.send("w/early", {"u": user, "n": 0})  # before the run: not for it
    hold = {"event": "w/go", "match": "data.u", "timeout": "20s"}
    run_id = one_run(world, "w/start", {"u": user, "waits": [hold, wait, {**wait, "timeout": "200ms"}]})
    open_wait(world, run_id)
    world.client.send("w/early", {"u": user, "n": 1})
    world.client.send("w/go", {"u": user})
    assert ended(world.client, run_id).output == [None, 1, None]


def test_h18_triggers_are_consumed_abandoned_waits_consume_nothing_and_an_event_is_taken_once(world: World) -> None:
    user = uuid.uuid4().hex
    run_id = one_run(world, "h18/start", {"u": user})
    reached(world.client, run_id, lambda run: any(one.event == "h18/next" for one in run.waiting_for))
    world.client.send("h18/next", {"u": user, "n": 1})
    assert ended(world.client, run_id).output == [None, 1, None]


def test_one_event_resolves_the_waits_of_many_runs(world: World) -> None:
    user = uuid.uuid4().hex
    wait = {"event": "w/all", "match": "data.u", "timeout": "30s"}
    runs = [one_run(world, "w/start", {"u": user, "waits": [wait]}) for _ in range(10)]
    for run_id in runs:
        open_wait(world, run_id)
    world.client.send("w/all", {"u": user, "n": 4})
    assert [ended(world.client, run_id).output for run_id in runs] == [[4]] * 10


# --- children ---


def test_a_child_answers_as_the_type_that_it_promises(world: World) -> None:
    assert world.client.invoke("features/parent", {"kind": "typed"}, timeout=20) == ["Receipt", 5]


def test_a_childs_failure_crosses_over_as_a_typed_error(world: World) -> None:
    kind, reason, message, said = world.client.invoke("features/parent", {"kind": "failing"}, timeout=20)
    assert (kind, reason) == ("RunFailedError", "RUN_FAILED")
    assert "the amount is negative" in message + said


def test_an_unknown_function_is_named(world: World) -> None:
    kind, reason, said = world.client.invoke("features/parent", {"kind": "unknown"}, timeout=20)
    assert (kind, reason) == ("InvokeError", "FUNCTION_NOT_FOUND")
    assert "nobody/nothing" in said


@pytest.mark.parametrize("detached", [False, True])
def test_a_child_that_takes_too_long_is_cancelled_unless_detached(world: World, detached: bool) -> None:
    handle = world.client.start("features/parent", {"kind": "slow", "detached": detached})
    assert handle.result(20)[:2] == ["InvokeTimeoutError", "TIMEOUT"]
    (child,) = world.client.list_runs(parent_run_id=handle.run_id)
    if not detached:
        assert ended(world.client, child.id).status is RunStatus.CANCELLED
        return
    open_wait(world, child.id)
    world.client.cancel_run(child.id)
    ended(world.client, child.id)


@pytest.mark.parametrize("detached", [False, True])
def test_a_child_is_cancelled_with_its_parent_unless_detached(world: World, detached: bool) -> None:
    handle = world.client.start("features/parent", {"kind": "waiting", "detached": detached})
    run = reached(world.client, handle.run_id, lambda run: any(one.kind == "CHILD" for one in run.waiting_for))
    (child_id,) = {one.run_id for one in run.waiting_for if one.kind == "CHILD"}
    open_wait(world, child_id)
    handle.cancel("enough")
    assert ended(world.client, handle.run_id).status is RunStatus.CANCELLED
    if not detached:
        assert ended(world.client, child_id).status is RunStatus.CANCELLED
        return
    assert world.client.get_run(child_id).status is RunStatus.PARKED
    world.client.cancel_run(child_id)
    ended(world.client, child_id)


def test_invokes_nest_a_hundred_deep_and_no_deeper(world: World) -> None:
    handle = world.client.start("features/depth", 0)
    run = ended(world.client, handle.run_id, 60)
    assert run.status is RunStatus.FAILED
    assert run.failure is not None
    assert "deeper than 100" in repr(run.failure)


# --- sending ---


def test_events_are_sent_once_though_the_function_is_entered_again(world: World) -> None:
    user = uuid.uuid4().hex
    ids = world.client.invoke("features/sender", user, timeout=20)
    stored = [one for one in world.client.list_events("sent/*") if one.event.data.get("u") == user]
    assert sorted(one.event.id for one in stored) == sorted(ids)
    assert sorted(one.event.data.get("n", 0) for one in stored) == [0, 1, 2]


# --- parallel code ---


def test_gather_wait_and_task_groups_work_as_in_asyncio(world: World) -> None:
    handle = world.client.start("features/gatherer")
    assert handle.result(30) == [list(range(20)), 7, ["fast"], "x", "y"]
    assert world.executed(handle.run_id, "note:20") == 1


def test_h4_the_timers_of_asyncio_are_durable(world: World) -> None:
    assert world.client.invoke("features/times", timeout=20) == [True, "timeout", "in time", False]


# --- values ---


def test_a_result_at_the_limit_is_kept_and_hostile_text_comes_back_as_it_was(world: World) -> None:
    assert world.client.invoke("features/outputs", {"kind": "edge"}, timeout=30) == 2 * 1024 * 1024 - 2
    text = "a\0b\x7f\u2028 😀 \"'; drop table runs; --"
    assert world.client.invoke("features/outputs", {"kind": "text"}, timeout=30) == text


@pytest.mark.parametrize(
    ("kind", "own", "reason", "named"),
    [
        ("object", False, "NOT_SERIALIZABLE", ("odd", "object")),
        ("nan", False, "NOT_SERIALIZABLE", ("odd",)),
        ("surrogate", False, "NOT_SERIALIZABLE", ("odd",)),
        ("large", False, "TOO_LARGE", ("odd", "2097152")),
        ("object", True, "NOT_SERIALIZABLE", ("object",)),
        ("large", True, "TOO_LARGE", ("2097152",)),
    ],
)
def test_an_output_that_cannot_be_kept_fails_its_step_by_name(
    world: World, kind: str, own: bool, reason: str, named: tuple[str, ...]
) -> None:
    handle = world.client.start("features/outputs", {"kind": kind, "own": own})
    run = ended(world.client, handle.run_id)
    assert run.status is RunStatus.FAILED, run
    assert run.failure is not None
    said = repr(run.failure)
    assert reason in said
    for name in named:
        assert name in said
