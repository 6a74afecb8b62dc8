"""An owner reads its own inbox again: what it was not told of is delivered all the same, once (H16)."""

from __future__ import annotations

from unittest import mock

import pytest
from stepwell_server.engine import control, recover, serve, wake
from stepwell_server.model.journal import GRACE_KEY

from tests.unit.engine.rig import ENV, Rig, Worker, rig


async def waiting(world: Rig, worker: Worker) -> str:
    """A run that is parked in its worker's memory until an event comes."""
    run_id = await world.start()
    worker.wait(run_id, "paid", "go/paid")
    worker.park(run_id, "paid")
    await world.settle()
    assert worker.session.executing == 0
    return run_id


async def missed(world: Rig, *events: str) -> None:
    """These events come, and nobody is told of what they resolve."""
    with mock.patch.object(wake, "arrived"):
        for event in events:
            await world.send(event)


async def swept(world: Rig) -> int:
    """A sweep that takes everything for old; what others are about to do, and all that it begins, is done."""
    serve.tidy(world.node)
    await world.settle()
    found = await recover.sweep(world.node, older_than_ms=-1)
    await world.settle()
    return found


async def test_h16_an_outcome_whose_hint_was_lost_is_found_by_the_owner_and_told_once() -> None:
    async with rig() as world:
        worker = await world.connect()
        run_id = await waiting(world, worker)
        await missed(world, "go/paid")
        assert not worker.told("outcome", run_id)
        assert await recover.sweep(world.node, older_than_ms=60_000) == 0, "what is young may still be told"
        assert await swept(world) == 1
        assert worker.told("outcome", run_id) == [("outcome", run_id, 1, "paid")]
        assert worker.session.executing == 1, "it has its place back"
        assert await swept(world) == 0
        assert len(worker.told("outcome", run_id)) == 1


async def test_h16_a_request_to_cancel_whose_hint_was_lost_is_found() -> None:
    async with rig() as world:
        worker = await world.connect()
        run_id = await waiting(world, worker)
        with mock.patch.object(wake, "unwind"):
            await control.cancel(world.node, ENV, run_id, "why")
        assert not worker.told("cancel")
        await swept(world)
        assert worker.told("cancel") == [("cancel", run_id, 1)]
        assert GRACE_KEY in world.waits(run_id)
        await swept(world)
        assert len(worker.told("cancel")) == 1


async def test_h16_what_the_worker_has_just_numbered_is_not_told_again() -> None:
    """Its number is on the way to the store while the sweep looks."""
    async with rig() as world:
        worker = await world.connect()
        run_id = await waiting(world, worker)
        await world.send("go/paid")
        assert len(worker.told("outcome", run_id)) == 1
        await swept(world)
        writing = world.store.hold(lambda commit: bool(commit.numbers))
        frame = worker.frame()
        frame.delivered(run_id, 1, [("paid", 1)])
        frame.finish()
        assert await swept(world) == 1, "it looks as if nobody had told it"
        assert writing.calls == 1
        writing.release()
        await world.settle()
        assert len(worker.told("outcome", run_id)) == 1
        assert world.node.residents[run_id].unseen == {}


async def test_h16_the_owner_looks_through_a_long_inbox_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recover, "_PAGE", 2)
    async with rig() as world:
        worker = await world.connect()
        run_id = await world.start()
        for n in range(5):
            worker.wait(run_id, f"paid:{n}", f"go/{n}")
        await world.settle()
        await missed(world, *(f"go/{n}" for n in range(5)))
        told: list[int] = []
        while not told or told[-1] < 5:
            assert await swept(world)
            told.append(len(worker.told("outcome", run_id)))
        assert told == [2, 4, 5]
        assert sorted(one[3] for one in worker.told("outcome", run_id)) == [f"paid:{n}" for n in range(5)]
