"""The in-process queue: a bounded window on the store's queued runs (H34)."""

from __future__ import annotations

import heapq

from stepwell_server.model.run import Priority, ReadyRow
from stepwell_server.ports.queue import Backlog, Head, Queued
from stepwell_server.ports.store import RunState, Store

_WINDOW = 20_000
_CARRIED = 4_000
_CARRIED_BYTES = 4_096
_UNREAD = -(2**63)

_NEW = int(Priority.NEW)


class _Line:
    """Queued runs of one function. more: rows that are only in the store.

    While a page is read: settled, which rows of it may be gone; missed, whether a row came that it may not hold.
    """

    __slots__ = ("heap", "known", "missed", "more", "refilling", "settled", "states")

    def __init__(self) -> None:
        self.heap: list[tuple[int, int, str]] = []
        self.known: set[str] = set()
        self.states: dict[str, RunState] = {}
        self.more = True
        self.refilling = False
        self.settled: set[str] = set()
        self.missed = False


def _is_small(state: RunState) -> bool:
    """What is carried saves a read; large data would cost more memory than that is worth (H34)."""
    data = state.event.data if state.event is not None else state.run.input or b""
    return len(data) <= _CARRIED_BYTES


class LocalQueue:
    """Queue over one store, for a node that is alone (see ports/queue.py)."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lines: dict[tuple[str, str], _Line] = {}

    def _line(self, env: str, function_id: str) -> _Line:
        line = self._lines.get((env, function_id))
        if line is None:
            line = self._lines[env, function_id] = _Line()
            line.more = False
        return line

    def learn(self, env: str, function_id: str) -> None:
        """The store may hold queued runs of this function (after a start, or queued by another node)."""
        self._line(env, function_id).more = True

    def push(self, row: ReadyRow, state: RunState | None) -> None:
        line = self._line(row.env, row.function_id)
        if row.run_id in line.known:
            return
        # What is only in the store goes after the window; but one that has begun goes before all that is new.
        begun = row.priority < _NEW
        if line.more and len(line.heap) >= _WINDOW // 4 and not begun:
            line.missed = True
            return
        if len(line.heap) >= (2 * _WINDOW if begun else _WINDOW):
            line.more = True
            return
        line.known.add(row.run_id)
        heapq.heappush(line.heap, (row.priority, row.queued_ms, row.run_id))
        if state is not None and len(line.states) < _CARRIED and _is_small(state):
            line.states[row.run_id] = state

    def pop(self, env: str, function_id: str, limit: int) -> list[Queued]:
        line = self._line(env, function_id)
        taken: list[Queued] = []
        while line.heap and len(taken) < limit:
            priority, queued_ms, run_id = heapq.heappop(line.heap)
            row = ReadyRow(env, run_id, function_id, priority, queued_ms)
            taken.append(Queued(row, line.states.pop(run_id, None)))
        return taken

    def put_back(self, queued: Queued) -> None:
        """A popped run could not be taken now; it keeps its place."""
        line = self._line(queued.row.env, queued.row.function_id)
        heapq.heappush(line.heap, (queued.row.priority, queued.row.queued_ms, queued.row.run_id))
        if queued.state is not None:
            line.states[queued.row.run_id] = queued.state

    def settled(self, env: str, function_id: str, run_id: str) -> None:
        line = self._line(env, function_id)
        line.known.discard(run_id)
        if line.refilling:
            line.settled.add(run_id)
        if not line.more and not line.heap and not line.known:
            self._lines.pop((env, function_id), None)

    def waiting(self, env: str, function_id: str) -> bool:
        line = self._lines.get((env, function_id))
        return line is not None and (line.more or bool(line.heap))

    def heads(self, env: str) -> list[Head]:
        found = [self._head(function_id, line) for (e, function_id), line in self._lines.items() if e == env]
        return [head for head in found if head is not None]

    def head(self, env: str, function_id: str) -> Head | None:
        line = self._lines.get((env, function_id))
        return self._head(function_id, line) if line is not None else None

    def _head(self, function_id: str, line: _Line) -> Head | None:
        if line.heap:
            priority, queued_ms, _ = line.heap[0]
            return Head(priority, queued_ms, function_id)
        return Head(_UNREAD, 0, function_id) if line.more else None

    def backlogs(self) -> list[Backlog]:
        return [
            Backlog(env, function_id, len(line.heap), min([item[1] for item in line.heap], default=0), line.more)
            for (env, function_id), line in self._lines.items()
            if line.heap or line.more
        ]

    async def refill(self, env: str, function_id: str) -> int:
        line = self._line(env, function_id)
        if not line.more or line.refilling or len(line.heap) >= _WINDOW // 4:
            return 0
        line.refilling = True
        line.missed = False
        asked = _WINDOW + len(line.known)
        try:
            rows = await self._store.ready(env, function_id, None, asked)
        finally:
            line.refilling = False
            gone, line.settled = line.settled, set()
        line.more = len(rows) >= asked or line.missed
        came = 0
        for row in rows:
            if row.run_id in line.known or row.run_id in gone:
                continue
            if len(line.heap) >= _WINDOW:
                line.more = True
                break
            line.known.add(row.run_id)
            heapq.heappush(line.heap, (row.priority, row.queued_ms, row.run_id))
            came += 1
        return came
