"""A bounded look through rows in the order of their ids: it stops after so many or so long, and says where."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, NamedTuple, TypeVar

from stepwell_server.model.limits import KIB, MIB
from stepwell_server.ports.clock import Clock

T = TypeVar("T")

ROWS = 20_000
LOOK_MS = 150
_CHUNK_FIRST = 64
_CHUNK_MOST = 512
_CHUNK_BYTES = MIB
_ROW_BYTES = KIB
_HOLD_MS = 5
"""The loop is given up at least this often."""


class Row(NamedTuple, Generic[T]):
    """A row with its id and about how many bytes it holds."""

    id: str
    size: int
    value: T


Read = Callable[[str, int], Awaitable[list[Row[T]]]]
"""Rows in the order of their ids behind this one (empty: all), at most so many. Fewer: there are no more."""


class Scan(Generic[T]):
    """`async for value in scan`: the values, read in chunks. It ends where there is no more, or at a bound.

    One may leave it at any row. token: the id after which the next scan goes on, empty where there is no more. scanned:
    how many rows were given out. most: no more are wanted.
    """

    def __init__(self, clock: Clock, read: Read[T], behind: str, most: int = ROWS) -> None:
        self._clock = clock
        self._read = read
        self._most = min(most, ROWS)
        self.token = behind
        self.scanned = 0

    async def __aiter__(self) -> AsyncIterator[T]:
        now_ms = self._clock.monotonic_ms
        began_ms = now_ms()
        chunk, mean = _CHUNK_FIRST, _ROW_BYTES
        while True:
            chunk = min(chunk, self._most - self.scanned, max(_CHUNK_BYTES // mean, 1))
            rows = await self._read(self.token, chunk)
            held_ms = now_ms()
            for row in rows:
                self.token = row.id
                self.scanned += 1
                yield row.value
                at_ms = now_ms()
                if at_ms - began_ms >= LOOK_MS or self.scanned >= self._most:
                    return
                if at_ms - held_ms >= _HOLD_MS:
                    await asyncio.sleep(0)
                    held_ms = now_ms()
            if len(rows) < chunk:
                self.token = ""
                return
            mean = max(sum(row.size for row in rows) // len(rows), 1)
            chunk = min(2 * chunk, _CHUNK_MOST)
