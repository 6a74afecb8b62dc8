"""The arms of a Commit as SQL: one entry a field, in the order of the fields; both dialects are built from it.

In every text ``t`` is the row of the table and ``v`` the row of the operation, whose columns are its fields.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from operator import attrgetter
from typing import Any

from stepwell_server.model.claim import ClaimEnd, ClaimRow, MemberRow
from stepwell_server.model.commit import Commit
from stepwell_server.model.event import CursorDelete, CursorRow, DedupRow, EventRow
from stepwell_server.model.function import DeploymentRow, ShapeRow, SwitchRow
from stepwell_server.model.journal import LookedBack, Number, OutcomeDelete, OutcomeRow, WaitDelete, WaitRow
from stepwell_server.model.limits import LIMITS
from stepwell_server.model.run import End, Enqueue, Move, PausedReason, Reline, RunRow, RunStatus, Take
from stepwell_server.model.session import SettingRow

_RUN = "t.env = v.env AND t.id = v.run_id"
_KEY = "t.env = v.env AND t.run_id = v.run_id AND t.key = v.key"
# Not "IS NULL": a plan for one row must not lead with the partial index of all such rows.
_UNSEEN = "coalesce(t.number, -1) = -1"
_LIVE = "t.ended_ms IS NULL"
_UNHELD = f"{_LIVE} AND t.session_id IS NULL AND t.status"
# Set only where the row has none.
_FIRST = (
    "started_ms = coalesce(t.started_ms, v.started_ms), "
    "deployment = CASE WHEN t.deployment = '' THEN v.deployment ELSE t.deployment END"
)
# The new row expires a fixed time from now, so this is: the old one has expired.
_EXPIRED = f"dedup.expires_ms < excluded.expires_ms - {LIMITS.dedup_ms}"


class Kind(Enum):
    """What an arm does with its rows."""

    INSERT = 1
    UPDATE = 2
    DELETE = 3
    RESOLVE = 4
    """Deletes the wait and inserts the outcome, if the wait was there."""
    REGISTER = 5
    """Inserts, and counts what is new in environments.registry_version."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One field of Commit.

    conflict: of an insert. change: of an update. where: the row that an operation means. guard: what must hold of it.
    The fields of a delete are the key of its row.
    """

    field: str
    kind: Kind
    row: type[Any]
    table: str
    conflict: str = "DO NOTHING"
    change: str = ""
    where: str = ""
    guard: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the operation's fields."""
        return self.row._fields


_RENEW = f"(env, key) DO UPDATE SET value = excluded.value, expires_ms = excluded.expires_ms WHERE {_EXPIRED}"
_SUCCEED = (
    "(env, key) DO UPDATE SET version = excluded.version, run_id = excluded.run_id, value = excluded.value, "
    "until_ms = excluded.until_ms WHERE claims.version = excluded.version - 1"
)
_JOIN = "(env, event_id, function_id) DO UPDATE SET run_id = excluded.run_id WHERE members.run_id = ''"
_MOVE = (
    "turn = v.turn, status = v.status, reason = v.reason, session_id = v.session_id, losses = v.losses, "
    f"priority = v.priority, queued_ms = v.queued_ms, failure = v.failure, {_FIRST}"
)
_TAKE = f"session_id = v.session_id, status = {RunStatus.RUNNING:d}, turn = t.turn + 1, {_FIRST}"
_END = (
    f"status = v.status, reason = {PausedReason.NONE:d}, ended_ms = v.ended_ms, output = v.output, "
    "output_encoding = v.output_encoding, failure = v.failure"
)

