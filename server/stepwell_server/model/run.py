"""A run: its states, their edges, and its row.

         ┌────────┐  assigned   ┌─────────┐  nothing to execute  ┌────────┐
new ───▶ │ QUEUED │ ──────────▶ │ RUNNING │ ───────────────────▶ │ PARKED │
         └────────┘ ◀────────── └─────────┘ ◀─────────────────── └────────┘
             ▲    lost, drained               woken with a place      │
             └────────────────────────────────────────────────────────┘ woken without a place
any live ──▶ PAUSED ──▶ QUEUED | PARKED          any live ──▶ COMPLETED | FAILED | CANCELLED | TIMED_OUT
new ──▶ QUEUED | RUNNING | SKIPPED | PARKED (it gathers events, or waits at a gate)        QUEUED | PARKED ──▶ SKIPPED
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class RunStatus(IntEnum):
    """Where a run stands. The numbers are those of the protocol."""

    QUEUED = 1
    RUNNING = 2
    PARKED = 3
    PAUSED = 4
    COMPLETED = 5
    FAILED = 6
    CANCELLED = 7
    TIMED_OUT = 8
    SKIPPED = 9


LIVE = frozenset({RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.PARKED, RunStatus.PAUSED})
ENDS = frozenset(RunStatus) - LIVE
_TERMINAL = ENDS - {RunStatus.SKIPPED}

# The state chart as a table: from → to. None is "new".
EDGES: dict[RunStatus | None, frozenset[RunStatus]] = {
    None: frozenset({RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.PARKED, RunStatus.SKIPPED}),
    RunStatus.QUEUED: frozenset({RunStatus.RUNNING, RunStatus.PAUSED}) | ENDS,
    RunStatus.RUNNING: frozenset({RunStatus.PARKED, RunStatus.QUEUED, RunStatus.PAUSED}) | _TERMINAL,
    RunStatus.PARKED: frozenset({RunStatus.RUNNING, RunStatus.QUEUED, RunStatus.PAUSED}) | ENDS,
    RunStatus.PAUSED: frozenset({RunStatus.QUEUED, RunStatus.PARKED, RunStatus.RUNNING}) | _TERMINAL,
}


class Priority(IntEnum):
    """Which queued runs go first: those that have begun, then new ones, then those lost too often (H13, H14c)."""

    RESUMED = -1
    NEW = 0
    SUSPECT = 1


_RUNNING = int(RunStatus.RUNNING)

GATHERED = "stepwell/events"
"""The input's encoding of a run, without input, that many events start."""


class PausedReason(IntEnum):
    """Why a run is paused; NONE if it is not. The numbers are those of the protocol."""

    NONE = 0
    NONDETERMINISTIC = 1
    WORKER_LOST = 2
    FUNCTION_PAUSED = 3
    OPERATOR = 4


class RunRow(NamedTuple):
    """A row of ``runs``; as an operation: insert, or nothing if the id is there.

    started_ms, ended_ms: None before. input: only for invoked runs, else the event is the input.
    failure: JSON of a Failure. metadata: JSON object or empty.
    priority, queued_ms: while it is QUEUED its place in the order of its function: by (priority, queued_ms, id), lowest
    first. That status alone puts a run into the queue; in any other the two mean nothing.
    line: the values of the keys that its function's limits go by, as text (engine/lines.py); "" where it needs none.
    """

    env: str
    id: str
    function_id: str
    app: str
    status: int
    reason: int
    turn: int
    session_id: str | None
    event_id: str | None
    parent_id: str | None
    parent_key: str | None
    detached: bool
    depth: int
    deployment: str
    losses: int
    priority: int
    queued_ms: int
    created_ms: int
    started_ms: int | None
    ended_ms: int | None
    input: bytes | None
    input_encoding: str
    output: bytes | None
    output_encoding: str
    failure: bytes | None
    metadata: bytes
    line: str = ""

    @property
    def gathers(self) -> bool:
        """Its input is the events that joined it (see ``members``)."""
        return self.input is None and self.input_encoding == GATHERED

    # Each run takes this way once or twice, and _replace costs three times as much.

    def held(self, session_id: str, turn: int, deployment: str, started_ms: int | None) -> RunRow:
        """RUNNING in a session."""
        return RunRow(
            *self[:4], _RUNNING, self[5], turn, session_id, *self[8:13], deployment, *self[14:18],
            started_ms, *self[19:],
        )  # fmt: skip

    def in_place(self, priority: int, queued_ms: int) -> RunRow:
        """With a place in the queue."""
        return RunRow(*self[:15], priority, queued_ms, *self[17:])


class Move(NamedTuple):
    """A live run changes place or status, if its turn is still ``expect_turn``.

    turn: the new turn (expect_turn, or expect_turn + 1 for an assignment or a take-over).
    deployment: set only where the row has none ("" leaves it). started_ms: set only where the row has none.
    failure: what a pause shows; None clears it. priority, queued_ms: always written; for QUEUED its place.
    """

    env: str
    run_id: str
    expect_turn: int
    turn: int
    status: int
    reason: int
    session_id: str | None
    losses: int
    started_ms: int | None
    deployment: str
    failure: bytes | None
    priority: int = 0
    queued_ms: int = 0


class Take(NamedTuple):
    """A run without a session is assigned: guard: live, session_id is None, status QUEUED or PARKED, and the turn.

    turn: the one that the run is in; None: any. Sets session_id and status RUNNING, raises turn by one, sets started_ms
    and deployment where the row has none.
    """

    env: str
    run_id: str
    session_id: str
    started_ms: int
    deployment: str
    turn: int | None = None


class Enqueue(NamedTuple):
    """A PARKED run without a session becomes QUEUED in this place (same guard as Take, status PARKED only).

    event_id: of one that gathered, the event that it starts with; None leaves it.
    """

    env: str
    run_id: str
    priority: int
    queued_ms: int
    event_id: str | None = None


class Reline(NamedTuple):
    """A QUEUED run waits in another line of its function: a deployment has changed the keys. Guard: the status."""

    env: str
    run_id: str
    line: str


class End(NamedTuple):
    """A live run ends, if its turn is still ``turn``. The row keeps its session as the one that ended it."""

    env: str
    run_id: str
    turn: int
    status: int
    ended_ms: int
    output: bytes | None
    output_encoding: str
    failure: bytes | None


_NEW = int(Priority.NEW)
BEGUN = "\x7f"
"""Ends no line: those end with JSON."""


class ReadyRow(NamedTuple):
    """A QUEUED run's place in the order of its line (see RunRow)."""

    env: str
    run_id: str
    function_id: str
    priority: int
    queued_ms: int
    line: str = ""

    @property
    def own_line(self) -> str:
        """Its line, but runs of a key that have begun have one of their own: they need less than new ones, and may
        hold the very slot that those wait for."""
        return self.line + BEGUN if self.line and self.priority != _NEW else self.line
