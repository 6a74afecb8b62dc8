"""Things that cross on their way to the store, played one by one: each was lost, doubled or stuck once."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from stepwell_server.engine import begin, conclude, control, dispatch, recover, sessions, unwind
from stepwell_server.model.commit import Commit
from stepwell_server.model.journal import CANCEL_KEY, GRACE_KEY, WaitRow
from stepwell_server.model.run import Move, ReadyRow, RunStatus, Take
from stepwell_server.model.session import SessionWrite
from stepwell_server.ports.queue import Queued

from tests.unit.engine.rig import ENV, Recorder, Rig, Worker, rig


def takes(run_id: str) -> Any:
    """Commits that give a run to a session."""

    def fits(commit: Commit) -> bool:
        found = [commit.decider, *commit.takes, *commit.runs]
        return any(isinstance(one, Take) and one.run_id == run_id for one in found)

    return fits


async def parked(rig: Rig, worker: Worker) -> str:
    """A run that sleeps for an hour in a worker's memory."""
    run_id = await rig.start()
    frame = worker.frame()
    begin.sleep(frame, run_id, worker.turn(run_id), "nap", 3_600_000, 0)
    frame.finish()
    worker.park(run_id, "nap")
    await rig.settle()
    assert rig.status(run_id) is RunStatus.PARKED
    return run_id


async def released(rig: Rig, worker: Worker) -> str:
    """A run that sleeps for an hour in nobody's memory."""
    run_id = await parked(rig, worker)
    worker.release(run_id)
    await rig.settle()
    assert rig.row(run_id).session_id is None
    return run_id


def grace_of(rig: Rig, run_id: str) -> WaitRow:
    """The forced end of a run that is to be cancelled."""
    return rig.store.memory.tables.wait[ENV, run_id][GRACE_KEY]


# --- the end of a cancelled run ---


async def test_h16_a_grace_that_is_over_while_its_run_changes_hands_ends_nothing_behind_the_new_owner() -> None:
    async with rig() as world:
        worker = await world.connect()
        run_id = await released(world, worker)
        taking = world.store.hold(takes(run_id))
        await control.cancel(world.node, ENV, run_id, "test")
        reading = world.store.hold_read("load")
        taking.release()
        await world.settle()
        assert (world.status(run_id), reading.calls) == (RunStatus.RUNNING, 1), "taken, and on its way to the worker"
        await unwind.grace_over(world.node, grace_of(world, run_id))
        assert world.status(run_id) is RunStatus.RUNNING
        reading.release()
        await world.settle()
        assert worker.turn(run_id) == 2
        await unwind.grace_over(world.node, grace_of(world, run_id))
        await world.settle()
        assert world.status(run_id) is RunStatus.CANCELLED
        assert worker.told("evict", run_id) == [("evict", run_id, 2)]


async def test_a_run_that_unwinds_takes_its_grace_with_it() -> None:
    async with rig() as world:
        worker = await world.connect()
        run_id = await world.start()
        await control.cancel(world.node, ENV, run_id, "test")
        assert GRACE_KEY in world.waits(run_id)
        frame = worker.frame()
        frame.delivered(run_id, 1, [(CANCEL_KEY, 1)])
        conclude.cancelled(frame, run_id, 1, 2)
        frame.finish()
        await world.settle()
        assert world.status(run_id) is RunStatus.CANCELLED
        assert world.waits(run_id) == set()


async def test_a_request_to_cancel_that_comes_after_the_end_goes_when_its_grace_is_over() -> None:
    async with rig() as world:
        worker = await world.connect()
        run_id = await world.start()
        reading = world.store.hold_read("load")
        cancelling = asyncio.ensure_future(control.cancel(world.node, ENV, run_id, "test"))
        await world.settle()
        frame = worker.frame()
        conclude.complete(frame, run_id, 1, 1, b"7", "")
        frame.finish()
        await world.settle()
        assert world.status(run_id) is RunStatus.COMPLETED
        reading.release()
        await cancelling
        await world.settle()
        await unwind.grace_over(world.node, grace_of(world, run_id))
        assert world.status(run_id) is RunStatus.COMPLETED
        assert world.waits(run_id) == set()
        assert not world.store.memory.tables.outcome.get((ENV, run_id))


async def test_h33_two_that_cancel_one_run_at_once_write_different_places() -> None:
    """The rig fails the test where they do not."""
    async with rig() as world:
        worker = await world.connect()
        run_id = await released(world, worker)
        await worker.lost()
        await control.cancel(world.node, ENV, run_id, "test")
        await world.settle()
        flushing = world.store.hold(lambda _: True)
        for name in ("one", "two"):  # what comes now goes together, once both flushers are back
            world.node.lane.submit(Commit(ENV, touches=(name,)), lambda result, _: None)
            await world.settle()
        again = asyncio.ensure_future(control.cancel(world.node, ENV, run_id, "test"))
        await world.settle()
        over = asyncio.ensure_future(unwind.grace_over(world.node, grace_of(world, run_id)))
        await world.settle()
        flushing.release()
        await asyncio.gather(again, over)
        await world.settle()


# --- sessions that come and go ---


