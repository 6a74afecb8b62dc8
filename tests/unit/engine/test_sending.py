"""Events that a step sends, where the store does not take them: nothing that rode along is lost, and no step hangs."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from stepwell_server.engine import begin, ingest, serve
from stepwell_server.engine.ingest import NewEvent
from stepwell_server.model.commit import Commit
from stepwell_server.model.journal import GIVEN_UP
from stepwell_server.model.run import RunStatus
from stepwell_server.model.session import SessionWrite

from tests.unit.engine.rig import ENV, Rig, Worker, rig


def send(worker: Worker, run_id: str, *sender_ids: str) -> None:
    """The run sends events with these ids (empty: none), and waits until they are sent."""
    frame = worker.frame()
    events = [NewEvent("sent", b"{}", "", sender_id, 0, b"") for sender_id in sender_ids]
    begin.send(frame, run_id, worker.turn(run_id), "send", events, b"")
    frame.finish()
    worker.park(run_id, "send")


def failure(world: Rig, run_id: str) -> dict[str, Any]:
    """Why the step failed, as the store has it."""
    return orjson.loads(world.outcomes(run_id)["send"].failure or b"{}")


async def with_riders(world: Rig, worker: Worker, run_id: str) -> None:
    """A wait has looked back, and an event is served: small writes that go with the next batch of events."""
    worker.wait(run_id, "k", "go/a")
    await world.settle()
    await world.send("go/a")
    worker.wait(run_id, "other", "go/b")
    await world.settle()
    assert world.node.cursor_deletes
    assert world.store.memory.tables.cursor
    assert world.store.memory.tables.not_looked_back


@pytest.mark.parametrize("sender_ids", [("",), ("id", "")], ids=["in the frame's commit", "after those with ids"])
async def test_what_rode_along_with_events_that_were_fenced_goes_another_time(sender_ids: tuple[str, ...]) -> None:
    async with rig() as world:
        worker = await world.connect()
        run_id = await world.start()
        await with_riders(world, worker, run_id)
        row = worker.session.row
        elsewhere = SessionWrite(row.epoch, row._replace(epoch=row.epoch + 1, node="another"))
        await world.store.memory.commit([Commit(ENV, decider=elsewhere)])
        send(worker, run_id, *sender_ids)
        await world.settle()
        assert "send" not in world.outcomes(run_id)
        serve.tidy(world.node)
        await world.settle()
        assert not world.store.memory.tables.cursor
        assert not world.store.memory.tables.not_looked_back


async def test_what_rode_along_with_events_that_the_store_refused_goes_another_time() -> None:
    async with rig() as world:
        worker = await world.connect()
        run_id = await world.start()
        await with_riders(world, worker, run_id)
        world.store.refuses = lambda commit: bool(commit.events)
        await world.send("odd")
        serve.tidy(world.node)
        await world.settle()
        assert not world.store.memory.tables.cursor
        assert not world.store.memory.tables.not_looked_back


async def test_a_step_whose_events_with_ids_the_store_refuses_fails_by_name() -> None:
    async with rig() as world:
        worker = await world.connect()
        run_id = await world.start()
        world.store.refuses = lambda commit: any(event.sender_id for event in commit.events)
        send(worker, run_id, "one", "")
        await world.settle()
        assert failure(world, run_id)["reason"] == "STORE_REFUSED"
        assert worker.told("outcome", run_id) == [("outcome", run_id, 1, "send")]


async def test_a_step_whose_other_events_the_store_refuses_fails_by_name() -> None:
    async with rig() as world:
        worker = await world.connect()
        run_id = await world.start()
        world.store.refuses = lambda commit: any(not event.sender_id for event in commit.events)
        send(worker, run_id, "one", "")
        await world.settle()
        assert failure(world, run_id)["reason"] == "STORE_REFUSED"
        assert worker.told("outcome", run_id) == [("outcome", run_id, 1, "send")]
        assert [event.sender_id for event in world.store.memory.tables.event.values()] == ["one"]


async def test_a_run_whose_sends_cannot_even_be_put_to_the_store_is_entered_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with rig() as world:
        worker = await world.connect()
        run_id = await world.start()

        def broken(*_: Any) -> Any:
            raise RuntimeError("no such registry")

        with monkeypatch.context() as patched:
            patched.setattr(ingest, "accepting", broken)
            send(worker, run_id, "one")
            await world.settle()
        assert (worker.turn(run_id), world.row(run_id).losses) == (2, 1)
        send(worker, run_id, "one")
        await world.settle()
        assert worker.told("outcome", run_id) == [("outcome", run_id, 2, "send")]


async def test_a_run_whose_sends_the_store_can_never_conclude_fails() -> None:
    async with rig() as world:
        worker = await world.connect()
        run_id = await world.start()
        world.store.refuses = lambda commit: any(row.key == "send" for row in commit.outcomes)
        send(worker, run_id, "one")
        await world.settle()
        row = world.row(run_id)
        assert (RunStatus(row.status), orjson.loads(row.failure or b"{}")["reason"]) == (
            RunStatus.FAILED, "STORE_REFUSED",
        )  # fmt: skip
        assert worker.told("evict", run_id)


@pytest.mark.parametrize("sender_id", ["", "id"])
@pytest.mark.parametrize("when", ["in the same frame", "on its way", "told"])
async def test_h18c_events_of_a_send_that_was_given_up_are_not_sent_again(when: str, sender_id: str) -> None:
    """The code gives the call up; what it sent stays sent, wherever the run is entered again."""
    async with rig() as world:
        worker = await world.connect()
        run_id = await world.start()
        worker.wait(run_id, "k", "go/a")
        gate = world.store.hold(lambda commit: bool(commit.events)) if when == "on its way" else None
        frame = worker.frame()
        events = [NewEvent("sent", b"{}", "", sender_id, 0, b"")]
        begin.send(frame, run_id, worker.turn(run_id), "send", events, b"")
        if when == "in the same frame":
            frame.abandon(run_id, worker.turn(run_id), "send")
        frame.finish()
        await world.settle()
        if when != "in the same frame":
            assert bool(worker.told("outcome", run_id)) == (when == "told")
            frame = worker.frame()
            frame.abandon(run_id, worker.turn(run_id), "send")
            frame.finish()
        if gate is not None:
            gate.release()
        await world.settle()
        assert world.outcomes(run_id)["send"].number == GIVEN_UP
        worker.park(run_id, "k", received=len(worker.told("outcome", run_id)))
        worker.release(run_id)
        await world.settle()
        assert world.status(run_id) is RunStatus.PARKED, "nothing is left that would wake it"
        await world.send("go/a")
        turn = worker.turn(run_id)
        assert turn == 2
        frame = worker.frame()
        begin.send(frame, run_id, turn, "send", events, b"")
        frame.abandon(run_id, turn, "send")
        frame.finish()
        await world.settle()
        assert [row.name for row in world.store.memory.tables.event.values()].count("sent") == 1
        assert world.outcomes(run_id)["send"].number == GIVEN_UP
