"""One Commit inside an open transaction on Postgres, step by step: for rare arms, and to look again at a loser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stepwell_server.adapters.sql.arms import ARMS, BY_FIELD, CLAIM, DECIDES, FIELDS, RUN_STANDS, Arm, Kind, stands
from stepwell_server.adapters.sql.postgres_apply import Arrivals, arm_values
from stepwell_server.adapters.sql.postgres_link import Connection
from stepwell_server.adapters.sql.postgres_text import arm_text
from stepwell_server.model.claim import ClaimRow
from stepwell_server.model.commit import APPLIED, FENCED, LOST, Commit, CommitResult, Decider, Verdict
from stepwell_server.model.event import DedupRow
from stepwell_server.model.journal import OutcomeRow
from stepwell_server.model.run import End, Move, RunRow, Take
from stepwell_server.model.session import Fence, LeaseRow, LeaseWrite, SessionRow, SessionWrite

_FENCE = "SELECT 1 FROM sessions WHERE env = $1 AND id = $2 AND epoch = $3 AND closed_ms IS NULL FOR SHARE"
_CLOSE = "DELETE FROM waits WHERE env = $1 AND run_id = $2 AND key = $3"
_OUTCOME = "SELECT kind, output, failure, event_id, attempt FROM outcomes WHERE env = $1 AND run_id = $2 AND key = $3"


def _upsert(row: type[Any], table: str, key: tuple[str, ...], guard: str) -> str:
    columns = row._fields
    values = ", ".join(f"${n + 1}" for n in range(len(columns)))
    rest = [column for column in columns if column not in key]
    return (
        f"INSERT INTO {table} AS t ({', '.join(columns)}) VALUES ({values}) "
        f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {', '.join(f'{c} = excluded.{c}' for c in rest)} WHERE {guard}"
    )


def _update(row: type[Any], table: str, key: tuple[str, ...], guard: str) -> str:
    numbered = [(column, f"${n + 1}") for n, column in enumerate(row._fields)]
    changes = ", ".join(f"{column} = {n}" for column, n in numbered if column not in key)
    place = " AND ".join(f"{column} = {n}" for column, n in numbered if column in key)
    return f"UPDATE {table} AS t SET {changes} WHERE {place} AND {guard}"


_SESSION_GUARD = f"t.epoch = ${len(SessionRow._fields) + 1}"
_OPEN_SESSION = _upsert(SessionRow, "sessions", ("env", "id"), _SESSION_GUARD)
_WRITE_SESSION = _update(SessionRow, "sessions", ("env", "id"), _SESSION_GUARD)
_LEASE_GUARD = f"t.holder = ${len(LeaseRow._fields) + 1} AND t.beat = ${len(LeaseRow._fields) + 2}"
_TAKE_LEASE = _upsert(LeaseRow, "leases", ("name",), _LEASE_GUARD)
_WRITE_LEASE = _update(LeaseRow, "leases", ("name",), _LEASE_GUARD)


async def apply_alone(db: Connection, commit: Commit, arrivals: Arrivals) -> CommitResult:
    """Decides a Commit; each statement sees what others have committed by then."""
    for fence in sorted(commit.fences):
        if not await holds(db, fence):
            return FENCED
    if commit.decider is not None:
        result = await _decide(db, commit.decider, arrivals)
        if result is not APPLIED:
            return result
    for arm, rows in zip(ARMS, FIELDS(commit), strict=True):
        if arm.conflict == "DO NOTHING" and arm.kind is not Kind.UPDATE:
            if rows:
                await _run(db, arm, rows, arrivals)
        else:
            # A statement takes a key of an upsert once, and of two changes of a row one, whichever it likes.
            for row in rows:
                await _run(db, arm, [row], arrivals)
    return APPLIED


async def holds(db: Connection, fence: Fence) -> bool:
    """Whether a fence holds; it then does until the transaction is over."""
    return await db.fetchrow(_FENCE, *fence) is not None


async def _run(db: Connection, arm: Arm, rows: Sequence[tuple[Any, ...]], arrivals: Arrivals) -> int:
    """Applies rows of an arm; how many changed something."""
    status = await db.execute(arm_text(arm.field), *arm_values(arm, rows, arrivals))
    return int(status.rsplit(" ", 1)[-1])


async def _decide(db: Connection, decider: Decider, arrivals: Arrivals) -> CommitResult:
    match decider:
        case DedupRow():
            return await _dedup(db, decider, arrivals)
        case Move() | Take() | End():
            won = await _run(db, BY_FIELD[DECIDES[type(decider)]], [decider], arrivals) > 0 or await _stands(
                db, decider
            )
        case ClaimRow():
            won = await _run(db, BY_FIELD["claims"], [decider], arrivals) > 0 or await _claimed(db, decider)
        case OutcomeRow():
            won = await _resolve(db, decider, arrivals)
        case SessionWrite(expect_epoch=epoch, row=row):
            sql = _WRITE_SESSION if epoch else _OPEN_SESSION
            won = await _wrote(db, sql, *row, epoch) or await _there(db, row, "sessions", "env = $1 AND id = $2", 2)
        case LeaseWrite(expect_holder=holder, expect_beat=beat, row=row):
            sql = _TAKE_LEASE if (holder, beat) == ("", 0) else _WRITE_LEASE
            won = await _wrote(db, sql, *row, holder, beat) or await _there(db, row, "leases", "name = $1", 1)
    return APPLIED if won else LOST


async def _dedup(db: Connection, row: DedupRow, arrivals: Arrivals) -> CommitResult:
    if await _run(db, BY_FIELD["dedups"], [row], arrivals):
        return APPLIED
    value = await db.fetchval("SELECT value FROM dedup WHERE env = $1 AND key = $2", *row[:2])
    return APPLIED if value == row.value else CommitResult(Verdict.LOST, value or "")


async def _claimed(db: Connection, row: ClaimRow) -> bool:
    there = await db.fetchrow(CLAIM, *row[:2])
    return there is not None and tuple(there) == row


async def _stands(db: Connection, change: Move | Take | End) -> bool:
    """Whether an earlier try of the same change was applied."""
    run = await db.fetchrow(RUN_STANDS, *change[:2])
    return run is not None and stands(change, RunRow._make(run))


async def _resolve(db: Connection, row: OutcomeRow, arrivals: Arrivals) -> bool:
    there = await db.fetchrow(_OUTCOME, *row[:3])
    if there is None:
        # The wait's row is the lock: whoever deletes it inserts the outcome, and the others see that one.
        if await _run(db, BY_FIELD["resolves"], [row], arrivals):
            return True
        there = await db.fetchrow(_OUTCOME, *row[:3])
    if there is not None:
        await db.execute(_CLOSE, *row[:3])
    return there is not None and tuple(there) == (row.kind, row.output, row.failure, row.event_id, row.attempt)


async def _wrote(db: Connection, sql: str, *values: Any) -> bool:
    return not (await db.execute(sql, *values)).endswith(" 0")


async def _there(db: Connection, row: tuple[Any, ...], table: str, where: str, width: int) -> bool:
    """Whether the row stands already as it would be left."""
    there = await db.fetchrow(f"SELECT {', '.join(_fields(row))} FROM {table} WHERE {where}", *row[:width])
    return there is not None and tuple(there) == tuple(row)


def _fields(row: Any) -> tuple[str, ...]:
    return row._fields
