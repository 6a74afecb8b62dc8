"""Outcomes find their runs, each rule alone: what another would heal later does not count here (H13, H16–H18)."""

from __future__ import annotations

import asyncio
import logging

import pytest
from stepwell_server.engine import begin, recover, sessions, wake
from stepwell_server.engine.housekeeping import Housekeeping
from stepwell_server.model.commit import Commit
from stepwell_server.model.run import RunStatus

from tests.unit.engine.rig import ENV, Rig, Worker, rig


async def parked_on(world: Rig, worker: Worker, event: str, **wait: int) -> str:
    """A run that waits for an event in a worker's memory."""
    run_id = await world.start()
    worker.wait(run_id, "k", event, **wait)
    worker.park(run_id, "k")
    await world.settle()
    assert world.status(run_id) is RunStatus.PARKED
    return run_id


async def nobodys(world: Rig, worker: Worker, event: str, **wait: int) -> str:
    """A run that waits for an event in nobody's memory."""
    run_id = await parked_on(world, worker, event, **wait)
    worker.release(run_id)
    await world.settle()
    return run_id


# --- H16 ---


async def test_h16_an_outcome_that_did_not_suffice_wakes_its_run_elsewhere_once_it_was_given_back() -> None:
    async with rig() as world:
        worker = await world.connect()
        run_id = await world.start()
        worker.wait(run_id, "a", "go/a")
        worker.wait(run_id, "b", "go/b")
        worker.park(run_id, "a", "b", all_of=True)
        await world.settle()
        await world.send("go/a")
        assert not worker.told("outcome", run_id), "it needs both"
        worker.release(run_id)
        await world.settle()
        assert worker.turn(run_id) == 2, "whoever enters the code again may need only one"


async def test_h16_a_run_that_is_woken_while_no_worker_is_there_is_durably_queued() -> None:
    async with rig() as world:
        worker = await world.connect()
        run_id = await nobodys(world, worker, "go/a")
        await worker.lost()
        await world.send("go/a")
        assert world.status(run_id) is RunStatus.QUEUED
        other = await world.connect()
        assert other.told("assign", run_id)


async def test_h16_the_sweep_finds_an_outcome_that_nobody_was_told_of() -> None:
    async with rig() as world:
        worker = await world.connect()
        run_id = await nobodys(world, worker, "go/a")
        wait = world.store.memory.tables.wait[ENV, run_id]["k"]
        lost_hint = Commit(ENV, decider=wake.outcome_of(wait, 0, output=b"{}"))
        await world.store.memory.commit([lost_hint])
        await world.settle()
        assert worker.turn(run_id) == 1
        assert await recover.sweep(world.node, older_than_ms=0) == 1
        await world.settle()
        assert worker.turn(run_id) == 2


async def test_h16_an_outcome_that_comes_while_its_run_is_taken_is_not_forgotten() -> None:
    async with rig() as world:
        worker = await world.connect()
        run_id = await world.start()
        for name in "ab":
            worker.wait(run_id, name, f"go/{name}")
        worker.park(run_id, "a", "b")
        await world.settle()
        worker.release(run_id)
        await world.settle()
        reading = world.store.hold_read("load")
        await world.send("go/a")
        assert reading.calls == 1, "it is taken, and was read without b"
        await world.send("go/b")
        reading.release()
        await world.settle()
        assert worker.turn(run_id) == 2
        assert [one[3] for one in worker.told("outcome", run_id)] == ["b"], "a came with the journal"


@pytest.mark.parametrize(("received", "parks"), [(0, False), (1, True)])
async def test_h16_a_park_is_void_if_an_outcome_is_on_its_way_that_touches_its_tree(received: int, parks: bool) -> None:
    async with rig() as world:
        worker = await world.connect()
        run_id = await world.start()
        worker.wait(run_id, "a", "go/a")
        worker.wait(run_id, "b", "go/b")
        await world.settle()
        await world.send("go/a")
        assert [one[3] for one in worker.told("outcome", run_id)] == ["a"]
        worker.park(run_id, "b", *([] if received else ["a"]), received=received)
        await world.settle()
        assert worker.session.executing == (0 if parks else 1)


# --- H17 ---


