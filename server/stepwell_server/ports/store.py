"""The store: one write method and the reads of the hot path; history reads for people beside it."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from stepwell_server.model.claim import ClaimRow, MemberRow
from stepwell_server.model.commit import Commit, CommitResult
from stepwell_server.model.event import CursorRow, EventRow
from stepwell_server.model.function import Registry
from stepwell_server.model.journal import OutcomeRow, WaitRow
from stepwell_server.model.run import ReadyRow, RunRow
from stepwell_server.model.session import Fence, LeaseRow, SessionRow


@dataclass(frozen=True, slots=True)
class RunState:
    """All that a re-entry needs. outcomes: by number, those without one last, in the order they were inserted.

    events: of a run that gathered many, all of them by id; else empty.
    """

    run: RunRow
    event: EventRow | None
    outcomes: tuple[OutcomeRow, ...]
    waits: tuple[WaitRow, ...]
    events: tuple[EventRow, ...] = ()


class Probe(NamedTuple):
    """Asks for the waits on an event name whose match_key is one of these."""

    event: str
    match_keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Matches:
    """The registry version in the snapshot of the read, and the waits found (kind EVENT)."""

    registry_version: int
    waits: tuple[WaitRow, ...]


class Unseen(NamedTuple):
    """An undelivered outcome, by its place."""

    env: str
    run_id: str
    key: str


FIRST = Unseen("", "", "")
"""Before all of them."""


@dataclass(frozen=True, slots=True)
class Stranded:
    """What a crash or a lost hint left behind; each list is cut at the limit asked for.

    cursors: not deleted. lookbacks: waits that have not looked back. inbox: undelivered outcomes of live runs that
    are PARKED without a session (their wake was lost). held: live runs whose session is closed or unknown. unseen: all
    undelivered outcomes that were made by a time, in the order of their places, behind one.
    """

    cursors: tuple[CursorRow, ...]
    lookbacks: tuple[WaitRow, ...]
    inbox: tuple[OutcomeRow, ...]
    held: tuple[RunRow, ...]
    unseen: tuple[Unseen, ...]


class Store(Protocol):
    """The truth. Every read sees all commits that were answered before it was called (a new snapshot).

    Raises UnavailableError when the store cannot be reached or is full; CorruptError when it is damaged. A commit that
    raised may have been applied: submit it again, unchanged (see Commit).
    """

    def commit(self, commits: Sequence[Commit], owner: Fence | None = None) -> Awaitable[list[CommitResult]]:
        """Applies many Commits in one transaction, durably; one result each. They touch disjoint rows.

        owner: the node's own fence. Where it does not hold all are FENCED: another node serves the database (H31).
        """
        ...

    async def load(self, env: str, run_ids: Sequence[str]) -> dict[str, RunState]:
        """Runs with trigger event, outcomes and waits, by id; unknown ids are missing."""
        ...

    async def match(self, env: str, probes: Sequence[Probe]) -> Matches:
        """The open event waits for these probes and the registry's version, in one snapshot."""
        ...

    async def look_back(self, env: str, event: str, after_event: str, limit: int) -> list[EventRow]:
        """Events of a name with ids greater than after_event, by id, at most limit."""
        ...

    async def due(self, until_ms: int, limit: int) -> list[WaitRow]:
        """Waits due at or before a time, in all environments, earliest first, at most limit."""
        ...

    async def ready(self, env: str, function_id: str, line: str, limit: int, lines: int = 1) -> list[ReadyRow]:
        """QUEUED runs of a function: of its first so many lines from a line on, at most limit of each, by line and in
        its order."""
        ...

    async def registry(self, env: str) -> Registry:
        """The registry of an environment; version 0 and empty if it has none."""
        ...

    async def sessions(self, env: str) -> list[SessionRow]:
        """Sessions that are not closed."""
        ...

    async def stranded(self, limit: int, until_ms: int, after: Unseen) -> Stranded:
        """What a sweep has to heal, in all environments. until_ms, after: see Stranded.unseen."""
        ...

    async def lease(self, name: str) -> LeaseRow | None:
        """A lease."""
        ...


