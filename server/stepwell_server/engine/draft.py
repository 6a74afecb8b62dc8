"""What one frame of a worker changes in one run, and the Commit that it becomes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepwell_server.engine import admission, ending, ingest, serve, wake
from stepwell_server.engine.node import Environment, Node
from stepwell_server.engine.residents import Resident, Session, Tree
from stepwell_server.model.commit import Commit
from stepwell_server.model.event import EventRow
from stepwell_server.model.function import ShapeRow
from stepwell_server.model.journal import Number, OutcomeDelete, OutcomeRow, WaitDelete, WaitRow
from stepwell_server.model.run import End, Move, ReadyRow, RunStatus

# Names of the module: to ask an enumeration's class for a member takes longer (until Python 3.12).
_PARKED, _RUNNING = RunStatus.PARKED, RunStatus.RUNNING


class Draft:
    """What one frame changes in one run; becomes a Commit. What is not set is the class's: most change little."""

    highest = 0
    named = 0
    seen: tuple[int, ...] = ()
    twice = False
    left = 0
    size = 0
    refused = False
    released = False
    """The run leaves its worker's memory alive: given back, or to be entered again later."""
    outcomes: list[OutcomeRow] = []  # noqa: RUF012 (empty and never changed: see add())
    answers: list[OutcomeRow] | None = None
    numbers: list[Number] | None = None
    outcome_deletes: list[OutcomeDelete] | None = None
    waits: list[WaitRow] | None = None
    wait_deletes: list[WaitDelete] | None = None
    moves: list[Move] | None = None
    events: list[tuple[EventRow, Any]] | None = None
    accepted: list[admission.Start] | None = None
    children: list[admission.Start] | None = None
    cancels: list[WaitRow] | None = None
    shapes: list[ShapeRow] | None = None
    batch: serve.Accepted | None = None
    end: End | None = None
    parent: OutcomeRow | None = None
    parked: tuple[Tree, int] | None = None
    place: ReadyRow | None = None
    status: Move | None = None
    number = 0

    def __init__(self, resident: Resident) -> None:
        self.resident = resident

    def add(self, outcome: OutcomeRow) -> None:
        """One more outcome."""
        if self.outcomes:
            self.outcomes.append(outcome)
        else:
            self.outcomes = [outcome]

    def answer(self, outcome: OutcomeRow) -> None:
        """An outcome that the server makes of a command at once: it goes back when it is durable."""
        self.add(outcome)
        self.resident.decide(outcome.key)
        self.resident.expect(outcome.key)
        if self.answers is None:
            self.answers = []
        self.answers.append(outcome)

    @property
    def plain(self) -> bool:
        """Only results, and perhaps the end of a run that nobody invoked and that waits for nothing: nearly always."""
        resident = self.resident
        if self.end is not None and (self.parent is not None or resident.open or resident.unseen):
            return False
        return not (
            self.numbers is not None
            or self.waits is not None
            or self.answers is not None
            or self.wait_deletes is not None
            or self.outcome_deletes is not None
            or self.children is not None
            or self.events is not None
            or self.moves is not None
            or self.cancels is not None
            or self.shapes is not None
            or self.released
        )

    def note_status(self, session: Session) -> None:
        """The status that the store shows follows with the next commit that is made anyway (see architecture.md)."""
        resident = self.resident
        parks = self.parked is not None and resident.may_park(*self.parked)
        status = _PARKED if parks else _RUNNING
        losses = 0 if self.progress else resident.losses
        if status is resident.stored and losses == resident.losses:
            return
        resident.stored = status
        env, run_id, turn = resident.env, resident.run_id, resident.turn
        self.status = Move(env, run_id, turn, turn, int(status), 0, session.id, losses, None, "", None)

    @property
    def progress(self) -> bool:
        """What counts against a run that is lost with its worker again and again (H13)."""
        return bool(self.outcomes or self.numbers)

    def commit(self, node: Node, environment: Environment, session: Session) -> Commit:
        """The Commit that makes the draft durable."""
        resident = self.resident
        env = resident.env
        run_id = resident.run_id
        commit = Commit(env, touches=(run_id,), fences=session.fence, outcomes=self.outcomes, size=self.size)
        if self.numbers is not None:
            commit.numbers = self.numbers
        if self.waits:
            commit.waits = self.waits
        if self.wait_deletes is not None:
            commit.wait_deletes = self.wait_deletes
            commit.touches = (run_id, *(f"{run_id}/{row.key}" for row in self.wait_deletes))
        if self.outcome_deletes is not None:
            commit.outcome_deletes = self.outcome_deletes
        if self.shapes is not None:
            commit.shapes = self.shapes
            commit.touches = (*commit.touches, f"registry:{env}")
        if self.children is not None:
            commit.runs = [item.run for item in self.children]
            commit.waits = [*commit.waits, *admission.opened(self.children)]
        if self.events is not None:
            self._with_events(node, environment, commit)
        if self.end is not None:
            commit.ends = (self.end,)
            ending.close_open(resident, commit)
            if self.parent is not None:
                commit.resolves = (self.parent,)
                commit.touches = (*commit.touches, f"{self.parent.run_id}/{self.parent.key}")
        elif self.moves is not None:
            commit.moves = self.moves
        elif self.released:
            commit.moves = (wake.released_move(resident, self.place),)
        elif self.status is not None:
            commit.moves = (self.status,)
        if self.cancels is not None:
            ending.order_cancels(commit, self.cancels, node.clock.now_ms(), "its parent no longer waits for it")
        # Whoever resolves one of these keys must not share a batch, nor overtake a batch tried again (H32d, H33).
        changed = (self.waits, self.numbers, self.answers, self.outcome_deletes)
        keys = [f"{run_id}/{row.key}" for rows in changed for row in rows or ()]
        keys.extend(item.run.id for item in self.children or ())
        if keys or commit.looked_back:
            commit.touches = (*commit.touches, *keys, *(f"{row.run_id}/{row.key}" for row in commit.looked_back))
        return commit

    def _with_events(self, node: Node, environment: Environment, commit: Commit) -> None:
        events = self.events or []
        accepting, starts, self.batch = ingest.accepting(node, environment, events, None, at_once=node.cluster is None)
        self.accepted = starts
        commit.events = accepting.events
        commit.cursors = accepting.cursors
        commit.cursor_deletes = accepting.cursor_deletes
        commit.looked_back = accepting.looked_back
        commit.runs = [*commit.runs, *accepting.runs]
        commit.waits = [*commit.waits, *accepting.waits]


def together(drafts: Sequence[Draft], session: Session) -> Commit:
    """One Commit for drafts that are plain: they share the session's fence, and nothing else decides about them."""
    outcomes: list[OutcomeRow] = []
    ends: list[End] = []
    moves: list[Move] = []
    size = 0
    for draft in drafts:
        outcomes += draft.outcomes
        size += draft.size
        if draft.end is not None:
            ends.append(draft.end)
        elif draft.status is not None:
            moves.append(draft.status)
    commit = Commit(
        session.row.env,
        touches=tuple([draft.resident.run_id for draft in drafts]),
        fences=session.fence,
        size=size,
        outcomes=outcomes,
    )
    if ends:
        commit.ends = ends
    if moves:
        commit.moves = moves
    return commit
