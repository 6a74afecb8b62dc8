"""The order in which queued runs get a place. The store's QUEUED runs are the truth; a queue is a window on them."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from stepwell_server.model.run import ReadyRow
from stepwell_server.ports.store import RunState


class Queued(NamedTuple):
    """A queued run; state: what its first assignment needs, where that is still at hand (never started)."""

    row: ReadyRow
    state: RunState | None


class Head(NamedTuple):
    """Where the first queued run of a function stands; the lowest goes first."""

    priority: int
    queued_ms: int
    function_id: str


class Backlog(NamedTuple):
    """What is known of a function's queued runs. oldest_ms: when the first was queued. more: the store holds more."""

    env: str
    function_id: str
    runs: int
    oldest_ms: int
    more: bool


class Watched(Protocol):
    """A queue that shows itself to those who watch it."""

    def backlogs(self) -> list[Backlog]:
        """Every function with queued runs, in all environments."""
        ...

    async def refill(self, env: str, function_id: str) -> int:
        """See Queue."""
        ...


class Queue(Protocol):
    """Queued runs by function. A row is pushed after its commit; a row popped must be taken or put back."""

    def push(self, row: ReadyRow, state: RunState | None) -> None:
        """A run was queued."""
        ...

    def pop(self, env: str, function_id: str, limit: int) -> list[Queued]:
        """The next runs of a function, in order; fewer, or none, while a refill is due."""
        ...

    def put_back(self, queued: Queued) -> None:
        """A popped run could not be taken now; it keeps its place."""
        ...

    def learn(self, env: str, function_id: str) -> None:
        """The store may hold queued runs of this function that nobody pushed (after a start, or by another node)."""
        ...

    def settled(self, env: str, function_id: str, run_id: str) -> None:
        """A popped run was taken, or is no longer queued."""
        ...

    def waiting(self, env: str, function_id: str) -> bool:
        """Runs of the function are queued."""
        ...

    def heads(self, env: str) -> list[Head]:
        """The head of each function with queued runs; before all others where a refill is due."""
        ...

    def head(self, env: str, function_id: str) -> Head | None:
        """The head of one function; None if nothing of it is queued."""
        ...

    async def refill(self, env: str, function_id: str) -> int:
        """Reads on from the store if the window runs low; returns how many runs came in."""
        ...