class Claims(Protocol):
    """What the gates of functions read. Raises as Store."""

    async def claims(self, env: str, keys: Sequence[str]) -> dict[str, ClaimRow]:
        """Claims by key; unknown keys are missing. Some may be over."""
        ...

    async def joined(self, env: str, event_ids: Sequence[str]) -> list[MemberRow]:
        """The runs that events joined, by event and function."""
        ...


class Home(NamedTuple):
    """Where a live run is. node: that holds the stream of its session, or held it last; None without a session."""

    run_id: str
    function_id: str
    status: int
    losses: int
    node: str | None


class Homes(Protocol):
    """Reads that only a node needs that is not alone. Raises as Store."""

    async def homes(self, env: str, run_ids: Sequence[str]) -> list[Home]:
        """Where runs are; those that have ended, and unknown ones, are missing."""
        ...

    async def leases(self, prefix: str) -> list[LeaseRow]:
        """Leases whose names begin with this, by name."""
        ...


@dataclass(frozen=True, slots=True)
class RunFilter:
    """All must fit; empty or None fits always. before: only ids smaller than this (the page token). newest first.

    session_id: only live runs that this session holds. begun: only live runs in a line that have started. event_id:
    only runs whose id is derived from the event (it carries the event's time). payloads: with input and output.
    """

    function_id: str = ""
    app: str = ""
    statuses: tuple[int, ...] = ()
    event_id: str = ""
    parent_id: str = ""
    session_id: str = ""
    begun: bool = False
    from_ms: int | None = None
    until_ms: int | None = None
    before: str = ""
    limit: int = 50
    payloads: bool = False

    def fits(self, row: RunRow) -> bool:
        """Whether a run fits, but for its place: before and limit."""
        return (
            self.function_id in ("", row.function_id)
            and self.app in ("", row.app)
            and (not self.statuses or row.status in self.statuses)
            and (not self.event_id or (row.event_id == self.event_id and row.id[4:16] == self.event_id[4:16]))
            and self.parent_id in ("", row.parent_id)
            and (not self.session_id or (row.ended_ms is None and row.session_id == self.session_id))
            and (not self.begun or (row.line != "" and row.started_ms is not None and row.ended_ms is None))
            and (self.from_ms is None or row.created_ms >= self.from_ms)
            and (self.until_ms is None or row.created_ms < self.until_ms)
        )


class History(Protocol):
    """Reads for people. Raises as Store."""

    async def events(self, env: str, event_ids: Sequence[str]) -> list[EventRow]:
        """Events by id; unknown ids are missing."""
        ...

    async def list_events(
        self,
        env: str,
        name: str,
        from_ms: int | None,
        until_ms: int | None,
        behind: str,
        limit: int,
        *,
        oldest_first: bool = False,
    ) -> list[EventRow]:
        """Events newest first. name: "" for all; a trailing "*" matches any rest. behind: only smaller ids.

        oldest_first: the other way round, and only greater ids.
        """
        ...

    async def run(self, env: str, run_id: str) -> RunRow | None:
        """A run."""
        ...

    async def changes(self, env: str, run_id: str, after_number: int) -> RunState | None:
        """A run as Store.load answers it, but of the numbered outcomes only those behind a number, and $cancel."""
        ...

    async def list_runs(self, env: str, filter_: RunFilter) -> list[RunRow]:
        """Runs newest first; without input and output, unless the filter asks for them."""
        ...

    async def known_functions(self, env: str) -> list[str]:
        """Ids of all functions that have runs or deployments."""
        ...

    async def setting(self, name: str) -> str | None:
        """A setting."""
        ...

    async def cancel_requested(self, env: str, run_ids: Sequence[str]) -> set[str]:
        """Those of the runs whose end was asked for."""
        ...

    async def due_after(self, after_ms: int) -> int | None:
        """The earliest due time of a wait later than this."""
        ...

    async def purge(self, now_ms: int, limit: int) -> int:
        """Deletes expired dedup rows and claims, and sessions closed a day ago, at most limit, and the leases of nodes
        that have left; returns how many rows."""
        ...
