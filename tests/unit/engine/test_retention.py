"""Which runs and events a pass takes: by the rules, and never what a crash may serve again or a kept run needs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from stepwell_server.adapters.memory import MemoryStore
from stepwell_server.engine import retention
from stepwell_server.engine.retention import Forgetting
from stepwell_server.model.commit import Commit
from stepwell_server.model.run import RunStatus

from tests.contract.rows import ENV, NOW, cursor, event, event_id, run, run_id
from tests.contract.saying import put

HOUR_MS = 3_600_000


async def forgetting(store: MemoryStore, now: int, **kept: int) -> int:
    """What one pass removes at a time, under these rules."""

    class Lane:
        async def apply(self, commit: Commit) -> None:
            await store.commit([commit])

    clock = SimpleNamespace(now_ms=lambda: now)
    node: Any = SimpleNamespace(clock=clock, history=store, lane=Lane())
    await retention.keep(node, ENV, kept)
    return await Forgetting(node, store.retention).run_once(ENV)


def ended(n: int, ended_ms: int) -> Any:
    return run(n, status=RunStatus.COMPLETED, ended_ms=ended_ms)


async def test_without_rules_everything_is_kept() -> None:
    store = MemoryStore()
    await put(store, runs=[ended(1, NOW)], events=[event(1)])
    assert await forgetting(store, NOW * 2) == 0


async def test_an_hour_counts_from_the_end_of_a_run() -> None:
    store = MemoryStore()
    await put(store, runs=[ended(1, NOW + 10), ended(2, NOW + 15)])
    assert await forgetting(store, NOW + 10 + HOUR_MS, completed=HOUR_MS) == 0
    assert await forgetting(store, NOW + 11 + HOUR_MS, completed=HOUR_MS) == 1
    assert await store.run(ENV, run_id(2)) is not None


async def test_h21_a_run_that_an_unserved_event_may_have_started_or_joined_is_kept() -> None:
    store = MemoryStore()
    first = event(3)
    came_ms = int(first.id[4:16], 16)
    await put(store, runs=[ended(1, came_ms - 1), ended(2, came_ms), ended(3, came_ms + 9)], cursors=[cursor(3)])
    assert await forgetting(store, came_ms + 9 * HOUR_MS, completed=HOUR_MS) == 1
    assert await store.run(ENV, run_id(1)) is None


async def test_h18_events_from_the_oldest_run_on_are_kept_with_it() -> None:
    store = MemoryStore()
    await put(store, events=[event(n) for n in range(1, 6)], runs=[run(3)])
    late = NOW * 2
    oldest = int(run_id(3)[4:16], 16)
    before = sum(int(event_id(n)[4:16], 16) < oldest for n in range(1, 6))
    assert await forgetting(store, late, events=HOUR_MS) == before
    left = await store.list_events(ENV, "", None, None, "", 50)
    assert len(left) == 5 - before
