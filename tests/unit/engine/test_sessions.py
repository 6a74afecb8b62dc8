"""What becomes of sessions whose server is gone, and what a session costs while nothing happens (H12)."""

from __future__ import annotations

import asyncio

import pytest
from stepwell_server.engine import sessions
from stepwell_server.engine.housekeeping import Housekeeping
from stepwell_server.model.run import RunStatus

from tests.unit.engine.rig import ENV, Rig, rig


def closed(world: Rig, session_id: str) -> bool:
    return world.store.memory.tables.session[ENV, session_id].closed_ms is not None


async def until_closed(world: Rig, session_id: str) -> None:
    async with asyncio.timeout(10):
        while not closed(world, session_id):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    await world.settle()


async def test_h8_of_two_streams_that_take_a_session_up_at_once_one_holds_it() -> None:
    async with rig() as world:
        worker = await world.connect()
        run_id = await world.start()
        held = [sessions.Held(run_id, 1, False)]
        both = await asyncio.gather(
            *(world.connect(session_id=worker.session.id, residents=held, instance="worker") for _ in range(3))
        )
        assert [one.session.row.epoch for one in both] == [2, 3, 4]
        assert [len(one.told("close")) for one in (worker, *both)] == [1, 1, 1, 0]
        holder = both[-1].session
        assert world.node.sessions[holder.id] is holder
        assert world.node.residents[run_id].session is holder
        assert [one.session.residents for one in both[:-1]] == [{}, {}]
        assert not world.node.connecting


async def test_h12a_runs_of_a_server_that_died_stay_with_their_worker_if_it_comes_back_within_the_lease() -> None:
    async with rig("old") as old, rig("next", old.store) as following:
        worker = await old.connect()
        run_id = await old.start()
        housekeeping = Housekeeping(following.node, lambda _: False)
        await housekeeping.start(ENV)
        await following.settle()
        assert not closed(following, worker.session.id)
        assert (following.status(run_id), following.row(run_id).losses) == (RunStatus.RUNNING, 0)
        held = [sessions.Held(run_id, 1, False)]
        again = await following.connect(session_id=worker.session.id, residents=held)
        assert again.session.id == worker.session.id
        assert again.session.row.epoch == worker.session.row.epoch + 1
        housekeeping._give_up([worker.session.row])  # as its timer does after a lease
        await following.settle()
        assert (following.status(run_id), following.row(run_id).turn) == (RunStatus.RUNNING, 1)
        housekeeping.stop()


async def test_h12a_runs_of_a_server_that_died_move_after_a_lease_if_their_worker_does_not_come_back() -> None:
    async with rig("old") as old, rig("next", old.store, lease_ms=20) as following:
        worker = await old.connect()
        run_id = await old.start()
        housekeeping = Housekeeping(following.node, lambda _: False)
        await housekeeping.start(ENV)
        await until_closed(following, worker.session.id)
        assert (following.status(run_id), following.row(run_id).losses) == (RunStatus.QUEUED, 1)
        housekeeping.stop()


async def test_h12e_runs_of_a_worker_of_this_host_that_has_ended_wait_for_no_lease() -> None:
    async with rig("old") as old, rig("next", old.store) as following:
        dead = await old.connect(instance="here:1")
        run_id = await old.start()
        housekeeping = Housekeeping(following.node, lambda instance: instance == "here:1")
        await housekeeping.start(ENV)
        assert closed(following, dead.session.id)
        assert following.status(run_id) is RunStatus.QUEUED
        housekeeping.stop()


@pytest.mark.parametrize("runs", [0, 3])
async def test_h12e_a_worker_that_is_heard_changes_no_row(runs: int) -> None:
    async with rig() as world:
        worker = await world.connect()
        for _ in range(runs):
            await world.start()
        written = world.store.memory.commits, world.store.memory.rows
        housekeeping = Housekeeping(world.node, lambda _: False)
        held = [sessions.hash_of(one.run_id, one.turn) for one in worker.session.residents.values()]
        for _ in range(100):
            assert sessions.check_heartbeat(worker.session, runs, sum(held) % 2**64, worker.link.frames_sent() + 1)
            housekeeping.look_at_streams()
            await housekeeping.run_once()
        await world.settle()
        assert (world.store.memory.commits, world.store.memory.rows) == written