async def test_h17_an_event_that_came_before_a_time_out_wins_though_the_look_back_is_late() -> None:
    async with rig() as world:
        worker = await world.connect()
        run_id = await world.start()
        event_id = await world.send("go/a")
        looking = world.store.hold_question("look_back")
        worker.wait(run_id, "k", "go/a", timeout_ms=1)
        await world.settle()
        assert looking.calls == 1
        await asyncio.sleep(0.002)
        await world.timers.run_once()
        await world.settle()
        assert world.outcomes(run_id)["k"].event_id == event_id
        looking.release()
        await world.settle()
        assert len(worker.told("outcome", run_id)) == 1


async def test_h17_after_a_crash_events_are_served_before_time_outs_fire() -> None:
    async with rig("old") as old, rig("next", old.store) as following:
        old.timers.stop()
        worker = await old.connect()
        run_id = await nobodys(old, worker, "go/a", timeout_ms=1)
        serving = old.store.hold_question("match")
        event_id = await old.send("go/a")
        assert serving.calls == 1, "the event is durable, and not served"
        assert old.store.memory.tables.cursor
        await asyncio.sleep(0.002)
        # The old server is dead from here on.
        housekeeping = Housekeeping(following.node, lambda _: True)
        await housekeeping.start(ENV)
        await following.timers.run_once()
        await following.settle()
        housekeeping.stop()
        assert following.outcomes(run_id)["k"].event_id == event_id


# --- H18 ---


async def test_h18a_a_run_does_not_take_the_event_that_started_it() -> None:
    """It opens a wait for it before the event was served."""
    async with rig() as world:
        worker = await world.connect()
        first = await world.start()
        worker.wait(first, "shape", "on/f")
        await world.settle()
        matching = world.store.hold_question("match")
        event_id = await world.send("on/f")
        assert matching.calls == 1
        (run_id,) = {one[1] for one in worker.told("assign")} - {first}
        worker.wait(run_id, "own", "on/f")
        await world.settle()
        matching.release()
        await world.settle()
        assert world.outcomes(run_id) == {}
        assert world.waits(run_id) == {"own"}
        assert world.outcomes(first)["shape"].event_id == event_id


@pytest.mark.parametrize("name", ["a#b", "a=b", "a", "#", "=", "a=#b", 'a="x"'])
async def test_h18_a_look_back_finds_its_event_whatever_the_path_is_called(name: str) -> None:
    async with rig() as world:
        worker = await world.connect()
        run_id = await world.start()
        sent = [await world.send("go/a", {name: value}) for value in ("other", "x" * 1_000, "mine")]
        frame = worker.frame()
        for key, value in (("short", b'"mine"'), ("long", b'"' + b"x" * 1_000 + b'"')):
            begin.wait_for_event(frame, run_id, 1, key, "go/a", f"data.{name}", value, "", 3_600_000)
        frame.finish()
        await world.settle()
        assert {key: row.event_id for key, row in world.outcomes(run_id).items()} == {"short": sent[2], "long": sent[1]}


async def test_h18b_an_event_resolves_every_open_wait_of_a_run_that_it_fits() -> None:
    async with rig() as world:
        worker = await world.connect()
        run_id = await world.start()
        for key in ("one", "two"):
            worker.wait(run_id, key, "go/a")
        worker.wait(run_id, "other", "go/b")
        await world.settle()
        event_id = await world.send("go/a")
        assert {key: row.event_id for key, row in world.outcomes(run_id).items()} == {"one": event_id, "two": event_id}
        assert world.waits(run_id) == {"other"}


async def test_h18c_a_key_that_was_given_up_is_closed_and_takes_no_event() -> None:
    async with rig() as world:
        worker = await world.connect()
        run_id = await world.start()
        worker.wait(run_id, "a", "go/a")
        await world.settle()
        frame = worker.frame()
        frame.abandon(run_id, 1, "a")
        begin.sleep(frame, run_id, 1, "nap", 3_600_000, 0)
        frame.finish()
        await world.settle()
        assert world.waits(run_id) == {"nap"}
        await world.send("go/a")
        assert world.outcomes(run_id) == {}


