"""The dev clock moves due instant by due instant, each until nothing executes (H20)."""

from __future__ import annotations

import asyncio
from typing import NamedTuple, Protocol

from stepwell_server.engine import limits
from stepwell_server.engine.node import Node
from stepwell_server.engine.timers import Timers
from stepwell_server.model.commit import Commit
from stepwell_server.model.session import SettingRow

OFFSET = "clock_offset_ms"
_LOOK_S = 0.002


class MovableClock(Protocol):
    """A clock whose wall time can be ahead of the machine's."""

    offset_ms: int

    def now_ms(self) -> int:
        """See ports/clock.py."""
        ...


class Advanced(NamedTuple):
    """Where the clock stopped. complete: the whole advance was made. fired: timers on the way."""

    now_ms: int
    offset_ms: int
    complete: bool
    fired: int


async def advance(node: Node, clock: MovableClock, timers: Timers, by_ms: int, deadline_ms: int) -> Advanced:
    """Moves the clock forward by by_ms, within deadline_ms of real time; the offset is durable before a timer fires."""
    target = clock.now_ms() + by_ms
    deadline = node.clock.monotonic_ms() + deadline_ms
    before = timers.fired
    complete = True
    while True:
        if not await _quiet(node, deadline):
            complete = False
            break
        now = clock.now_ms()
        if now >= target:
            break
        instants = (await node.history.due_after(now), limits.due_ms(node), target)
        await _set(node, clock, min(instant for instant in instants if instant is not None))
        limits.wake_due(node)
        await timers.run_once()
    timers.arm()
    return Advanced(clock.now_ms(), clock.offset_ms, complete, timers.fired - before)


async def _set(node: Node, clock: MovableClock, instant: int) -> None:
    ahead = max(instant - clock.now_ms(), 0)
    if ahead:
        offset = clock.offset_ms + ahead
        setting = SettingRow(OFFSET, str(offset))
        await node.lane.apply(Commit("", touches=("settings",), settings=(setting,)))
        clock.offset_ms = offset


async def _quiet(node: Node, deadline: int) -> bool:
    """Waits until no run executes and none could be given to a connected worker; False once the deadline is over."""
    calm = 0
    while calm < 3:
        if node.clock.monotonic_ms() >= deadline:
            return False
        calm = calm + 1 if node.quiet() else 0
        await asyncio.sleep(_LOOK_S)
    return True