async def test_h12_a_session_whose_stream_breaks_while_it_is_taken_up_ends_and_its_runs_move() -> None:
    async with rig(stream_grace_ms=0) as world:
        worker = await world.connect()
        run_id = await world.start()
        writing = world.store.hold(lambda commit: isinstance(commit.decider, SessionWrite))
        again = world.hello(session_id=worker.session.id, residents=[sessions.Held(run_id, 1, False)])
        opening = asyncio.ensure_future(sessions.connect(world.node, world.node.environment(ENV), again, Recorder()))
        await world.settle()
        assert writing.calls == 1
        opening.cancel()
        with suppress(asyncio.CancelledError):
            await opening
        writing.release()
        for _ in range(5):
            await asyncio.sleep(0.01)
            await world.settle()
        assert world.store.memory.tables.session[ENV, worker.session.id].closed_ms is not None
        assert world.status(run_id) is RunStatus.QUEUED
        other = await world.connect()
        assert other.told("assign", run_id)


async def test_h8_a_run_that_is_on_its_way_into_a_session_is_not_forgotten_when_that_is_taken_up() -> None:
    async with rig() as world:
        worker = await world.connect()
        writing = world.store.hold(lambda commit: bool(commit.runs))
        starting = asyncio.ensure_future(world.start())
        await world.settle()
        assert writing.calls == 1
        taking_up = asyncio.ensure_future(world.connect(session_id=worker.session.id))
        await world.settle()
        writing.release()
        again, run_id = await taking_up, await starting
        assert again.session.id == worker.session.id
        assert again.told("assign", run_id)
        assert world.node.coming == {}


async def test_h12_a_run_that_is_on_its_way_into_a_session_moves_with_the_others_when_that_ends() -> None:
    async with rig() as world:
        worker = await world.connect()
        writing = world.store.hold(lambda commit: bool(commit.runs))
        starting = asyncio.ensure_future(world.start())
        await world.settle()
        ending = asyncio.ensure_future(worker.lost())
        await world.settle()
        writing.release()
        await ending
        run_id = await starting
        assert world.status(run_id) is RunStatus.QUEUED
        assert (await world.connect()).told("assign", run_id)


async def test_a_sweep_leaves_the_runs_of_a_session_alone_that_is_just_being_closed() -> None:
    async with rig() as world:
        worker = await world.connect()
        run_id = await parked(world, worker)
        reading = world.store.hold_read("load")
        closing = asyncio.ensure_future(worker.lost())
        await world.settle()
        assert reading.calls == 1, "the session is closed, and its runs are read"
        assert await recover.sweep(world.node, older_than_ms=0) == 0
        reading.release()
        await closing
        assert world.status(run_id) is RunStatus.PARKED


async def test_h13_a_sweep_that_read_before_a_session_was_closed_counts_no_loss_twice() -> None:
    async with rig() as world:
        worker = await world.connect()
        run_id = await world.start()
        loading = world.store.hold_read("load")
        closing = asyncio.ensure_future(worker.lost())
        await world.settle()
        assert loading.calls == 1, "the session is closed, and its runs are read"
        reading = world.store.hold_read("stranded")
        sweeping = asyncio.ensure_future(recover.sweep(world.node, older_than_ms=0))
        await world.settle()
        loading.release()
        await closing
        assert (world.status(run_id), world.row(run_id).losses) == (RunStatus.QUEUED, 1)
        reading.release()
        assert await sweeping == 0
        assert (world.status(run_id), world.row(run_id).losses) == (RunStatus.QUEUED, 1)


# --- suspects ---


async def test_h13_a_suspect_that_is_being_taken_already_reserves_no_second_worker() -> None:
    async with rig() as world:
        first = await world.connect(instance="first")
        second = await world.connect(instance="second")
        run_id = await world.start()
        owner = first if first.told("assign", run_id) else second
        row = world.row(run_id)
        loss = Move(ENV, run_id, 1, 1, int(RunStatus.QUEUED), 0, None, 3, None, "", None, 1, 1)
        dispatch.forget(world.node, owner.session.residents[run_id])
        await world.node.lane.apply(Commit(ENV, decider=loss))
        taking = world.store.hold(takes(run_id))
        place = ReadyRow(ENV, run_id, row.function_id, 1, 1)
        dispatch.queued(world.node, place)
        await world.settle()
        world.node.queue.settled(place)
        dispatch.queued(world.node, place)  # as a second look into the store may bring it
        await world.settle()
        reserved = [worker for worker in (first, second) if worker.session.suspect is not None]
        taking.release()
        await world.settle()
        assert len(reserved) == 1
        assert [one.session.suspect for one in reserved] == [run_id]
        other = second if reserved[0] is first else first
        assert other.session.free == 10


async def test_a_take_says_whether_it_was_the_one() -> None:
    async with rig() as world:
        worker = await world.connect()
        run_id = await released(world, worker)
        item = Queued(ReadyRow(ENV, run_id, "app/f", 0, 1), None)
        env = world.node.environment(ENV)
        assert dispatch.take_all(world.node, env, worker.session, [item]) == 1
        assert dispatch.take_all(world.node, env, worker.session, [item]) == 0
        await world.settle()
        assert worker.session.executing == 1
