"""Two nodes on one store: what one does while the other takes a worker up, and what a lost note costs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest_asyncio
from stepwell_server.adapters.memory.peers import Switchboard
from stepwell_server.engine import control, query, recover, sessions
from stepwell_server.engine.query import Waiting
from stepwell_server.engine.residents import Session
from stepwell_server.model.notes import Came, Note
from stepwell_server.model.run import RunStatus

from tests.unit.engine.rig import ENV, Rig, Worker, rig


class Pair(NamedTuple):
    """Nodes that hear each other by a board."""

    one: Rig
    two: Rig
    board: Switchboard


@pytest_asyncio.fixture
async def pair() -> AsyncIterator[Pair]:
    board = Switchboard()
    async with rig("one", board=board) as one, rig("two", one.store, board) as two:
        for made in (one, two):
            assert made.node.cluster is not None
            made.node.cluster.living = frozenset({"one", "two"})
        yield Pair(one, two, board)


async def moved(worker: Worker, to: Rig, *held: sessions.Held) -> Worker:
    """The worker connects to another node, with what it has in memory."""
    return await to.connect(session_id=worker.session.id, residents=held)


def held(worker: Worker, run_id: str, *, parked: bool = False) -> sessions.Held:
    return sessions.Held(run_id, worker.turn(run_id), parked)


async def test_what_was_queued_before_others_heard_of_a_worker_is_looked_for_again(pair: Pair) -> None:
    worker = await pair.one.connect(capacity=1)
    pair.board.lost = _all
    other = await pair.two.connect()
    first, second = await pair.one.start(), await pair.one.start()
    await pair.two.settle()
    assert worker.told("assign", first)
    assert not other.told("assign")
    await pair.two.hearing.run_once()
    await pair.two.settle()
    assert other.told("assign", second)


async def test_a_run_that_is_queued_at_one_node_is_taken_at_the_other(pair: Pair) -> None:
    worker = await pair.two.connect()
    run_id = await pair.one.start()
    await pair.one.settle()
    assert worker.told("assign", run_id)
    assert pair.one.status(run_id) is RunStatus.RUNNING


async def test_a_session_that_was_taken_up_elsewhere_is_dropped(pair: Pair) -> None:
    worker = await pair.one.connect()
    run_id = await pair.one.start()
    again = await moved(worker, pair.two, held(worker, run_id))
    await pair.one.settle()
    assert worker.told("close")
    assert list(pair.one.node.sessions) == []
    assert list(pair.two.node.residents) == [run_id]
    assert again.session.row.epoch == worker.session.row.epoch + 1


async def test_h8_a_run_is_not_taken_for_a_session_that_another_node_has_taken_up(pair: Pair) -> None:
    """Its new node has read what it holds already: nobody would ever find the run."""
    worker = await pair.one.connect(capacity=1)
    first, second = await pair.one.start(), await pair.one.start()
    assert pair.one.status(second) is RunStatus.QUEUED
    taking = pair.one.store.hold(lambda commit: getattr(commit.decider, "run_id", "") == second)
    frame = worker.frame()
    frame.release(first, worker.turn(first))
    frame.finish()
    await pair.one.settle()
    assert taking.calls == 1
    await pair.two.connect(session_id=worker.session.id, capacity=0)
    taking.release()
    await pair.one.settle()
    assert {pair.one.status(run_id) for run_id in (first, second)} == {RunStatus.QUEUED}
    assert {pair.one.row(run_id).session_id for run_id in (first, second)} == {None}
    other = await pair.two.connect()
    await pair.two.settle()
    assert {run_id for _, run_id, *_ in other.told("assign")} == {first, second}


async def test_h8_a_new_run_whose_place_went_to_another_node_is_queued_instead(pair: Pair) -> None:
    worker = await pair.one.connect()
    starting = pair.one.store.hold(lambda commit: bool(commit.runs))
    going = pair.one.node.spawn(control.invoke(pair.one.node, ENV, "app/f", b"", "", "", b""))
    await pair.one.settle()
    assert starting.calls == 1
    again = await moved(worker, pair.two)
    starting.release()
    run_id = await going
    await pair.one.settle()
    await pair.two.settle()
    assert again.told("assign", run_id)
    assert pair.one.row(run_id).session_id == again.session.id
    assert (pair.one.row(run_id).turn, pair.two.status(run_id)) == (1, RunStatus.RUNNING)


async def test_h8_an_event_whose_run_has_lost_its_place_is_accepted_all_the_same(pair: Pair) -> None:
    worker = await pair.one.connect()
    starting = pair.one.store.hold(lambda commit: bool(commit.events))
    going = pair.one.node.spawn(pair.one.send("on/f"))
    await pair.one.settle()
    assert starting.calls >= 1
    again = await moved(worker, pair.two)
    starting.release()
    assert await going
    await pair.two.settle()
    assert len(again.told("assign")) == 1


async def waiting(rig_: Rig) -> tuple[Worker, str]:
    """A run that waits for an event, parked in its worker's memory."""
    worker = await rig_.connect()
    run_id = await rig_.start()
    worker.wait(run_id, "go", "go/on")
    await rig_.settle()
    worker.park(run_id, "go")
    await rig_.settle()
    return worker, run_id


