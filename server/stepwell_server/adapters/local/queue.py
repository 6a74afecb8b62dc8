"""The in-process queue: bounded windows on the store's queued runs, one for each line of a function (H34)."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import attrgetter

from stepwell_server.model.run import BEGUN, Priority, ReadyRow
from stepwell_server.ports.queue import Backlog, Head, Queued
from stepwell_server.ports.store import RunState, Store

_WINDOW = 20_000
_KEYED_WINDOW = 256
_LINES = 20_000
"""Lines of a function whose runs are in memory; one that rests and is too many is read again when it wakes."""
_PAGE_LINES = 500
_PAGE_ROWS = 16
_BEHIND_PLAIN = "\x01"
_SCAN_EVERY = 12
_CARRIED = 4_000
_CARRIED_BYTES = 4_096
_UNREAD = -(2**63)

_NEW = int(Priority.NEW)

_Entry = tuple[int, int, int, str, str]


class _Line:
    """Queued runs of one key. more: rows that are only in the store. missed: a row came that a read may not hold.

    known: what was pushed or read and is not settled. round: the turn in which it is next. entry: where it stands.
    """

    __slots__ = ("entry", "heap", "known", "missed", "more", "name", "round")

    def __init__(self, name: str, round_: int, more: bool) -> None:
        self.name = name
        self.heap: list[tuple[int, int, str]] = []
        self.known: set[str] = set()
        self.more = more
        self.missed = False
        self.round = round_
        self.entry: _Entry | None = None


class _Function:
    """The lines of one function. order: those that may be next, with stale entries between. hungry: lines that are only
    in the store. unread, cursor: from which line on the store may hold lines that nobody pushed.

    gone: what was settled while a page is read. again: something was queued meanwhile that it may not hold.
    """

    __slots__ = (
        "again",
        "cursor",
        "gone",
        "hungry",
        "keyed",
        "learnt",
        "lines",
        "order",
        "reading",
        "resting",
        "states",
        "unread",
    )

    def __init__(self) -> None:
        self.lines: dict[str, _Line] = {}
        self.order: list[_Entry] = []
        self.resting: dict[str, None] = {}
        self.hungry: dict[str, None] = {}
        self.states: dict[str, RunState] = {}
        self.keyed = False
        self.unread = False
        self.cursor = ""
        self.learnt = 0
        self.reading = False
        self.again = False
        self.gone: set[str] = set()

    @property
    def window(self) -> int:
        """Rows of one line."""
        return _KEYED_WINDOW if self.keyed else _WINDOW

    @property
    def due(self) -> bool:
        """Whether a refill would read something."""
        return not self.reading and (self.unread or bool(self.hungry))

    def place(self, line: _Line) -> None:
        """The first of a line may have changed."""
        if not self.keyed:
            # One line needs no order.
            if not line.heap and line.more and not self.resting:
                self.hungry[line.name] = None
        elif line.name in self.resting:
            line.entry = None
        elif line.heap:
            priority, queued_ms, run_id = line.heap[0]
            entry = (priority, line.round, queued_ms, run_id, line.name)
            if entry != line.entry:
                line.entry = entry
                heapq.heappush(self.order, entry)
        else:
            line.entry = None
            if line.more:
                self.hungry[line.name] = None

    def first(self) -> _Line | None:
        """The line that is next."""
        if not self.keyed:
            line = self.lines.get("")
            return line if line is not None and line.heap and not self.resting else None
        order = self.order
        while order:
            line = self.lines.get(order[0][4])
            if line is not None and line.entry == order[0]:
                return line
            heapq.heappop(order)
        return None

    def forget(self, line: _Line) -> None:
        """Nothing of a line is left in memory."""
        del self.lines[line.name]
        self.hungry.pop(line.name, None)

    def head(self, function_id: str) -> Head | None:
        """Where the function stands; before all others where it has to be read first."""
        line = self.first()
        if line is not None:
            return Head(line.heap[0][0], line.heap[0][1], function_id, self.due)
        return Head(_UNREAD, 0, function_id, self.due) if self.unread or self.hungry else None


def _is_small(state: RunState) -> bool:
    """What is carried saves a read; large data would cost more memory than that is worth (H34)."""
    data = state.event.data if state.event is not None else state.run.input or b""
    return len(data) <= _CARRIED_BYTES


Share = Callable[[Sequence[ReadyRow]], Sequence[ReadyRow]]


class LocalQueue:
    """Queue over one store (see ports/queue.py). share: which of the queued runs of a function that were read this
    node is to take first; the others stay in the store."""

    def __init__(self, store: Store, share: Share = lambda rows: rows) -> None:
        self._store = store
        self._share = share
        self._functions: dict[tuple[str, str], _Function] = {}
        self._rounds: dict[str, int] = {}

    def _function(self, env: str, function_id: str) -> _Function:
        function = self._functions.get((env, function_id))
        if function is None:
            function = self._functions[env, function_id] = _Function()
        return function

    def _line(self, env: str, function: _Function, name: str) -> _Line | None:
        """A line, made where there is room for one more."""
        line = function.lines.get(name)
        if line is None and len(function.lines) < _LINES and name not in function.resting:
            if name and not function.keyed:
                function.keyed = True
                for plain in function.lines.values():
                    function.place(plain)
            more = function.unread and name >= function.cursor
            line = function.lines[name] = _Line(name, self._rounds.get(env, 0) if name else 0, more)
        return line

    def learn(self, env: str, function_id: str, *, sure: bool = False) -> None:
        function = self._function(env, function_id)
        function.learnt += 1
        if sure or (not function.unread and (not function.keyed or function.learnt % _SCAN_EVERY == 1)):
            function.unread = True
            function.cursor = ""
            function.again = function.reading

    def push(self, row: ReadyRow, state: RunState | None) -> None:
        function = self._functions.get((row.env, row.function_id)) or self._function(row.env, row.function_id)
        name = row.own_line if row.line else ""
        line = function.lines.get(name) or self._line(row.env, function, name)
        if line is None:
            # It is read when its line wakes, or with the lines that nobody pushed.
            function.unread = function.unread or row.own_line not in function.resting
            return
        if row.run_id in line.known:
            return
        # What is only in the store goes after the window; but one that has begun goes before all that is new.
        begun = row.priority < _NEW
        window = _KEYED_WINDOW if function.keyed else _WINDOW
        if line.more and len(line.heap) >= window // 4 and not begun:
            line.missed = True
            return
        if len(line.heap) >= (2 * window if begun else window):
            line.more = line.missed = True
            return
        self._add(function, line, row)
        if state is not None and len(function.states) < _CARRIED and _is_small(state):
            function.states[row.run_id] = state

    def _add(self, function: _Function, line: _Line, row: ReadyRow) -> None:
        line.known.add(row.run_id)
        heapq.heappush(line.heap, (row.priority, row.queued_ms, row.run_id))
        if function.hungry:
            function.hungry.pop(line.name, None)
        if function.keyed and line.heap[0][2] == row.run_id:
            function.place(line)

    def pop(self, env: str, function_id: str, limit: int) -> list[Queued]:
        function = self._function(env, function_id)
        taken: list[Queued] = []
        while len(taken) < limit and (line := function.first()) is not None:
            priority, queued_ms, run_id = heapq.heappop(line.heap)
            name = line.name and line.name.removesuffix(BEGUN)
            row = ReadyRow(env, run_id, function_id, priority, queued_ms, name)
            taken.append(Queued(row, function.states.pop(run_id, None)))
            if line.name and priority == _NEW:
                self._rounds[env] = max(self._rounds.get(env, 0), line.round)
                line.round += 1
            function.place(line)
        return taken

    def put_back(self, queued: Queued, *, rest: bool = False) -> None:
        row = queued.row
        function = self._function(row.env, row.function_id)
        line = function.lines.get(row.own_line)
        assert line is not None, "a line stays while one of its runs is popped"
        heapq.heappush(line.heap, (row.priority, row.queued_ms, row.run_id))
        function.hungry.pop(line.name, None)
        if queued.state is not None:
            function.states[row.run_id] = queued.state
        if rest:
            function.resting[row.own_line] = None
            if len(function.lines) > _LINES // 2 and len(line.heap) == len(line.known):
                for _, _, run_id in line.heap:
                    function.states.pop(run_id, None)
                function.forget(line)
                return
        function.place(line)

    def wake(self, env: str, function_id: str, line: str) -> bool:
        function = self._functions.get((env, function_id))
        if function is None or line not in function.resting:
            return False
        del function.resting[line]
        woken = self._line(env, function, line)
        if woken is None:
            function.unread = True
            return True
        if not woken.known:
            woken.more = True
        woken.round = max(woken.round, self._rounds.get(env, 0) if line else 0)
        function.place(woken)
        return True

    def settled(self, row: ReadyRow) -> None:
        function = self._functions.get((row.env, row.function_id))
        if function is None:
            return
        if function.reading:
            function.gone.add(row.run_id)
        line = function.lines.get(row.own_line if row.line else "")
        if line is not None:
            line.known.discard(row.run_id)
            if not line.more and not line.heap and not line.known and row.own_line not in function.resting:
                function.forget(line)
        if not (function.lines or function.resting or function.unread or function.reading):
            del self._functions[row.env, row.function_id]

    def heads(self, env: str) -> list[Head]:
        found = [function.head(id_) for (e, id_), function in self._functions.items() if e == env]
        return [head for head in found if head is not None]

    def head(self, env: str, function_id: str) -> Head | None:
        function = self._functions.get((env, function_id))
        return function.head(function_id) if function is not None else None

    def waiting(self, env: str, function_id: str) -> bool:
        function = self._functions.get((env, function_id))
        return function is not None and (function.unread or bool(function.hungry) or function.first() is not None)

    def backlog(self, env: str, function_id: str, line: str) -> tuple[int, bool]:
        function = self._functions.get((env, function_id))
        if function is None:
            return 0, False
        known = function.lines.get(line)
        if known is None:
            return (1, True) if line in function.resting else (0, function.unread)
        return len(known.heap), known.more

    def backlogs(self) -> list[Backlog]:
        found: list[Backlog] = []
        for (env, function_id), function in self._functions.items():
            lines = function.lines.values()
            runs = sum(len(line.heap) for line in lines)
            more = function.unread or bool(function.resting) or any(line.more for line in lines)
            if runs or more:
                oldest_ms = min((item[1] for line in lines for item in line.heap), default=0)
                found.append(Backlog(env, function_id, runs, oldest_ms, more))
        return found

    async def refill(self, env: str, function_id: str) -> bool:
        function = self._function(env, function_id)
        if not function.due:
            return False
        function.reading = True
        try:
            if function.hungry:
                await self._read_line(env, function_id, function, function.lines[next(iter(function.hungry))])
            else:
                await self._read_lines(env, function_id, function)
        finally:
            function.reading = False
            function.gone.clear()
            if function.again:
                function.again, function.unread, function.cursor = False, True, ""
        return function.due or function.first() is not None

    async def _read_line(self, env: str, function_id: str, function: _Function, line: _Line) -> None:
        """Reads on in one line; what of it was popped is still in the store."""
        line.missed = False
        name = line.name.removesuffix(BEGUN)
        beside = function.lines.get(name if line.name.endswith(BEGUN) else name + BEGUN)
        asked = function.window + len(line.known) + (len(beside.known) if beside is not None else 0)
        rows = [row for row in await self._store.ready(env, function_id, name, asked) if row.line == name]
        if function.lines.get(line.name) is line:
            function.hungry.pop(line.name, None)
            mine = [row for row in rows if row.own_line == line.name]
            # Those that have begun come first: where new ones follow there are no more of them.
            more = len(rows) >= asked and (line.name == name or len(mine) == len(rows))
            self._fill(function, line, mine, more=more)
            self._beside(env, function, [row for row in rows if row.own_line != line.name])

    async def _read_lines(self, env: str, function_id: str, function: _Function) -> None:
        """Reads the lines that nobody pushed, a page at a time; a function without keys has one."""
        began = function.cursor
        plain = not function.keyed and not began
        for line in function.lines.values():
            line.missed = False
        known = function.lines.get("")
        asked = function.window + len(known.known if known is not None else ()) if plain else _PAGE_ROWS
        rows = await self._store.ready(env, function_id, began, asked, 1 if plain else _PAGE_LINES)
        function.unread = bool(rows)
        count = 0
        for name, group in groupby(rows, attrgetter("line")):
            count += 1
            found = list(group)
            line = self._line(env, function, name)
            if line is not None:
                mine = [row for row in found if row.own_line == name]
                self._fill(function, line, mine, more=len(found) >= asked)
                self._beside(env, function, [row for row in found if row.own_line != name])
            elif name not in function.resting:
                function.cursor = name
                return  # no room for it now
            function.cursor = name + _BEHIND_PLAIN
        if not plain and count < _PAGE_LINES:
            function.unread = False
        if not function.unread:
            function.cursor = ""

    def _beside(self, env: str, function: _Function, rows: list[ReadyRow]) -> None:
        """Runs that stand in the same line of the store, and in another one here."""
        for row in self._share(rows):
            beside = self._line(env, function, row.own_line)
            if beside is not None and row.run_id not in beside.known and row.run_id not in function.gone:
                self._add(function, beside, row)

    def _fill(self, function: _Function, line: _Line, rows: list[ReadyRow], *, more: bool) -> None:
        line.more = more or line.missed
        fresh = [row for row in rows if row.run_id not in line.known and row.run_id not in function.gone]
        share = self._share(fresh)
        line.more = line.more or len(share) < len(fresh)
        for row in share:
            if len(line.heap) >= function.window:
                line.more = True
                break
            self._add(function, line, row)
        if not line.heap and not line.known and not line.more and line.name not in function.resting:
            function.forget(line)
        else:
            function.place(line)
