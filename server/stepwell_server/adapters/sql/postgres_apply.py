"""What a batch of Commits does to Postgres: one statement for the plain ones, a transaction for the rare ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, repeat
from operator import itemgetter
from typing import Any

from stepwell_server.adapters.sql.arms import ARMS, DECIDES, FIELDS, Arm
from stepwell_server.adapters.sql.postgres_text import Shape, batch_text
from stepwell_server.model.claim import ClaimRow
from stepwell_server.model.commit import Commit
from stepwell_server.model.event import DedupRow
from stepwell_server.model.journal import OutcomeRow
from stepwell_server.model.run import End, Move, Take
from stepwell_server.model.session import Fence

# Fields of a Commit whose operations may meet in one row; siblings in one statement would not see each other.
_RUN_FIELDS = ("moves", "takes", "enqueues", "relines", "ends")
# Rows that are locked one after the other, in the order of their places, so that two batches cannot lock crosswise.
_LOCKED_FIELDS = (*_RUN_FIELDS, "claims", "claim_ends")
_PLACE: Callable[[tuple[Any, ...]], Any] = itemgetter(0, 1)
_OUTCOME_FIELDS = ("outcomes", "resolves", "numbers", "outcome_deletes")
_WAIT_FIELDS = ("waits", "resolves", "looked_back", "wait_deletes")
_CURSOR_FIELDS = ("cursors", "cursor_deletes")

Statement = tuple[str, list[Any], int]
"""Text, parameters, operations."""


class Arrivals:
    """Numbers outcomes in the order of insertion: by the clock, in nanoseconds, and never backwards in one process."""

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        self._clock_ns = clock_ns
        self._last = 0

    def take(self, count: int) -> int:
        """The number before the first of so many."""
        first = max(self._last, self._clock_ns())
        self._last = first + count
        return first


def is_plain(commit: Commit) -> bool:
    """Whether a Commit can share a statement: no rare arm, and no two of its operations in one row."""
    decider = commit.decider
    if decider is not None and type(decider) not in DECIDES:
        return False
    if commit.deployments or commit.shapes or commit.switches or commit.settings:
        return False
    if (commit.dedups or commit.claims or commit.claim_ends or commit.members) and not _upserts_once(commit):
        return False
    runs: list[Any] = [(row.env, row.id) for row in commit.runs]
    keys: list[Any] = []
    if isinstance(decider, Move | Take | End):
        runs.append(decider[:2])
    elif isinstance(decider, OutcomeRow):
        keys.append(decider[:3])
    changed = commit.moves or commit.takes or commit.enqueues or commit.relines or commit.ends
    if (changed or len(runs) > 1) and not _disjoint(commit, _RUN_FIELDS, 2, runs):
        return False
    seen = commit.numbers or commit.outcome_deletes or commit.resolves or keys
    if seen and not _disjoint(commit, _OUTCOME_FIELDS, 3, keys):
        return False
    closed = commit.wait_deletes or commit.looked_back or commit.resolves or keys
    if closed and not _disjoint(commit, _WAIT_FIELDS, 3, keys):
        return False
    return not (commit.cursors and commit.cursor_deletes) or _disjoint(commit, _CURSOR_FIELDS, 2, [])


def _disjoint(commit: Commit, fields: Sequence[str], width: int, taken: list[Any]) -> bool:
    """Whether no two operations of these fields have one key: their first columns."""
    keys = [*taken, *(row[:width] for field in fields for row in getattr(commit, field))]
    return len(keys) < 2 or len(set(keys)) == len(keys)


def _upserts_once(commit: Commit) -> bool:
    """An upsert, unlike an insert, fails where a statement brings a key twice."""
    for kind, rows in ((DedupRow, commit.dedups), (ClaimRow, (*commit.claims, *commit.claim_ends))):
        keys: list[Any] = [row[:2] for row in rows]
        if isinstance(commit.decider, kind):
            keys.append(commit.decider[:2])
        if len(set(keys)) < len(keys):
            return False
    return not commit.members or _disjoint(commit, ("members",), 3, [])


def decider_key(commit: Commit) -> tuple[str, ...] | None:
    """What a plain Commit's decider writes; None without one. Of two with the same key only one fits a statement."""
    decider = commit.decider
    if decider is None:
        return None
    if isinstance(decider, OutcomeRow):
        return decider[:3]
    if isinstance(decider, DedupRow | ClaimRow):
        return (DECIDES[type(decider)], *decider[:2])
    assert isinstance(decider, Move | Take | End), decider
    return ("run", *decider[:2])


