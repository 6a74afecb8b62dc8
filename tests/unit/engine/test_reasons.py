"""Why a run has not ended is said from its rows and the sessions, by one read (H38)."""

from __future__ import annotations

import pytest
from stepwell_server.engine import query
from stepwell_server.engine.query import Waiting

from tests.unit.engine.rig import ENV, Rig, Worker, rig


async def said(world: Rig, run_id: str) -> list[tuple[Waiting, str]]:
    """What GetRun says the run waits for."""
    world.store.reads.clear()
    found = query.reasons(world.node, await query.run_state(world.node, ENV, run_id))
    assert world.store.reads == ["load"]
    return [(Waiting(reason.kind), reason.key) for reason in found]


async def waiting(world: Rig, worker: Worker, *, all_of: bool) -> str:
    """A run that waits for two events."""
    run_id = await world.start()
    for name in "ab":
        worker.wait(run_id, name, f"go/{name}")
    worker.park(run_id, "a", "b", all_of=all_of)
    await world.settle()
    return run_id


async def test_h38_a_run_that_needs_several_outcomes_says_which_ones_are_missing() -> None:
    async with rig() as world:
        worker = await world.connect()
        run_id = await waiting(world, worker, all_of=True)
        assert await said(world, run_id) == [(Waiting.EVENT, "a"), (Waiting.EVENT, "b")]
        await world.send("go/a")
        assert await said(world, run_id) == [(Waiting.EVENT, "b")]
        await world.send("go/b")
        assert await said(world, run_id) == [(Waiting.EXECUTING, "")]


async def test_h38_a_run_that_was_woken_and_finds_no_place_says_so() -> None:
    async with rig() as world:
        worker = await world.connect(capacity=1)
        run_id = await waiting(world, worker, all_of=False)
        busy = await world.start()
        await world.send("go/a")
        assert await said(world, busy) == [(Waiting.EXECUTING, "")]
        assert await said(world, run_id) == [(Waiting.CAPACITY, ""), (Waiting.EVENT, "b")]


@pytest.mark.parametrize(("worker_left", "kind"), [(False, Waiting.CAPACITY), (True, Waiting.NO_WORKER)])
async def test_h38_a_queued_run_says_what_it_lacks(worker_left: bool, kind: Waiting) -> None:
    async with rig() as world:
        worker = await world.connect(capacity=1)
        await world.start()
        run_id = await world.start()
        if worker_left:
            await worker.lost()
        assert await said(world, run_id) == [(kind, "")]
