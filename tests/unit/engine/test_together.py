"""The results that a frame brings are one Commit; one that the store can never take costs its own run alone."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from stepwell_server.adapters.local.clock import SystemClock
from stepwell_server.adapters.local.limiter import LocalLimiter
from stepwell_server.adapters.local.queue import LocalQueue
from stepwell_server.adapters.memory.store import MemoryStore
from stepwell_server.engine import ingest, sessions
from stepwell_server.engine.advance import Frame
from stepwell_server.engine.lane import Lane
from stepwell_server.engine.node import Node
from stepwell_server.engine.register import refresh
from stepwell_server.model.commit import Commit, CommitResult, Verdict
from stepwell_server.model.function import FunctionSpec, Trigger
from stepwell_server.model.run import RunStatus
from stepwell_server.model.session import Fence


class Picky(MemoryStore):
    """Refuses what holds an outcome of the key "poison", and keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Commit] = []

    async def commit(self, commits: Sequence[Commit], owner: Fence | None = None) -> list[CommitResult]:
        self.given += commits
        bad = [any(row.key == "poison" for row in commit.outcomes) for commit in commits]
        good = [commit for commit, refused in zip(commits, bad, strict=True) if not refused]
        taken = iter(await super().commit(good, owner))
        return [CommitResult(Verdict.REFUSED, "no such row here") if refused else next(taken) for refused in bad]


def a_link() -> Any:
    """A stream that notes what is acknowledged, assigned and evicted."""
    link = SimpleNamespace(acks=list[tuple[str, int]](), runs=list[str](), evicted=list[str]())
    link.ack = lambda run_id, turn, number: link.acks.append((run_id, number))  # pyright: ignore[reportUnknownLambdaType]
    link.assign = lambda state, cancelled: link.runs.append(state.run.id)  # pyright: ignore[reportUnknownLambdaType]
    link.evict = lambda run_id, turn: link.evicted.append(run_id)  # pyright: ignore[reportUnknownLambdaType]
    link.frames_sent = lambda: 0
    return link


async def until(true: Any) -> None:
    for _ in range(1_000):
        if true():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came")


async def test_a_row_that_the_store_refuses_costs_its_own_run_and_not_the_others_of_the_frame() -> None:
    store = Picky()
    node = Node(
        id_="n", store=store, history=store, claims=store, homes=store, lane=Lane(store), clock=SystemClock(0),
        queue=LocalQueue(store), limiter=LocalLimiter(), entropy=os.urandom, chance=random.random,
    )  # fmt: skip
    env = node.environment("dev")
    await refresh(node, env)
    link = a_link()
    function = FunctionSpec("shop/f", "shop", "f", (Trigger("x/y"),))
    hello = sessions.Hello("shop", "d1", "host:1", "test", "", [function], 10, [], frozenset())
    session, _ = await sessions.connect(node, env, hello, link)
    sessions.opened(node, session)
    await ingest.send_events(node, "dev", "", [ingest.NewEvent("x/y", b"{}", "", "", 0, b"")] * 3)
    await until(lambda: len(link.runs) == 3)

    store.given.clear()
    frame = Frame(node, session)
    for run_id, key in zip(link.runs, ("first", "poison", "third"), strict=True):
        frame.result(run_id, 1, key, 1, b"1", "", 1, 0, 0, b"")
    frame.finish()
    await until(lambda: len(link.acks) == 2 and link.evicted)
    await node.lane.settle()  # the run is evicted before its end is durable

    assert [len(commit.outcomes) for commit in store.given][:4] == [3, 1, 1, 1]
    assert sorted(link.acks) == sorted([(link.runs[0], 1), (link.runs[2], 1)])
    assert link.evicted == [link.runs[1]]
    rows = [row for run_id in link.runs if (row := await store.run("dev", run_id))]
    assert [row.status for row in rows] == [RunStatus.RUNNING, RunStatus.FAILED, RunStatus.RUNNING]
    assert b"STORE_REFUSED" in (rows[1].failure or b"")
    await node.cancel_tasks()
