"""Functions that are paused: what is held back, what goes on, and what a crash leaves of it."""

from __future__ import annotations

import orjson
import pytest
from stepwell_server.engine import pauses, query, register
from stepwell_server.model.errors import NotFoundError
from stepwell_server.model.function import Standing
from stepwell_server.model.run import RunStatus

from tests.unit.engine.rig import APP, ENV, Rig, Worker, rig

F = f"{APP}/f"


async def pause(world: Rig, standing: Standing = Standing.KEEP) -> None:
    await pauses.pause(world.node, ENV, F, standing)
    await world.settle()


async def resume(world: Rig, *, skip: bool = False) -> None:
    await pauses.resume(world.node, ENV, F, skip=skip)
    await world.settle()


def assigned(worker: Worker) -> list[str]:
    return [one[1] for one in worker.told("assign")]


async def kinds(world: Rig, run_id: str) -> list[str]:
    """What a run waits for."""
    state = (await world.store.load(ENV, [run_id]))[run_id]
    return [reason.kind.name for reason in query.reasons(world.node, state)]


async def test_new_runs_of_a_paused_function_wait_and_those_of_others_do_not() -> None:
    async with rig() as world:
        worker = await world.connect(functions=("f", "g"))
        await pause(world)
        held, other = await world.start("f"), await world.start("g")
        await world.send("on/f")
        assert assigned(worker) == [other]
        assert world.status(held) is RunStatus.QUEUED
        assert await kinds(world, held) == ["FUNCTION_PAUSED"]
        await resume(world)
        assert len(assigned(worker)) == 3
        assert held in assigned(worker)


async def test_what_has_begun_goes_on_also_through_the_queue() -> None:
    async with rig() as world:
        worker = await world.connect(capacity=1)
        begun = await world.start("f")
        worker.wait(begun, "go", "now/go")
        worker.park(begun, "go")
        worker.release(begun)
        await world.settle()
        await pause(world)
        new = await world.start("f")
        await worker.lost()
        await world.send("now/go")
        assert world.status(begun) is RunStatus.QUEUED
        other = await world.connect(capacity=1)
        assert assigned(other) == [begun]
        assert world.status(new) is RunStatus.QUEUED


async def test_runs_that_are_held_leave_their_workers_without_a_loss_and_come_back() -> None:
    async with rig() as world:
        worker = await world.connect()
        executing, parked = await world.start("f"), await world.start("f")
        worker.wait(parked, "go", "now/go")
        worker.park(parked, "go")
        await world.settle()
        await pause(world, Standing.HOLD)
        assert {one[1] for one in worker.told("evict")} == {executing, parked}
        assert world.status(executing) is RunStatus.QUEUED
        assert world.row(executing).losses == 0
        assert world.status(parked) is RunStatus.PARKED
        await world.send("now/go")
        assert world.status(parked) is RunStatus.QUEUED
        assert await kinds(world, executing) == await kinds(world, parked) == ["FUNCTION_PAUSED"]
        assert len(assigned(worker)) == 2
        await resume(world)
        assert sorted(assigned(worker)[2:]) == sorted([executing, parked])


async def test_runs_that_have_begun_are_cancelled_and_others_wait() -> None:
    async with rig() as world:
        worker = await world.connect(capacity=2)
        begun = [await world.start("f"), await world.start("f")]
        waiting = await world.start("f")
        await pause(world, Standing.CANCEL)
        assert sorted(one[1] for one in worker.told("cancel")) == sorted(begun)
        assert world.status(waiting) is RunStatus.QUEUED


async def test_what_waited_is_skipped_when_the_function_is_resumed_so_and_later_runs_are_not() -> None:
    async with rig() as world:
        worker = await world.connect()
        await pause(world)
        waiting = [await world.start("f") for _ in range(3)]
        await resume(world, skip=True)
        assert {world.status(run_id) for run_id in waiting} == {RunStatus.SKIPPED}
        assert orjson.loads(world.row(waiting[0]).failure or b"{}")["reason"] == "FUNCTION_PAUSED"
        later = await world.start("f")
        assert assigned(worker) == [later]


async def test_a_server_that_dies_while_it_skips_is_followed_by_one_that_goes_on() -> None:
    async with rig() as first:
        await first.connect()
        await pause(first)
        waiting = [await first.start("f") for _ in range(5)]
        gate = first.store.hold(lambda commit: commit.decider is not None and bool(commit.touches))
        await pauses.resume(first.node, ENV, F, skip=True)
        await first.settle()
        assert gate.calls > 0
        first.store.forget(gate)
        async with rig("second", first.store) as second:
            env = second.node.environment(ENV)
            assert env.paused is not None
            await pauses.carry_out(second.node, env)
            await second.settle()
            assert {second.status(run_id) for run_id in waiting} == {RunStatus.SKIPPED}
            assert env.paused is None


async def test_another_node_learns_it_with_the_registry() -> None:
    async with rig() as first:
        await first.connect()
        await pause(first)
        async with rig("second", first.store) as second:
            env = second.node.environment(ENV)
            assert (env.paused or {})[F].standing == Standing.KEEP
            version = env.version
            await resume(first)
            await register.refresh(second.node, env)
            assert env.paused is None
            assert env.version > version


async def test_to_pause_and_to_resume_twice_is_once() -> None:
    async with rig() as world:
        await world.connect()
        switches = world.store.memory.tables.switch
        await resume(world)
        assert len(switches) == 0
        await pause(world)
        await pause(world)
        assert len(switches) == 1
        await pause(world, Standing.HOLD)
        assert [row.standing for row in switches.values()] == [Standing.KEEP, Standing.HOLD]
        await resume(world)
        await resume(world)
        assert len(switches) == 3


async def test_a_function_that_nobody_registered_cannot_be_paused() -> None:
    async with rig() as world:
        await world.connect()
        with pytest.raises(NotFoundError):
            await pauses.pause(world.node, ENV, "app/unknown", Standing.KEEP)
        with pytest.raises(NotFoundError):
            await pauses.resume(world.node, ENV, "app/unknown", skip=False)
        assert world.store.memory.tables.switch == {}
