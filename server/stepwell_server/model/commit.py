"""Commit: one value that carries every durable change of a decision, with its guards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TypedDict, Unpack

from stepwell_server.model.claim import ClaimEnd, ClaimRow, MemberRow
from stepwell_server.model.event import CursorDelete, CursorRow, DedupRow, EventRow
from stepwell_server.model.function import DeploymentRow, ShapeRow, SwitchRow
from stepwell_server.model.journal import LookedBack, Number, OutcomeDelete, OutcomeRow, WaitDelete, WaitRow
from stepwell_server.model.run import End, Enqueue, Move, Reline, RunRow, Take
from stepwell_server.model.session import Fence, LeaseWrite, SessionWrite, SettingRow

Decider = DedupRow | Move | Take | End | OutcomeRow | ClaimRow | SessionWrite | LeaseWrite


class Verdict(IntEnum):
    """What became of a Commit."""

    APPLIED = 1
    """All of it is durable (an earlier try of the same Commit counts as this one)."""
    FENCED = 2
    """A fence did not hold: nothing was written."""
    LOST = 3
    """The decider lost: nothing was written (but see OutcomeRow in Commit)."""
    REFUSED = 4
    """The store can never take it (a bad value): nothing was written."""


class Rows(TypedDict, total=False):
    """The fields of a Commit that hold rows."""

    events: Sequence[EventRow]
    cursors: Sequence[CursorRow]
    runs: Sequence[RunRow]
    outcomes: Sequence[OutcomeRow]
    resolves: Sequence[OutcomeRow]
    numbers: Sequence[Number]
    outcome_deletes: Sequence[OutcomeDelete]
    waits: Sequence[WaitRow]
    looked_back: Sequence[LookedBack]
    wait_deletes: Sequence[WaitDelete]
    moves: Sequence[Move]
    takes: Sequence[Take]
    enqueues: Sequence[Enqueue]
    relines: Sequence[Reline]
    ends: Sequence[End]
    cursor_deletes: Sequence[CursorDelete]
    dedups: Sequence[DedupRow]
    claims: Sequence[ClaimRow]
    claim_ends: Sequence[ClaimEnd]
    members: Sequence[MemberRow]
    deployments: Sequence[DeploymentRow]
    shapes: Sequence[ShapeRow]
    switches: Sequence[SwitchRow]
    settings: Sequence[SettingRow]


class Commit:
    """Every durable change of one decision. Built by one decision, then never changed.

    It is decided whole: all ``fences`` must hold, and ``decider``, if there is one, must win:
      DedupRow   inserted, or the row there has the same value
      Move       applied (the turn was the expected one), or the row already stands as the Move would leave it
      Take       applied, or the row is live, RUNNING and already has this session
      End        applied (live, in this turn), or the row stands ended as it would be left
      OutcomeRow resolved its wait (see ``resolves``), or the row there is equal in kind, output, failure, event_id
                 and attempt. Where a row is there, won or lost, a wait of its key is deleted: nothing can resolve it
      ClaimRow   written (no row there, or the version before), or the row there is the same
      SessionWrite, LeaseWrite  applied, or the row already stands as it would be left
    Then the rest is applied in the order of the fields, where an insert of a row that is there does nothing.
    Followers that carry a guard of their own (``moves``, ``takes``, ``enqueues``, ``relines``, ``ends``, ``claims``,
    ``claim_ends``) do nothing where it fails.

    outcomes: inserted unconditionally. resolves: each deletes the wait of its (env, run_id, key) and is inserted only
    if that wait was there: so of an event, a time-out and a child's end exactly one wins (H19), and a key that was
    abandoned stays closed.

    touches: ids of runs and other rows that two Commits of one batch may not both write (H33); the lane reads it.
    size: bytes of payloads, for the lane's cap.

    A Commit has few of these fields, and there are many Commits: an empty field is the class's.
    """

    events: Sequence[EventRow] = ()
    cursors: Sequence[CursorRow] = ()
    runs: Sequence[RunRow] = ()
    outcomes: Sequence[OutcomeRow] = ()
    resolves: Sequence[OutcomeRow] = ()
    numbers: Sequence[Number] = ()
    outcome_deletes: Sequence[OutcomeDelete] = ()
    waits: Sequence[WaitRow] = ()
    looked_back: Sequence[LookedBack] = ()
    wait_deletes: Sequence[WaitDelete] = ()
    moves: Sequence[Move] = ()
    takes: Sequence[Take] = ()
    enqueues: Sequence[Enqueue] = ()
    relines: Sequence[Reline] = ()
    ends: Sequence[End] = ()
    cursor_deletes: Sequence[CursorDelete] = ()
    dedups: Sequence[DedupRow] = ()
    claims: Sequence[ClaimRow] = ()
    claim_ends: Sequence[ClaimEnd] = ()
    members: Sequence[MemberRow] = ()
    deployments: Sequence[DeploymentRow] = ()
    shapes: Sequence[ShapeRow] = ()
    switches: Sequence[SwitchRow] = ()
    settings: Sequence[SettingRow] = ()
    size: int = 0

    def __init__(
        self,
        env: str,
        *,
        touches: tuple[str, ...] = (),
        fences: tuple[Fence, ...] = (),
        decider: Decider | None = None,
        size: int = 0,
        **fields: Unpack[Rows],
    ) -> None:
        self.env = env
        self.touches = touches
        self.fences = fences
        self.decider = decider
        self.size = size
        if fields:
            self.__dict__.update(fields)

    def __repr__(self) -> str:
        return f"Commit({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items() if value)})"


@dataclass(frozen=True, slots=True)
class CommitResult:
    """Verdict of one Commit. existing: where a DedupRow lost, the value that won; where a Commit was REFUSED, why."""

    verdict: Verdict
    existing: str = ""


APPLIED = CommitResult(Verdict.APPLIED)
FENCED = CommitResult(Verdict.FENCED)
LOST = CommitResult(Verdict.LOST)
