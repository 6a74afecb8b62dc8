"""Who may execute: slots of limits, and the pace of starts. What it knows can be lost, and is counted anew (H27)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from stepwell_server.model.pace import Pace


class Slot(NamedTuple):
    """A place among the runs that a limit counts. bound: how many there are, as the one who asks knows it."""

    limit: str
    bound: int


class Ask(NamedTuple):
    """A run asks for all of it at once. pace: only where it starts."""

    run_id: str
    slots: tuple[Slot, ...]
    pace: Pace | None


class Held(NamedTuple):
    """Nothing was granted. limit: which one is full. until_ms: of a pace, when it may start; else 0, until it is freed.

    spare: the other limits of the ask, which have room: somebody else who waits for them may go on.
    """

    limit: str
    until_ms: int
    spare: tuple[str, ...]


class Use(NamedTuple):
    """What is used of a limit. bound: as it was asked for last. free_ms: of a pace, when the next start is allowed."""

    limit: str
    used: int
    bound: int
    free_ms: int


Then = Callable[[Ask, Held | None], None]
Freed = Callable[[str], None]


class Limiter(Protocol):
    """Grants slots to runs. A run holds a slot of a limit once, however often it is granted or counted.

    Whoever was held by a limit without a time is called by ``freed`` once that may have room.
    """

    def listen(self, freed: Freed) -> None:
        """Whom to tell that a limit may have room."""
        ...

    def acquire(self, asks: Sequence[Ask], now_ms: int, then: Then) -> None:
        """Decides each ask, in order, and answers by a call of then: at once, or later."""
        ...

    def count(self, run_id: str, slots: Sequence[Slot]) -> None:
        """A run executes, whatever the limits say: it counts, and nothing new is granted until there is room."""
        ...

    def release(self, run_id: str, limits: Sequence[str]) -> None:
        """A run gives slots back; those that it does not hold stay."""
        ...

    def use(self, limits: Sequence[str]) -> list[Use]:
        """What is used of limits, in their order; of those of a pace when the next start is allowed."""
        ...

    def page(self, prefix: str, after: str, limit: int) -> list[Use]:
        """Limits that begin with a prefix and are used now, behind an id, by id, at most limit."""
        ...
