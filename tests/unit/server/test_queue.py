"""The in-process queue: what happens to its runs while it reads a page of them from the store."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from stepwell_server.adapters.local import queue as local
from stepwell_server.adapters.local.queue import LocalQueue
from stepwell_server.model.run import Priority, ReadyRow

ENV, FUNCTION = "prod", "shop/drip"


def place(n: int) -> ReadyRow:
    return ReadyRow(ENV, f"run_{n}", FUNCTION, 0, n)


class SlowStore:
    """Answers with the rows of when it was asked, once it may."""

    def __init__(self, *rows: ReadyRow) -> None:
        self.rows = list(rows)
        self.may_answer = asyncio.Event()

    async def ready(self, env: str, function_id: str, after: ReadyRow | None, limit: int) -> list[ReadyRow]:
        rows = self.rows[:limit]
        await self.may_answer.wait()
        return rows


def queue_of(store: Any) -> LocalQueue:
    queue = LocalQueue(store)
    queue.learn(ENV, FUNCTION)
    return queue


def popped(queue: LocalQueue) -> list[str]:
    return [item.row.run_id for item in queue.pop(ENV, FUNCTION, 99)]


async def refilling(queue: LocalQueue) -> asyncio.Task[int]:
    task = asyncio.create_task(queue.refill(ENV, FUNCTION))
    await asyncio.sleep(0)
    return task


async def test_a_run_that_is_taken_while_a_page_is_read_is_not_handed_out_again() -> None:
    store = SlowStore(place(1), place(2))
    queue = queue_of(store)
    queue.push(place(1), None)
    task = await refilling(queue)
    assert popped(queue) == ["run_1"]
    queue.settled(ENV, FUNCTION, "run_1")
    store.may_answer.set()
    assert await task == 1
    assert popped(queue) == ["run_2"]
    assert not queue.waiting(ENV, FUNCTION)


async def test_a_run_that_is_taken_and_queued_again_while_a_page_is_read_is_handed_out_once() -> None:
    store = SlowStore(place(1))
    queue = queue_of(store)
    queue.push(place(1), None)
    task = await refilling(queue)
    popped(queue)
    queue.settled(ENV, FUNCTION, "run_1")
    queue.push(place(1)._replace(queued_ms=9), None)
    store.may_answer.set()
    assert await task == 0
    assert popped(queue) == ["run_1"]


async def test_a_run_that_finds_no_room_while_a_page_is_read_is_read_with_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(local, "_WINDOW", 8)
    store = SlowStore()
    queue = queue_of(store)
    task = await refilling(queue)
    for n in (1, 2, 3):  # a quarter of the window is two
        queue.push(place(n), None)
    store.may_answer.set()
    assert await task == 0
    assert popped(queue) == ["run_1", "run_2"]
    assert queue.waiting(ENV, FUNCTION)
    store.rows = [place(3)]
    assert await queue.refill(ENV, FUNCTION) == 1
    assert popped(queue) == ["run_3"]


async def test_h14c_a_run_that_has_begun_goes_before_a_window_full_of_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_WINDOW", 8)
    store = SlowStore(*(place(n) for n in range(20)))
    store.may_answer.set()
    queue = queue_of(store)
    await queue.refill(ENV, FUNCTION)
    queue.push(place(99)._replace(priority=Priority.RESUMED), None)
    assert popped(queue)[:2] == ["run_99", "run_0"]


async def test_h14c_heads_tell_which_function_goes_first() -> None:
    queue = LocalQueue(SlowStore())
    for n, (function, priority) in enumerate([("a", Priority.NEW), ("b", Priority.NEW), ("c", Priority.RESUMED)]):
        queue.push(ReadyRow(ENV, f"run_{n}", function, priority, n), None)
    queue.learn(ENV, "unread")
    assert [head.function_id for head in sorted(queue.heads(ENV))] == ["unread", "c", "a", "b"]
    assert queue.head(ENV, "b") == (Priority.NEW, 1, "b")
    assert queue.head(ENV, "nobody") is None
