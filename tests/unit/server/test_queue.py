"""The in-process queue: what happens to its runs while it reads a page of them from the store."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from stepwell_server.adapters.local import queue as local
from stepwell_server.adapters.local.queue import LocalQueue
from stepwell_server.model.run import Priority, ReadyRow

ENV, FUNCTION = "prod", "shop/drip"


def place(n: int, line: str = "", **changes: Any) -> ReadyRow:
    return ReadyRow(ENV, f"run_{n}", FUNCTION, 0, n, line)._replace(**changes)


class SlowStore:
    """Answers with the rows of when it was asked, once it may."""

    def __init__(self, *rows: ReadyRow) -> None:
        self.rows = list(rows)
        self.asked: list[tuple[str, int, int]] = []
        self.may_answer = asyncio.Event()

    async def ready(self, env: str, function_id: str, line: str, limit: int, lines: int = 1) -> list[ReadyRow]:
        self.asked.append((line, limit, lines))
        names = sorted({row.line for row in self.rows if row.line >= line})[:lines]
        rows = [row for name in names for row in [row for row in self.rows if row.line == name][:limit]]
        await self.may_answer.wait()
        return rows


def queue_of(store: Any) -> LocalQueue:
    queue = LocalQueue(store)
    queue.learn(ENV, FUNCTION)
    return queue


def popped(queue: LocalQueue) -> list[str]:
    return [item.row.run_id for item in queue.pop(ENV, FUNCTION, 99)]


async def refilling(queue: LocalQueue) -> asyncio.Task[bool]:
    task = asyncio.create_task(queue.refill(ENV, FUNCTION))
    await asyncio.sleep(0)
    return task


async def test_a_run_that_is_taken_while_a_page_is_read_is_not_handed_out_again() -> None:
    store = SlowStore(place(1), place(2))
    queue = queue_of(store)
    queue.push(place(1), None)
    task = await refilling(queue)
    assert popped(queue) == ["run_1"]
    queue.settled(place(1))
    store.may_answer.set()
    assert await task
    assert popped(queue) == ["run_2"]
    await queue.refill(ENV, FUNCTION)
    assert queue.head(ENV, FUNCTION) is None


async def test_a_run_that_is_taken_and_queued_again_while_a_page_is_read_is_handed_out_once() -> None:
    store = SlowStore(place(1))
    queue = queue_of(store)
    queue.push(place(1), None)
    task = await refilling(queue)
    popped(queue)
    queue.settled(place(1))
    queue.push(place(1)._replace(queued_ms=9), None)
    store.may_answer.set()
    assert await task
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
    assert await task
    assert popped(queue) == ["run_1", "run_2"]
    assert queue.head(ENV, FUNCTION) is not None
    store.rows = [place(3)]
    assert await queue.refill(ENV, FUNCTION)
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
    assert queue.head(ENV, "b") == (Priority.NEW, 1, "b", False)
    assert queue.head(ENV, "nobody") is None


# --- lines ---


def keyed(queue: LocalQueue, line: str, *numbers: int, **changes: Any) -> None:
    for n in numbers:
        queue.push(place(n, line, **changes), None)


def one(queue: LocalQueue) -> str:
    (item,) = queue.pop(ENV, FUNCTION, 1)
    return item.row.run_id


async def test_lines_take_turns_however_many_runs_one_of_them_has() -> None:
    queue = LocalQueue(SlowStore())
    keyed(queue, "a", *range(100))
    keyed(queue, "b", 100, 101)
    keyed(queue, "c", 102)
    assert [one(queue) for _ in range(7)] == ["run_0", "run_100", "run_102", "run_1", "run_101", "run_2", "run_3"]


async def test_a_line_that_comes_later_joins_the_round_that_is_under_way() -> None:
    queue = LocalQueue(SlowStore())
    keyed(queue, "a", *range(9))
    assert [one(queue) for _ in range(4)] == ["run_0", "run_1", "run_2", "run_3"]
    keyed(queue, "b", *range(10, 13))
    assert [one(queue) for _ in range(4)] == ["run_10", "run_4", "run_11", "run_5"]


async def test_h14c_a_run_that_has_begun_goes_before_new_ones_of_every_line_and_costs_its_line_no_turn() -> None:
    queue = LocalQueue(SlowStore())
    keyed(queue, "a", 1, 2)
    keyed(queue, "b", 3)
    keyed(queue, "a", 8, 9, priority=int(Priority.RESUMED))
    assert [one(queue) for _ in range(5)] == ["run_8", "run_9", "run_1", "run_3", "run_2"]


async def test_a_line_that_rests_is_passed_over_until_it_is_woken() -> None:
    queue = LocalQueue(SlowStore())
    keyed(queue, "a", 1, 2)
    keyed(queue, "b", 3)
    (first,) = queue.pop(ENV, FUNCTION, 1)
    queue.put_back(first, rest=True)
    keyed(queue, "a", 4)
    assert popped(queue) == ["run_3"]
    assert queue.head(ENV, FUNCTION) is None
    assert queue.backlog(ENV, FUNCTION, "a") == (3, False)
    assert queue.wake(ENV, FUNCTION, "a")
    assert not queue.wake(ENV, FUNCTION, "a")
    assert popped(queue) == ["run_1", "run_2", "run_4"]


async def test_a_backlog_of_one_key_hides_no_other_and_memory_holds_a_window_of_it() -> None:
    store = SlowStore(*(place(n, "a") for n in range(5_000)), place(9_000, "b"), place(9_001, "c"))
    store.may_answer.set()
    queue = queue_of(store)
    while await queue.refill(ENV, FUNCTION):
        if {head.due for head in queue.heads(ENV)} == {False}:
            break
    assert [one(queue) for _ in range(4)] == ["run_0", "run_9000", "run_9001", "run_1"]
    count, more = queue.backlog(ENV, FUNCTION, "a")
    assert count <= local._KEYED_WINDOW
    assert more
    assert all(limit <= local._WINDOW for _, limit, _ in store.asked)


async def test_a_window_of_a_line_is_read_on_when_it_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_KEYED_WINDOW", 4)
    monkeypatch.setattr(local, "_PAGE_ROWS", 2)
    store = SlowStore(*(place(n, "a") for n in range(11)), *(place(n, "b") for n in range(20, 23)))
    store.may_answer.set()
    queue = queue_of(store)
    found: list[str] = []
    while queue.head(ENV, FUNCTION) is not None:
        await queue.refill(ENV, FUNCTION)
        for item in queue.pop(ENV, FUNCTION, 3):
            found.append(item.row.run_id)
            store.rows.remove(item.row)
            queue.settled(item.row)
    assert sorted(found) == sorted(f"run_{n}" for n in (*range(11), *range(20, 23)))
    assert found.index("run_22") < found.index("run_8")


async def test_lines_that_rest_and_are_too_many_for_the_memory_are_read_when_they_wake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(local, "_LINES", 4)
    store = SlowStore(*(place(n, f"k{n}") for n in range(10)))
    store.may_answer.set()
    queue = queue_of(store)
    rested: set[str] = set()
    while (head := queue.head(ENV, FUNCTION)) is not None:
        if head.due:
            await queue.refill(ENV, FUNCTION)
        for item in queue.pop(ENV, FUNCTION, 1):
            queue.put_back(item, rest=True)
            rested.add(item.row.line)
    assert rested == {f"k{n}" for n in range(10)}
    assert len(queue._functions[ENV, FUNCTION].lines) <= 4
    for n in range(10):
        assert queue.wake(ENV, FUNCTION, f"k{n}")
        await queue.refill(ENV, FUNCTION)
        assert popped(queue) == [f"run_{n}"]
        queue.settled(place(n, f"k{n}"))
    assert not queue._functions


async def test_runs_of_a_key_that_have_begun_do_not_rest_with_its_new_ones() -> None:
    queue = LocalQueue(SlowStore())
    keyed(queue, "a", 1, 2)
    (first,) = queue.pop(ENV, FUNCTION, 1)
    queue.put_back(first, rest=True)
    keyed(queue, "a", 8, priority=int(Priority.RESUMED))
    keyed(queue, "a", 9, priority=int(Priority.SUSPECT))
    (resumed, suspect) = queue.pop(ENV, FUNCTION, 9)
    assert [resumed.row, suspect.row] == [
        place(8, "a", priority=Priority.RESUMED), place(9, "a", priority=Priority.SUSPECT),
    ]  # fmt: skip
    queue.put_back(suspect)
    queue.settled(resumed.row)
    assert popped(queue) == ["run_9"]
    queue.settled(suspect.row)
    assert queue.wake(ENV, FUNCTION, "a")
    assert popped(queue) == ["run_1", "run_2"]


async def test_what_is_read_of_a_key_is_parted_by_whether_it_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_KEYED_WINDOW", 4)
    monkeypatch.setattr(local, "_PAGE_ROWS", 2)
    begun = [place(n, "a", priority=Priority.RESUMED) for n in range(8)]
    store = SlowStore(*begun, *(place(n, "a") for n in range(20, 30)), place(40, "a", priority=Priority.SUSPECT))
    store.may_answer.set()
    queue = queue_of(store)
    found: list[str] = []
    reads = 0
    while queue.head(ENV, FUNCTION) is not None:
        reads += 1
        assert reads < 100
        await queue.refill(ENV, FUNCTION)
        for item in queue.pop(ENV, FUNCTION, 3):
            found.append(item.row.run_id)
            store.rows.remove(item.row)
            queue.settled(item.row)
    assert sorted(found) == sorted(f"run_{n}" for n in (*range(8), *range(20, 30), 40))
    assert found.index("run_7") < found.index("run_29")