@pytest.mark.parametrize(("pages", "page"), [(2, 3), (3, 2)])
async def test_h18d_a_look_back_is_bounded_and_says_when_it_was_cut(
    pages: int, page: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with rig(lookback_pages=pages, lookback_events=page) as world:
        worker = await world.connect()
        run_id = await world.start()
        sent = [await world.send("go/a") for _ in range(pages * page + 1)]
        with caplog.at_level(logging.WARNING):
            frame = worker.frame()
            begin.wait_for_event(frame, run_id, 1, "k", "go/a", "data.u", b"1", "", 3_600_000)
            frame.finish()
            await world.settle()
        assert f"the look-back of k was cut after event {sent[-2]}" in caplog.text
        assert world.waits(run_id) == {"k"}, "it waits on"


# --- H13 ---


@pytest.mark.parametrize("leaves", ["goodbye", "release", "reconnect"])
async def test_h13_a_run_that_leaves_its_worker_in_good_order_is_not_lost(leaves: str) -> None:
    async with rig() as world:
        worker = await world.connect()
        run_id = await world.start()
        if leaves == "goodbye":
            sessions.stream_ended(world.node, worker.session, goodbye=True)
        elif leaves == "release":
            worker.session.draining = True
            worker.release(run_id)
        else:
            await world.connect(session_id=worker.session.id, capacity=0)
        await world.settle()
        assert (world.status(run_id), world.row(run_id).losses) == (RunStatus.QUEUED, 0)


async def test_h13_a_loss_is_counted_and_progress_clears_the_count() -> None:
    async with rig() as world:
        worker = await world.connect()
        run_id = await world.start()
        await worker.lost()
        assert world.row(run_id).losses == 1
        worker = await world.connect()
        frame = worker.frame()
        frame.result(run_id, 2, "k", 1, b"1", "", 1, 0, 0, b"")
        frame.finish()
        await world.settle()
        assert world.row(run_id).losses == 0


# --- H12, H15: who gets work ---


async def test_h12_a_worker_that_is_late_gets_no_new_work_until_it_is_heard_again() -> None:
    async with rig(heartbeat_ms=1_000, lease_ms=60_000) as world:
        worker = await world.connect()
        housekeeping = Housekeeping(world.node, lambda _: False)
        worker.session.heard_ms -= 2_500
        housekeeping.look_at_streams()
        run_id = await world.start()
        assert world.status(run_id) is RunStatus.QUEUED
        worker.session.heard_ms = world.node.clock.monotonic_ms()
        housekeeping.look_at_streams()
        await world.settle()
        assert worker.told("assign", run_id)
        assert not worker.told("close")


async def test_h12_a_worker_that_was_silent_for_a_lease_loses_its_runs() -> None:
    async with rig(heartbeat_ms=1_000, lease_ms=4_000) as world:
        worker = await world.connect()
        run_id = await world.start()
        worker.session.heard_ms -= 4_500
        Housekeeping(world.node, lambda _: False).look_at_streams()
        await world.settle()
        assert worker.told("close") == [("close", "LEASE_OVER")]
        assert (world.status(run_id), world.row(run_id).losses) == (RunStatus.QUEUED, 1)


async def test_h15_a_build_that_comes_back_is_not_the_current_one_again() -> None:
    async with rig() as world:
        await world.connect(deployment="old", functions=("f", "gone"))
        await asyncio.sleep(0.002)  # deployments are ordered by the millisecond
        new = await world.connect(deployment="new", functions=("f",))
        again = await world.connect(deployment="old", functions=("f", "gone"))
        environment = world.node.environment(ENV)
        assert environment.current == {"app": "new"}
        assert "app/gone" not in environment.triggers.known
        for _ in range(3):
            run_id = await world.start()
            assert new.told("assign", run_id)
            assert not again.told("assign", run_id)


async def test_h15_a_run_is_entered_again_by_the_build_that_began_it_while_that_is_connected() -> None:
    async with rig() as world:
        old = await world.connect(deployment="old")
        run_id = await nobodys(world, old, "go/a")
        await asyncio.sleep(0.002)
        new = await world.connect(deployment="new")
        await world.send("go/a")
        assert old.turn(run_id) > 1
        assert not new.told("assign", run_id)
        frame = old.frame()
        frame.delivered(run_id, old.turn(run_id), [("k", 1)])
        frame.finish()
        old.wait(run_id, "l", "go/b")
        old.park(run_id, "l", received=9)
        await world.settle()
        await old.lost()
        await world.send("go/b")
        assert new.told("assign", run_id), "else by the current one"
