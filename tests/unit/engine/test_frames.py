"""Frames of a worker that break a rule, or the server: nothing of them is written, and no run is stuck."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from stepwell_server.engine import begin, conclude, ingest, unwind
from stepwell_server.engine.advance import Frame
from stepwell_server.engine.ingest import NewEvent
from stepwell_server.model.journal import CANCEL_KEY
from stepwell_server.model.run import RunStatus

from tests.unit.engine.rig import APP, ENV, rig


def cannot_be_applied(frame: Frame, monkeypatch: pytest.MonkeyPatch) -> None:
    """The frame, which sends events, is given up like one that breaks the engine."""

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no such registry")

    monkeypatch.setattr(ingest, "accepting", broken)
    with pytest.raises(RuntimeError):
        frame.finish()
    frame.give_up()


@pytest.mark.parametrize("beside", [2, 3])
async def test_the_number_that_ends_a_function_is_the_highest_of_its_frame(beside: int) -> None:
    async with rig() as world:
        worker = await world.connect(attempts=3)
        run_id = await world.start()
        frame = worker.frame()
        frame.result(run_id, 1, "k", beside, b"1", "", 1, 0, 0, b"")
        conclude.fail(frame, run_id, 1, 1, {"type": "E"}, 1, 0)
        frame.finish()
        await world.settle()
        assert worker.told("refuse", run_id) == [("refuse", run_id, 1, "OUT_OF_ORDER")]
        assert world.outcomes(run_id) == {}
        assert world.waits(run_id) == set()
        assert worker.turn(run_id) == 2, "it is given out anew"


async def test_a_frame_whose_commit_cannot_be_made_is_given_up_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig() as world:
        worker = await world.connect(capacity=3)
        runs = [await world.start() for _ in range(3)]
        frame = worker.frame()
        for run_id in runs:
            frame.result(run_id, 1, "k", 1, b"1", "", 1, 0, 0, b"")
        begin.send(frame, runs[1], 1, "send", [NewEvent("sent", b"{}", "", "", 0, b"")], b"")
        cannot_be_applied(frame, monkeypatch)
        await world.settle()
        assert [world.outcomes(run_id) for run_id in runs] == [{}, {}, {}]
        assert [worker.turn(run_id) for run_id in runs] == [2, 2, 2], "none of them is stuck"
        assert worker.session.executing == 3


async def test_a_frame_that_can_never_be_applied_is_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig() as world:
        worker = await world.connect()
        run_id = await world.start()
        world.node.residents[run_id].losses = 3
        frame = worker.frame()
        begin.send(frame, run_id, 1, "send", [NewEvent("sent", b"{}", "", "", 0, b"")], b"")
        cannot_be_applied(frame, monkeypatch)
        await world.settle()
        assert world.row(run_id).losses == 4


async def test_a_send_without_events_is_a_failure_of_its_step() -> None:
    async with rig() as world:
        worker = await world.connect()
        run_id = await world.start()
        frame = worker.frame()
        begin.send(frame, run_id, 1, "send", [], b"")
        frame.finish()
        await world.settle()
        assert b"MISSING_FIELD" in (world.outcomes(run_id)["send"].failure or b"")
        assert worker.told("outcome", run_id)


async def test_a_run_may_park_on_what_the_server_has_not_written_yet() -> None:
    async with rig() as world:
        worker = await world.connect()
        run_id = await world.start()
        gate = world.store.hold(lambda commit: bool(commit.events))
        frame = worker.frame()
        begin.send(frame, run_id, 1, "send", [NewEvent("sent", b"{}", "", "", 0, b"")], b"")
        frame.finish()
        await world.settle()
        worker.park(run_id, "send")
        gate.release()
        await world.settle()
        assert worker.told("refuse") == []
        assert worker.told("outcome", run_id) == [("outcome", run_id, 1, "send")]


@pytest.mark.parametrize("keys", [(), ("k",), ("k", "unknown")], ids=["nothing", "what came", "what nobody knows"])
async def test_a_park_that_nothing_can_end_is_refused(keys: tuple[str, ...]) -> None:
    async with rig() as world:
        worker = await world.connect()
        run_id = await world.start()
        worker.wait(run_id, "k", "go")
        await world.settle()
        await world.send("go")
        received = len(worker.told("outcome", run_id))
        assert received == 1
        worker.park(run_id, *keys, received=received)
        await world.settle()
        assert worker.told("refuse", run_id) == [("refuse", run_id, 1, "BAD_PARK")]
        assert worker.turn(run_id) == 2, "it is given out anew"


@pytest.mark.parametrize("ends", ["it completes", "it gives the key up", "it is cancelled"])
async def test_a_child_that_is_cancelled_says_what_became_of_its_parent(ends: str) -> None:
    async with rig() as world:
        worker = await world.connect()
        run_id = await world.start()
        frame = worker.frame()
        begin.invoke(frame, run_id, 1, "k", f"{APP}/f", b"1", "", 0, False, b"")
        frame.finish()
        await world.settle()
        (child,) = {one[1] for one in worker.told("assign")} - {run_id}
        frame = worker.frame()
        if ends == "it completes":
            conclude.complete(frame, run_id, 1, 1, b"1", "")
        elif ends == "it gives the key up":
            frame.abandon(run_id, 1, "k")
        else:
            await unwind.cancel(world.node, ENV, run_id, "whim")
        frame.finish()
        await world.settle()
        failure = orjson.loads(world.outcomes(child)[CANCEL_KEY].failure or b"{}")
        reasons = {
            "it completes": "its parent has ended",
            "it gives the key up": "its parent no longer waits for it",
            "it is cancelled": "its parent was cancelled",
        }
        assert failure["message"] == f"the run was cancelled: {reasons[ends]}"
        assert worker.told("cancel", child) == [("cancel", child, 1)]
        assert world.status(child) is RunStatus.RUNNING