async def test_h16_an_outcome_of_a_run_at_another_node_is_told_there_once(pair: Pair) -> None:
    worker, run_id = await waiting(pair.two)
    await pair.one.send("go/on")
    await pair.two.settle()
    assert worker.told("outcome", run_id) == [("outcome", run_id, 1, "go")]
    assert pair.two.row(run_id).session_id == worker.session.id
    pair.two.node.spawn(_repeat(pair, run_id))
    await pair.two.settle()
    assert len(worker.told("outcome", run_id)) == 1


async def _repeat(pair: Pair, run_id: str) -> None:
    assert pair.one.node.cluster is not None
    pair.one.node.cluster.tell(Came(ENV, run_id, "go"), "two")


async def test_h16_an_outcome_whose_note_was_lost_is_found_by_the_owner(pair: Pair) -> None:
    worker, run_id = await waiting(pair.two)
    pair.board.lost = _all
    await pair.one.send("go/on")
    await pair.two.settle()
    assert not worker.told("outcome", run_id)
    await recover.sweep(pair.two.node, older_than_ms=0)
    await pair.two.settle()
    assert worker.told("outcome", run_id) == [("outcome", run_id, 1, "go")]


async def test_h30_while_notes_do_not_arrive_each_node_reads_what_it_was_not_told(pair: Pair) -> None:
    worker = await pair.two.connect()
    pair.board.lost = _all
    run_id = await pair.one.start()
    await pair.two.settle()
    assert not worker.told("assign", run_id)
    await recover.catch_up(pair.two.node)
    await pair.two.settle()
    assert worker.told("assign", run_id)


def _all(_: Note) -> bool:
    return True


async def test_h16_what_was_told_to_a_stream_that_had_been_left_is_told_again_where_the_run_is(pair: Pair) -> None:
    """The old node did not know yet that its worker had gone when the outcome came."""
    worker, run_id = await waiting(pair.one)
    pair.board.lost = _all
    again = await moved(worker, pair.two, held(worker, run_id, parked=True))
    assert pair.one.node.residents, "it has not heard of it"
    await pair.one.send("go/on")
    await pair.one.settle()
    pair.board.lost = lambda _: False
    old = pair.one.node.sessions[worker.session.id]
    await _ended(pair.one, old)
    await pair.two.settle()
    assert again.told("outcome", run_id) == [("outcome", run_id, 1, "go")]


async def _ended(rig_: Rig, session: Session) -> None:
    """Its stream ends, and the grace is over."""
    session.link = None
    await sessions.expire(rig_.node, session, lost=True)
    await rig_.settle()


async def test_a_run_at_another_node_is_asked_to_unwind(pair: Pair) -> None:
    worker, run_id = await waiting(pair.two)
    await control.cancel(pair.one.node, ENV, run_id, "enough")
    await pair.two.settle()
    assert worker.told("cancel", run_id)


async def test_h38_a_run_that_another_node_holds_says_so(pair: Pair) -> None:
    await pair.two.connect(capacity=1)
    held_run, queued_run = await pair.one.start(), await pair.one.start()
    await pair.two.settle()
    said = [
        query.reasons(pair.one.node, await query.run_state(pair.one.node, ENV, id_)) for id_ in (held_run, queued_run)
    ]
    assert [[reason.kind for reason in reasons] for reasons in said] == [[Waiting.EXECUTING], [Waiting.CAPACITY]]
    assert "another node" in said[0][0].message
    assert "1 other nodes serve app" in said[1][0].message


async def test_timers_of_another_nodes_runs_are_left_to_it_for_a_while(pair: Pair) -> None:
    worker = await pair.two.connect()
    run_id = await pair.two.start()
    worker.wait(run_id, "go", "go/on", timeout_ms=1)
    await pair.two.settle()
    worker.park(run_id, "go")
    await pair.two.settle()
    while pair.one.node.clock.now_ms() <= (_due(pair, run_id) or 0):
        await pair.one.settle()
    await pair.one.timers.run_once()
    assert pair.one.timers.fired == 0
    await pair.two.timers.run_once()
    await pair.two.settle()
    assert pair.two.timers.fired == 1
    assert worker.told("outcome", run_id)


def _due(pair: Pair, run_id: str) -> int | None:
    waits = pair.one.store.memory.tables.wait.get((ENV, run_id), {})
    return max((row.due_ms or 0 for row in waits.values()), default=None)


async def test_of_what_is_queued_each_node_takes_its_own_share_first(pair: Pair) -> None:
    first, second = await pair.one.connect(capacity=0), await pair.two.connect(capacity=0)
    runs = [await pair.one.start() for _ in range(20)]
    for made in (pair.one, pair.two):
        await made.settle()
    assert pair.one.node.cluster is not None
    assert pair.two.node.cluster is not None
    rows = await pair.one.store.memory.ready(ENV, "app/f", "", 99)
    mine = pair.one.node.cluster.share(rows)
    theirs = pair.two.node.cluster.share(rows)
    assert {row.run_id for row in mine} | {row.run_id for row in theirs} == set(runs)
    assert not {row.run_id for row in mine} & {row.run_id for row in theirs}
    assert first.session.free == second.session.free == 0
