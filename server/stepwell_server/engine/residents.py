"""What a node keeps in memory of the workers whose streams it holds: sessions and their resident runs."""

from __future__ import annotations

from collections import deque
from typing import Any

from stepwell_server.model.journal import CANCEL_KEY, INNER, UNWINDING, OutcomeRow, WaitRow
from stepwell_server.model.run import RunRow, RunStatus
from stepwell_server.model.session import Fence, SessionRow
from stepwell_server.ports.link import Link
from stepwell_server.ports.store import RunState


class Tree:
    """What a parked run waits for: keys and parts, any or all of them."""

    __slots__ = ("all_of", "keys", "parts")

    def __init__(self, all_of: bool, keys: tuple[str, ...], parts: tuple[Tree, ...]) -> None:
        self.all_of = all_of
        self.keys = keys
        self.parts = parts

    def satisfied(self, came: set[str]) -> bool:
        """Whether the run can progress once these keys have outcomes."""
        parts = [key in came for key in self.keys] + [part.satisfied(came) for part in self.parts]
        return (all(parts) if self.all_of else any(parts)) or not parts

    def all_keys(self) -> set[str]:
        """Every key in the tree."""
        return set(self.keys).union(*(part.all_keys() for part in self.parts))


def base_key(key: str) -> str:
    """The step that an inbox key belongs to: "charge" of "charge#2"."""
    return key.partition("#")[0]


class Resident:
    """A run in a worker's memory, as its owner knows it.

    last_number: the last that a command named; durable: the last that is committed. unseen: outcomes sent or held
    that no command has named yet. held: outcomes that wait for a place. open: waits at the server by key.
    cancel: why it is to be unwound, if it is. consumed: events the run has taken. decided: keys that have an outcome.
    pending: keys whose outcomes the server makes and that are not durable yet. given_up: keys whose outcomes were on
    their way to the inbox when the code gave them up. stored: the status that the store shows.
    assigned_frame: the server frame of the stream that carried its Assign. limit: what a woken run waits for.
    """

    executing = True
    ended = False
    cancel: OutcomeRow | None = None
    assigned_frame = 0
    limit = ""
    last_number = 0
    durable = 0
    received = 0
    steps = 0
    journal_bytes = 0
    stored = RunStatus.RUNNING
    tree: Tree | None = None
    open: dict[str, WaitRow] | None = None
    unseen: dict[str, OutcomeRow] | None = None
    held: list[OutcomeRow] | None = None
    pending: set[str] | None = None
    given_up: set[str] | None = None
    consumed: set[str] | None = None
    decided: set[str] | None = None

    def __init__(self, session: Session, run: RunRow) -> None:
        self.session = session
        self.run = run
        self.env = run.env
        self.run_id = run.id
        self.function_id = run.function_id
        self.turn = run.turn
        self.losses = run.losses

    @classmethod
    def of(cls, session: Session, state: RunState) -> Resident:
        """A run as the store shows it."""
        resident = cls(session, state.run)
        for outcome in state.outcomes:
            if outcome.kind in UNWINDING:
                resident.cancel = outcome
            if outcome.number is None:
                resident.see(outcome)
                continue
            resident.decide(outcome.key)
            resident.steps += 1
            resident.last_number = max(resident.last_number, outcome.number)
            resident.journal_bytes += len(outcome.output or b"") + len(outcome.failure or b"")
            if outcome.event_id is not None:
                resident.consume(outcome.event_id)
        resident.durable = resident.last_number
        if state.waits:
            resident.open = {wait.key: wait for wait in state.waits}
        return resident

    def decide(self, key: str) -> None:
        """A key has its outcome."""
        if self.decided is None:
            self.decided = {key}
        else:
            self.decided.add(key)

    def is_decided(self, key: str) -> bool:
        """Whether a key has its outcome: what begins it has come twice, and changes nothing."""
        return self.decided is not None and key in self.decided

    def see(self, outcome: OutcomeRow) -> None:
        """An outcome is on its way to the code."""
        self.decide(outcome.key)
        if self.unseen is None:
            self.unseen = {}
        self.unseen[outcome.key] = outcome

    def undelivered(self) -> list[OutcomeRow]:
        """Outcomes that no command has named yet; a request to cancel is told in another way."""
        return [row for row in (self.unseen or {}).values() if row.kind not in INNER]

    def can_wake(self) -> bool:
        """Something is open at the server, or on its way, that wakes the run once it is parked."""
        return bool(self.unseen or self.pending) or any(wait.kind not in INNER for wait in (self.open or {}).values())

    def may_go_on(self) -> bool:
        """Whether what has come for the parked run is enough for it."""
        return self.tree is None or self.tree.satisfied({base_key(key) for key in self.unseen or ()})

    def may_park(self, tree: Tree, received: int) -> bool:
        """Whether a park holds: nothing that touches its tree is on its way to the worker (H16)."""
        if received >= self.received:
            return True
        return not (tree.all_keys() & {base_key(key) for key in self.unseen or ()})

    def cancel_unseen(self) -> OutcomeRow | None:
        """Why the run is to be unwound, if its code has not seen that yet."""
        return self.unseen.get(CANCEL_KEY) if self.unseen is not None else None

    def open_steps(self) -> int:
        """Keys of the code that are open."""
        return sum(wait.kind not in INNER for wait in (self.open or {}).values())

    def expect(self, key: str) -> None:
        """The server makes a key's outcome, which is not durable yet."""
        if self.pending is None:
            self.pending = set()
        self.pending.add(key)

    def give_up(self, key: str) -> None:
        """The code no longer asks for a key whose outcome is on its way."""
        if self.given_up is None:
            self.given_up = set()
        self.given_up.add(key)

    def consume(self, event_id: str) -> None:
        """The run has taken an event: no other wait of it may."""
        if self.consumed is None:
            self.consumed = set()
        self.consumed.add(event_id)