def batch_statement(commits: Sequence[Commit], arrivals: Arrivals, owner: Fence | None = None) -> Statement | None:
    """The statement and parameters for plain Commits; None if there is nothing to write or check."""
    values: list[Any] = [] if owner is None else [*owner, len(commits) - 1]
    fenced = _fences(commits, values)
    deciders: dict[str, list[tuple[int, tuple[Any, ...]]]] = {}
    for c, commit in enumerate(commits):
        decider = commit.decider
        if decider is not None:
            assert isinstance(decider, DedupRow | ClaimRow | Move | Take | End | OutcomeRow), decider
            deciders.setdefault(DECIDES[type(decider)], []).append((c, decider))
    guarded = owner is not None or fenced or bool(deciders)
    for field, rows in deciders.items():
        if field in _LOCKED_FIELDS:
            rows.sort(key=lambda decided: _PLACE(decided[1]))
        values.append([c for c, _ in rows])
        _columns([row for _, row in rows], values)
        if field == "resolves":
            values.append(arrivals.take(len(rows)))
    fields: list[str] = []
    count = sum(map(len, deciders.values()))
    for arm, parts in zip(ARMS, zip(*map(FIELDS, commits), strict=True), strict=True):
        rows: list[tuple[Any, ...]] = list(chain.from_iterable(parts))
        if not rows:
            continue
        fields.append(arm.field)
        count += len(rows)
        ordinals = chain.from_iterable(map(repeat, range(len(parts)), map(len, parts))) if guarded else repeat(0)
        if arm.field in _LOCKED_FIELDS and len(rows) > 1:
            order = sorted(zip(rows, ordinals, strict=False), key=lambda pair: _PLACE(pair[0]))
            rows = [row for row, _ in order]
            ordinals = [c for _, c in order]
        if guarded:
            values.append(list(ordinals))
        _arm(arm, rows, values, arrivals)
    if not (fields or guarded):
        return None
    return batch_text(Shape(owner is not None, fenced, tuple(deciders), tuple(fields))), values, count


def arm_values(arm: Arm, rows: Sequence[tuple[Any, ...]], arrivals: Arrivals) -> list[Any]:
    """Parameters of one arm alone."""
    values: list[Any] = []
    _arm(arm, rows, values, arrivals)
    return values


def _arm(arm: Arm, rows: Sequence[tuple[Any, ...]], values: list[Any], arrivals: Arrivals) -> None:
    """Appends the parameters of an arm."""
    _columns(rows, values)
    if arm.row is OutcomeRow:
        values.append(arrivals.take(len(rows)))


def _columns(rows: Sequence[tuple[Any, ...]], values: list[Any]) -> None:
    values.extend(zip(*rows, strict=True))


def _fences(commits: Sequence[Commit], values: list[Any]) -> bool:
    """Each session once, in one order so that two batches cannot lock crosswise; then who needs which."""
    sessions = sorted({fence for commit in commits for fence in commit.fences})
    if not sessions:
        return False
    place: dict[Fence, int] = {fence: k for k, fence in enumerate(sessions)}
    values.append(list(range(len(sessions))))
    _columns(sessions, values)
    users = [(c, place[fence]) for c, commit in enumerate(commits) for fence in commit.fences]
    _columns(users, values)
    return True
