"""A session is taken up, or a run is given out, while something else about the run is on its way to the store (H16)."""

from __future__ import annotations

import asyncio

from stepwell_server.engine import sessions
from stepwell_server.model.commit import Commit
from stepwell_server.model.journal import OutcomeRow
from stepwell_server.model.run import Move, RunStatus
from stepwell_server.model.session import SessionWrite

from tests.unit.engine.rig import ENV, Rig, Worker, rig


async def waiting(world: Rig, worker: Worker) -> str:
    """A run that is parked in its worker's memory until an event comes."""
    run_id = await world.start()
    worker.wait(run_id, "paid", "go/paid")
    worker.park(run_id, "paid")
    await world.settle()
    return run_id


def back(world: Rig, worker: Worker, run_id: str) -> asyncio.Future[Worker]:
    """The worker connects again, with the run parked in its memory."""
    held = [sessions.Held(run_id, 1, True)]
    return asyncio.ensure_future(world.connect(session_id=worker.session.id, residents=held, instance="home"))


async def test_h16_an_outcome_that_comes_while_its_run_is_read_to_stay_with_its_worker_is_told() -> None:
    async with rig() as world:
        worker = await world.connect(instance="home")
        run_id = await waiting(world, worker)
        reading = world.store.hold_read("load")
        again = back(world, worker, run_id)
        await world.settle()
        assert reading.calls == 1, "the run is read, without the outcome"
        await world.send("go/paid")
        reading.release()
        assert (await again).told("outcome", run_id) == [("outcome", run_id, 1, "paid")]
        assert world.node.adopting == {}


async def test_h16_an_outcome_whose_run_was_not_taken_after_all_is_told_where_the_run_is() -> None:
    async with rig() as world:
        worker = await world.connect(instance="home")
        run_id = await waiting(world, worker)
        other = await world.connect(instance="other")
        writing = world.store.hold(lambda commit: isinstance(commit.decider, SessionWrite))
        again = back(world, worker, run_id)
        await world.settle()
        resolving = world.store.hold(lambda commit: isinstance(commit.decider, OutcomeRow))
        await world.send("go/paid")
        assert resolving.calls == 1, "for the other worker, since the first one is away"
        writing.release()
        home = await again
        assert not home.told("outcome", run_id)
        resolving.release()
        await world.settle()
        assert home.told("outcome", run_id) == [("outcome", run_id, 1, "paid")]
        assert not other.told("assign", run_id)
        assert other.session.executing == 0


async def test_what_is_at_hand_of_a_new_run_is_not_given_out_once_somebody_has_started_it() -> None:
    """A look into the store, faster than the answer to the commit that made the run, has started and parked it."""
    async with rig() as world:
        await (await world.connect()).lost()
        run_id = await world.start()
        parked = Move(ENV, run_id, 0, 1, int(RunStatus.PARKED), 0, None, 0, 1, "one", None)
        await world.node.lane.apply(Commit(ENV, decider=parked))
        worker = await world.connect()
        assert not worker.told("assign", run_id)
        assert (world.row(run_id).turn, world.status(run_id)) == (1, RunStatus.PARKED)
        assert worker.session.executing == 0
