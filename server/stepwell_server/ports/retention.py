"""What is no longer kept goes, in small transactions off the path of commits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Expiry(NamedTuple):
    """Runs of this status that ended before this time are no longer kept."""

    status: int
    before_ms: int


class Oldest(NamedTuple):
    """The first id of each kind that an environment holds; "" where it holds none."""

    cursor: str
    run: str


class Page(NamedTuple):
    """What became of a page. last: the last id looked at; "" once there was nothing more. removed: of those."""

    last: str
    removed: int


class Retention(Protocol):
    """Deletes by id, in pages. Safe to repeat, and to stop anywhere. Raises as Store."""

    async def oldest(self, env: str) -> Oldest:
        """Where cursors and runs begin."""
        ...

    async def forget_runs(self, env: str, after: str, before: str, expiries: Sequence[Expiry], limit: int) -> Page:
        """Looks at runs with ids between two, at most limit, and deletes those that have expired, with all they have.

        Never a live run. A transaction deletes at most limit outcomes, or limit runs; a run's row goes last.
        """
        ...

    async def forget_events(self, env: str, after: str, before: str, limit: int) -> Page:
        """Looks at events with ids between two, at most limit, and deletes those that are part of no run's batch."""
        ...
