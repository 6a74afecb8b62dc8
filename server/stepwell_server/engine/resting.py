"""What a node keeps in memory of limits: which slots its runs hold, and who waits for one. See engine/limits.py."""

from __future__ import annotations

from asyncio import TimerHandle
from collections import OrderedDict, deque
from collections.abc import Callable

Line = tuple[str, str, str]
"""Environment, function, line."""


class Waiting:
    """Who waits for one limit: woken runs, which a worker has in memory, then the lines of each function in turn.

    again: asks for a woken run once more; false where there is nothing to ask for.
    """

    __slots__ = ("again", "lines")

    def __init__(self) -> None:
        self.again: deque[Callable[[], bool]] = deque()
        self.lines: dict[tuple[str, str], OrderedDict[str, None]] = {}


class Resting:
    """The limits of a node.

    held: by run, the limits of which it holds a slot until it executes no more. kept: until it has ended; keeping: from
    when it has started, which is on its way to the store. waiting: by limit. lines: on which limit each line rests.
    woken: lines that asked for nothing since they rested. due: when lines that rest for the pace of a limit may start.
    freed: how often limits were freed, whose waiters are not woken yet.
    """

    def __init__(self) -> None:
        self.held: dict[str, tuple[str, ...]] = {}
        self.kept: dict[str, tuple[str, ...]] = {}
        self.keeping: dict[str, tuple[str, ...]] = {}
        self.waiting: dict[str, Waiting] = {}
        self.lines: dict[Line, str] = {}
        self.woken: set[Line] = set()
        self.due: list[tuple[int, Line]] = []
        self.timer: TimerHandle | None = None
        self.freed: dict[str, int] = {}
