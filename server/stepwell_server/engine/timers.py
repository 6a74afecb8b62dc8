"""Waits fall due: the earliest due time is all that is kept in memory; what is due is read when it is."""

from __future__ import annotations

import asyncio
import logging

from stepwell_server.engine import ending, lookback, unwind, wake
from stepwell_server.engine.failures import failure_json
from stepwell_server.engine.node import Node
from stepwell_server.engine.serve import Countdown
from stepwell_server.model.commit import Commit, CommitResult
from stepwell_server.model.errors import UnavailableError
from stepwell_server.model.journal import INNER, OutcomeRow, StepKind, WaitDelete, WaitRow

log = logging.getLogger("stepwell.timers")
_BATCH = 2_000
_LONGEST_S = 3_600.0


class Timers:
    """The service that fires what is due."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._next_ms: int | None = None
        self._handle: asyncio.TimerHandle | None = None
        self._firing = False
        self._again = False
        self._stopped = False
        self.fired = 0
        node.wake_timers = self.due_at

    async def start(self) -> None:
        """Fires what fell due while no server ran, and arms the next."""
        await self.run_once()

    def stop(self) -> None:
        """No timer fires any more."""
        self._stopped = True
        if self._handle is not None:
            self._handle.cancel()

    def due_at(self, due_ms: int) -> None:
        """A wait with this due time is durable."""
        if self._next_ms is None or due_ms < self._next_ms:
            self._next_ms = due_ms
            self.arm()

    def arm(self) -> None:
        """Sets the alarm for the earliest due time; again after the clock was moved."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._next_ms is None or self._stopped:
            return
        delay = max(self._next_ms - self._node.clock.now_ms(), 0) / 1000
        self._handle = self._node.loop.call_later(min(delay, _LONGEST_S), self._ring)

    def _ring(self) -> None:
        self._handle = None
        if self._next_ms is not None and self._node.clock.now_ms() < self._next_ms:
            self.arm()
        else:
            self._node.spawn(self.run_once())

    async def run_once(self) -> None:
        """Fires all that is due now, in batches, each settled before the next is read."""
        if self._firing:
            self._again = True
            return
        self._firing = True
        node = self._node
        node.busy += 1
        try:
            while not self._stopped:
                now = node.clock.now_ms()
                self._next_ms = None
                self._again = False
                found = await node.store.due(now, _BATCH)
                rows, others_until = self._for_here(found, now)
                if rows:
                    await self._fire(rows, now)
                if others_until:
                    self.due_at(others_until)
                if (len(found) == _BATCH and rows) or self._again:
                    continue
                following = await node.history.due_after(now)
                if self._again:
                    continue  # an alarm rang meanwhile: it was only noted, and will not ring again
                if following is not None:
                    self.due_at(following)
                break
        except Exception as error:
            if not isinstance(error, UnavailableError):
                log.exception("firing timers failed")
            self._next_ms = None  # an alarm that rang meanwhile was only noted: nothing else would ring
            self.due_at(node.clock.now_ms() + 500)
        finally:
            self._firing = False
            node.busy -= 1

    def _for_here(self, rows: list[WaitRow], now: int) -> tuple[list[WaitRow], int]:
        """Waits of runs that this node holds; those of others only once they had the time to do it themselves, which
        the first of the nodes does before the second. And when that is, for the earliest left out; else 0."""
        node = self._node
        if node.cluster is None:
            return rows, 0
        delay_ms = node.tuning.foreign_ms * (1 + node.cluster.rank)
        ours: list[WaitRow] = []
        until = 0
        for row in rows:
            may_ms = (row.due_ms or 0) + delay_ms
            if may_ms <= now or row.run_id in node.residents or row.run_id in node.arriving:
                ours.append(row)
            else:
                until = min(until or may_ms, may_ms)
        return ours, until

    async def _fire(self, rows: list[WaitRow], now: int) -> None:
        # A wait that has not looked back yet does so now: an event that came before its time-out wins (H17).
        # So does every one where another node may have accepted the event, and died before it served it.
        many = self._node.cluster is not None
        unsure = [row for row in rows if row.kind == StepKind.EVENT and (many or row.after_event is not None)]
        await asyncio.gather(*(lookback.finish(self._node, row) for row in unsure))
        settled = asyncio.Event()
        left = Countdown(settled.set)
        inner = [row for row in rows if row.kind in INNER and row.kind != StepKind.GATE]
        gates = [row for row in rows if row.kind == StepKind.GATE]
        self.fired += len(gates)
        for row in rows:
            if row.kind not in INNER:
                self.fired += 1
                left.more()
                order = ending.cancel_order(row, now, "its parent no longer waits for it")
                opened = () if order is None else (order,)
                wake.resolve(self._node, row.function_id, due_outcome(row, now), self._after(row, left), opened)
        left.armed()
        await asyncio.gather(*(self._inner(row) for row in inner), *([self._node.gates.due(gates)] if gates else ()))
        await settled.wait()

    async def _inner(self, row: WaitRow) -> None:
        """The time of a run, or the grace of one that unwinds, is over; or a run is to be cancelled."""
        if row.kind == StepKind.TIMEOUT:
            self.fired += 1
            await unwind.timed_out(self._node, row)
        elif row.kind == StepKind.GRACE:
            await unwind.grace_over(self._node, row)
        else:
            await unwind.asked(self._node, row)

    def _after(self, row: WaitRow, left: Countdown) -> wake.Then:
        def then(won: bool) -> None:
            if not won:
                # Somebody else was first; where the row outlived that, it goes, or it would fall due for ever.
                gone = WaitDelete(row.env, row.run_id, row.key)
                touches = (f"{row.run_id}/{row.key}",)
                self._node.lane.submit(Commit(row.env, touches=touches, wait_deletes=(gone,)), _closed)
            elif row.child_id is not None:
                self.due_at(self._node.clock.now_ms())  # its cancellation was ordered
            left.one()

        return then


def _closed(result: CommitResult, argument: object) -> None:
    """The row is gone."""


def due_outcome(wait: WaitRow, now: int) -> OutcomeRow:
    """What a wait becomes when its time is over: leave to try again, a time-out, or just the time."""
    if wait.kind == StepKind.RETRY:
        return wake.outcome_of(wait, now, failure=wait.failure)
    if wait.kind == StepKind.INVOKE:
        message = f"{wait.target} did not end in time"
        return wake.outcome_of(
            wait, now, failure=failure_json({"type": "StepTimeoutError", "message": message, "reason": "TIMEOUT"})
        )
    return wake.outcome_of(wait, now)
