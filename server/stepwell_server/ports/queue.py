"""The order in which queued runs get a place. The store's QUEUED runs are the truth; a queue is windows on them."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from stepwell_server.model.run import ReadyRow
from stepwell_server.ports.store import RunState


class Queued(NamedTuple):
    """A queued run; state: what its first assignment needs, where that is still at hand (never started)."""

    row: ReadyRow
    state: RunState | None


class Head(NamedTuple):
    """Where the first queued run of a function stands; the lowest goes first. due: whether a refill is."""

    priority: int
    queued_ms: int
    function_id: str
    due: bool = False


class Backlog(NamedTuple):
    """What is known of a function's queued runs. oldest_ms: when the first was queued. more: the store holds more."""

    env: str
    function_id: str
    runs: int
    oldest_ms: int
    more: bool


class Watched(Protocol):
    """What a queue shows of itself."""

    def backlogs(self) -> list[Backlog]:
        """Every function with queued runs, in all environments."""
        ...

    def backlog(self, env: str, function_id: str, line: str) -> tuple[int, bool]:
        """How many runs of a line are known to wait, and whether there may be more."""
        ...

    def head(self, env: str, function_id: str) -> Head | None:
        """The head of one function; None if nothing of it is queued, or all of it rests."""
        ...

    async def refill(self, env: str, function_id: str) -> bool:
        """Reads on from the store; whether there is something to pop, or more to read."""
        ...


class Queue(Watched, Protocol):
    """Queued runs by function, and by line within one. A row is pushed after its commit; a row popped must be taken or
    put back.

    Runs go by class (see Priority); new ones take turns by line, one a round, and within a round by place. The lines of
    keys share the rounds of their environment. A line that rests costs nothing and is not popped until it is woken.
    """

    def push(self, row: ReadyRow, state: RunState | None) -> None:
        """A run was queued."""
        ...

    def pop(self, env: str, function_id: str, limit: int) -> list[Queued]:
        """The next runs of a function, in order; fewer, or none, while a refill is due."""
        ...

    def put_back(self, queued: Queued, *, rest: bool = False) -> None:
        """A popped run could not be taken now; it keeps its place. rest: its line rests from now on."""
        ...

    def wake(self, env: str, function_id: str, line: str) -> bool:
        """A line rests no more; False where it did not."""
        ...

    def learn(self, env: str, function_id: str, *, sure: bool = False) -> None:
        """The store may hold queued runs of this function that nobody pushed (after a start, or by another node).

        sure: it does, since another node says so; else a function of many lines is not read each time.
        """
        ...

    def settled(self, row: ReadyRow) -> None:
        """A popped run was taken, or is no longer queued."""
        ...

    def heads(self, env: str) -> list[Head]:
        """The head of each function with queued runs that do not rest; before all others where all is to be read."""
        ...

    def waiting(self, env: str, function_id: str) -> bool:
        """Whether the function has a head."""
        ...