ARMS = (
    Arm("events", Kind.INSERT, EventRow, "events"),
    Arm("cursors", Kind.INSERT, CursorRow, "cursors"),
    Arm("runs", Kind.INSERT, RunRow, "runs"),
    Arm("outcomes", Kind.INSERT, OutcomeRow, "outcomes"),
    Arm("resolves", Kind.RESOLVE, OutcomeRow, "outcomes", where=_KEY),
    Arm("numbers", Kind.UPDATE, Number, "outcomes", change="number = v.number", where=_KEY, guard=_UNSEEN),
    Arm("outcome_deletes", Kind.DELETE, OutcomeDelete, "outcomes", where=_KEY, guard=_UNSEEN),
    Arm("waits", Kind.INSERT, WaitRow, "waits"),
    Arm("looked_back", Kind.UPDATE, LookedBack, "waits", change="after_event = NULL, failure = v.cut", where=_KEY),
    Arm("wait_deletes", Kind.DELETE, WaitDelete, "waits", where=_KEY),
    Arm("moves", Kind.UPDATE, Move, "runs", change=_MOVE, where=_RUN, guard=f"t.turn = v.expect_turn AND {_LIVE}"),
    Arm(
        "takes",
        Kind.UPDATE,
        Take,
        "runs",
        change=_TAKE,
        where=_RUN,
        guard=f"{_UNHELD} IN ({RunStatus.QUEUED:d}, {RunStatus.PARKED:d}) AND t.turn = coalesce(v.turn, t.turn)",
    ),
    Arm(
        "enqueues",
        Kind.UPDATE,
        Enqueue,
        "runs",
        change=(
            f"status = {RunStatus.QUEUED:d}, priority = v.priority, queued_ms = v.queued_ms, "
            "event_id = coalesce(v.event_id, t.event_id)"
        ),
        where=_RUN,
        guard=f"{_UNHELD} = {RunStatus.PARKED:d}",
    ),
    Arm(
        "relines",
        Kind.UPDATE,
        Reline,
        "runs",
        change="line = v.line",
        where=_RUN,
        guard=f"t.status = {RunStatus.QUEUED:d}",
    ),
    Arm("ends", Kind.UPDATE, End, "runs", change=_END, where=_RUN, guard=f"t.turn = v.turn AND {_LIVE}"),
    Arm("cursor_deletes", Kind.DELETE, CursorDelete, "cursors", where="t.env = v.env AND t.id = v.id"),
    Arm("dedups", Kind.INSERT, DedupRow, "dedup", conflict=_RENEW),
    Arm("claims", Kind.INSERT, ClaimRow, "claims", conflict=_SUCCEED),
    Arm(
        "claim_ends",
        Kind.UPDATE,
        ClaimEnd,
        "claims",
        change="run_id = '', version = t.version + 1, until_ms = v.until_ms",
        where="t.env = v.env AND t.key = v.key",
        guard="t.run_id = v.run_id",
    ),
    Arm("members", Kind.INSERT, MemberRow, "members", conflict=_JOIN),
    Arm("deployments", Kind.REGISTER, DeploymentRow, "deployments"),
    Arm("shapes", Kind.REGISTER, ShapeRow, "shapes"),
    Arm("switches", Kind.REGISTER, SwitchRow, "switches"),
    Arm("settings", Kind.INSERT, SettingRow, "settings", conflict="(name) DO UPDATE SET value = excluded.value"),
)
FIELDS: Callable[[Commit], tuple[Sequence[Any], ...]] = attrgetter(*(arm.field for arm in ARMS))
"""The rows of a Commit, in the order of ARMS."""
DECIDES: dict[type[Any], str] = {
    DedupRow: "dedups",
    Move: "moves",
    Take: "takes",
    End: "ends",
    OutcomeRow: "resolves",
    ClaimRow: "claims",
}
"""The arm of a decider that is a row; the others are SessionWrite and LeaseWrite."""
BY_FIELD = {arm.field: arm for arm in ARMS}

CLAIM = f"SELECT {', '.join(ClaimRow._fields)} FROM claims WHERE env = $1 AND key = $2"
RUN_STANDS = f"SELECT {', '.join(RunRow._fields)} FROM runs WHERE env = $1 AND id = $2"


def stands(change: Move | Take | End, run: RunRow) -> bool:
    """Whether a run stands as the change would leave it: then an earlier try of it did that."""
    match change:
        case Move():
            return run.ended_ms is None and _moved(change, run)
        case Take():
            held = (run.status, run.session_id) == (RunStatus.RUNNING, change.session_id)
            return run.ended_ms is None and held and change.turn in (None, run.turn - 1)
        case End():
            left = (change.turn, change.status, change.ended_ms, change.output, change.output_encoding, change.failure)
            return left == (run.turn, run.status, run.ended_ms, run.output, run.output_encoding, run.failure)


def _moved(move: Move, run: RunRow) -> bool:
    return (
        (run.turn, run.status, run.reason, run.session_id) == (move.turn, move.status, move.reason, move.session_id)
        and (run.losses, run.failure) == (move.losses, move.failure)
        and (run.priority, run.queued_ms) == (move.priority, move.queued_ms)
        and (move.started_ms is None or run.started_ms is not None)
        and (not move.deployment or run.deployment != "")
    )
