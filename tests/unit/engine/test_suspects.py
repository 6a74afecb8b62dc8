"""A run that was lost with its worker again and again is given out alone; that costs the others little (H13)."""

from __future__ import annotations

from stepwell_server.engine import conclude, dispatch
from stepwell_server.model.commit import Commit
from stepwell_server.model.run import Move, Priority, ReadyRow, RunStatus

from tests.unit.engine.rig import APP, ENV, Rig, Worker, rig

SUSPECT = int(Priority.SUSPECT)


async def suspect(world: Rig, worker: Worker, function: str = "f") -> str:
    """A run that was lost three times and waits in the queue; it may be given out at once."""
    run_id = await world.start(function)
    dispatch.forget(world.node, world.node.residents[run_id])
    lost = Move(ENV, run_id, 1, 1, int(RunStatus.QUEUED), 0, None, 3, None, "", None, SUSPECT, 1)
    await world.node.lane.apply(Commit(ENV, decider=lost))
    dispatch.queued(world.node, ReadyRow(ENV, run_id, f"{APP}/{function}", SUSPECT, 1))
    await world.settle()
    return run_id


async def busy(world: Rig, *workers: Worker) -> list[str]:
    """One executing run for each worker."""
    run_ids = [await world.start() for _ in workers]
    assert all(worker.session.executing == 1 for worker in workers)
    return run_ids


async def complete(world: Rig, worker: Worker, run_id: str) -> None:
    frame = worker.frame()
    conclude.complete(frame, run_id, worker.turn(run_id), 1, b"1", "")
    frame.finish()
    await world.settle()


async def test_h13_suspects_keep_one_busy_worker_free_at_most() -> None:
    async with rig() as world:
        workers = [await world.connect(instance=name, functions=("f", "g")) for name in ("one", "two")]
        await busy(world, *workers)
        for function in ("f", "g"):
            await suspect(world, workers[0], function)
        for _ in range(3):
            dispatch.pump(world.node, world.node.environment(ENV))
            await world.settle()
        assert sorted(str(worker.session.suspect) for worker in workers) == ["", "None"]
        innocent = await world.start()
        (free,) = [worker for worker in workers if worker.session.suspect is None]
        assert free.told("assign", innocent), "the other one takes new work"


async def test_h13_a_worker_that_does_not_become_idle_takes_work_again_and_the_suspect_goes_there_once_it_is() -> None:
    async with rig() as world:
        worker = await world.connect()
        (long,) = await busy(world, worker)
        lost = await suspect(world, worker)
        innocent = await world.start()
        assert worker.session.suspect == ""
        assert world.status(innocent) is RunStatus.QUEUED, "the worker is kept free for the suspect"
        dispatch._spare(world.node, worker.session)  # as its timer does after a lease
        await world.settle()
        assert worker.told("assign", innocent)
        assert worker.session.suspect is None, "it is not kept free again at once"
        await complete(world, worker, innocent)
        assert len(worker.told("assign", lost)) == 1
        await complete(world, worker, long)
        assert worker.session.suspect == lost
        assert len(worker.told("assign", lost)) == 2
