"""A bounded look ends at its bounds, says where, and gives up the loop in between."""

from __future__ import annotations

import asyncio

import pytest
from stepwell_server.engine import scan
from stepwell_server.engine.scan import Row, Scan


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.ms = 0

    def now_ms(self) -> int:
        return self.ms

    def monotonic_ms(self) -> int:
        return self.ms


class Table:
    """Rows 0 … n-1 with ids of four digits, and how many each read asked for."""

    def __init__(self, n: int, size: int = 100) -> None:
        self.ids = [f"{one:04d}" for one in range(n)]
        self.size = size
        self.asked: list[int] = []

    async def read(self, before: str, limit: int) -> list[Row[str]]:
        self.asked.append(limit)
        found = [id_ for id_ in reversed(self.ids) if not before or id_ < before][:limit]
        return [Row(id_, self.size, id_) for id_ in found]


async def test_all_is_looked_at_in_order_in_growing_chunks() -> None:
    table = Table(2_000)
    look = Scan(Clock(), table.read, "")
    assert [one async for one in look] == table.ids[::-1]
    assert (look.token, look.scanned) == ("", 2_000)
    assert table.asked == [64, 128, 256, 512, 512, 512, 512]


async def test_large_rows_are_read_few_at_a_time() -> None:
    table = Table(70, size=600_000)
    assert len([one async for one in Scan(Clock(), table.read, "")]) == 70
    assert table.asked[1:] == [1] * 7


@pytest.mark.parametrize("most", [1, 64, 65, 700])
async def test_no_more_than_was_asked_for_is_given_and_the_next_look_goes_on(most: int) -> None:
    table = Table(700)
    look = Scan(Clock(), table.read, "", most)
    first = [one async for one in look]
    assert (len(first), look.token) == (most, first[-1])
    assert sum(table.asked) == most
    rest = [one async for one in Scan(Clock(), table.read, look.token)]
    assert first + rest == table.ids[::-1]


async def test_a_look_that_is_left_goes_on_behind_the_row_where_it_was_left() -> None:
    table = Table(100)
    look = Scan(Clock(), table.read, "")
    async for one in look:
        if one == "0070":
            break
    assert (look.token, look.scanned) == ("0070", 30)


async def test_time_ends_a_look_but_never_before_its_first_row() -> None:
    clock, table = Clock(), Table(1_000)
    look = Scan(clock, table.read, "")
    seen = 0
    async for _ in look:
        seen += 1
        clock.ms += 10
    assert seen == scan.LOOK_MS // 10
    assert look.token == f"{1_000 - seen:04d}"
    slow = Scan(clock, table.read, look.token)
    async for _ in slow:
        clock.ms += 10_000
    assert slow.scanned == 1


async def test_the_loop_is_given_up_while_rows_are_judged() -> None:
    clock, table = Clock(), Table(64)
    turns = 0
    ended = False

    async def other() -> None:
        nonlocal turns
        while not ended:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    async for _ in Scan(clock, table.read, ""):
        clock.ms += 2
    ended = True
    await beside
    assert turns >= 64 * 2 // 10