class Session:
    """A worker process whose stream this node holds, or held until just now."""

    __slots__ = (
        "capacity",
        "draining",
        "ended",
        "executing",
        "expiry",
        "fence",
        "functions",
        "heard_ms",
        "id",
        "labels",
        "late",
        "link",
        "residents",
        "row",
        "sdk",
        "spared_until_ms",
        "suspect",
        "unlike",
        "until_ms",
        "wakes",
    )

    def __init__(self, row: SessionRow, labels: tuple[tuple[str, str], ...] = ()) -> None:
        self.row = row
        self.labels = labels
        self.id = row.id
        self.fence = (Fence(row.env, row.id, row.epoch),)
        self.link: Link | None = None
        self.capacity = row.capacity
        self.executing = 0
        self.residents: dict[str, Resident] = {}
        self.wakes: deque[Resident] = deque()
        self.functions = frozenset(filter(None, row.function_ids.split(",")))
        self.draining = False
        self.late = False
        self.heard_ms = 0
        self.expiry: Any = None
        self.ended: dict[str, tuple[int, int, int]] = {}
        self.suspect: str | None = None
        self.spared_until_ms = 0
        self.unlike = 0
        self.until_ms = 0
        """Once its stream has ended: until when it may come back."""
        self.sdk = row.sdk

    def note_end(self, resident: Resident, number: int) -> None:
        """A run is over for the worker once it has read the frame that is being filled now."""
        frame = self.link.frames_sent() + 1 if self.link is not None else 0
        self.ended[resident.run_id] = (resident.turn, number, frame)

    def evict(self, resident: Resident) -> None:
        """Tells the worker to forget a run."""
        if self.link is not None:
            self.note_end(resident, 0)
            self.link.evict(resident.run_id, resident.turn)

    @property
    def free(self) -> int:
        """Places for runs that execute; none while it leaves, is not connected, or tries a suspect alone."""
        if self.link is None or self.draining or self.late or self.suspect is not None:
            return 0
        return self.capacity - self.executing
