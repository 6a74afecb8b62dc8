"""What a batch of Commits does to a SQLite database, inside a transaction that the caller opened."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, TypeVar

from stepwell_server.adapters.sql.arms import ARMS, BY_FIELD, CLAIM, DECIDES, FIELDS, RUN_STANDS, Arm, Kind, stands
from stepwell_server.adapters.sql.reads import lite
from stepwell_server.model.claim import ClaimRow
from stepwell_server.model.commit import APPLIED, FENCED, LOST, Commit, CommitResult, Decider, Verdict
from stepwell_server.model.event import DedupRow
from stepwell_server.model.journal import OutcomeRow
from stepwell_server.model.run import End, Move, RunRow, Take
from stepwell_server.model.session import Fence, LeaseRow, LeaseWrite, SessionRow, SessionWrite

Row = TypeVar("Row", bound=tuple[Any, ...])

# Rows of one statement: the interpreter's lock is passed once a statement, not once a row.
_CHUNKS = (64, 16, 4, 1)


def apply(
    db: sqlite3.Connection, commits: Sequence[Commit], owner: Fence | None = None
) -> tuple[list[CommitResult], int]:
    """Decides each Commit and applies those that win; also how many rows they wrote."""
    if owner is not None and not _holds(db, owner):
        return [FENCED] * len(commits), 0
    before = db.total_changes
    results: list[CommitResult] = []
    winners: list[Commit] = []
    held: dict[Fence, bool] = {}  # a batch has many Commits and few sessions
    taken = _take_all(db, [c.decider for c in commits if isinstance(c.decider, Take) and not c.fences])
    for commit in commits:
        result = APPLIED
        for fence in commit.fences:
            if fence not in held:
                held[fence] = _holds(db, fence)
        if commit.fences and not all(map(held.__getitem__, commit.fences)):
            result = FENCED
        elif commit.decider is not None and commit.decider not in taken:
            result = _decide(db, commit.decider)
            if isinstance(commit.decider, SessionWrite):
                held.clear()
        results.append(result)
        if result is APPLIED:
            winners.append(commit)
    for arm, parts in zip(ARMS, zip(*map(FIELDS, winners), strict=True), strict=False):
        rows = list(chain.from_iterable(parts))
        if rows:
            _follow(db, arm, rows)
    return results, db.total_changes - before


def _take_all(db: sqlite3.Connection, takes: Sequence[Take]) -> set[Take]:
    """Many assignments at once; those that won."""
    won: set[Take] = set()
    for part in _parts(takes):
        (sql,), values = _bound("takes", part)
        ids = {row[0] for row in db.execute(sql + " RETURNING id", values)}
        won.update(take for take in part if take.run_id in ids)
    return won


def _follow(db: sqlite3.Connection, arm: Arm, rows: Sequence[tuple[Any, ...]]) -> None:
    if arm.kind is Kind.REGISTER:
        _register(db, arm, rows)
        return
    for part in _parts(rows):
        statements, values = _bound(arm.field, part)
        for sql in statements:
            db.execute(sql, values)


def _parts(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    start, left = 0, len(rows)
    for size in _CHUNKS:
        while left >= size:
            yield rows[start : start + size]
            start += size
            left -= size


def _bound(field: str, rows: Sequence[tuple[Any, ...]]) -> tuple[tuple[str, ...], Sequence[Any]]:
    """The statements for these rows and their values: what is the same in every row is bound once."""
    count = len(rows)
    if count == 1:
        values: Sequence[Any] = rows[0]
        same: tuple[bool, ...] | None = None
    else:
        columns = list(zip(*rows, strict=True))
        same = tuple([column[-1] == column[0] and column.count(column[0]) == count for column in columns])
        varying = [column for column, is_same in zip(columns, same, strict=True) if not is_same]
        values = [column[0] for column, is_same in zip(columns, same, strict=True) if is_same]
        values += chain.from_iterable(zip(*varying, strict=True))
    _check(values)
    return _statements(field, count, same), values


def _check(values: Sequence[Any]) -> None:
    """Postgres cannot store a NUL, so no store does (H32)."""
    if "\0" in "".join([value for value in values if value.__class__ is str]):
        raise ValueError("text with a NUL character")


def _register(db: sqlite3.Connection, arm: Arm, rows: Sequence[tuple[Any, ...]]) -> None:
    """Each new row raises the version of its environment."""
    for row in rows:
        if _change(db, arm, row):
            db.execute(
                "INSERT INTO environments (env, registry_version) VALUES (?, 1) "
                "ON CONFLICT (env) DO UPDATE SET registry_version = registry_version + 1",
                row[:1],
            )


def _change(db: sqlite3.Connection, arm: Arm, row: tuple[Any, ...]) -> bool:
    """Applies one operation; whether it changed something."""
    _check(row)
    before = db.total_changes
    for sql in _statements(arm.field, 1, None):
        db.execute(sql, row)
    return db.total_changes > before


@lru_cache(1_024)
def _statements(field: str, size: int, same: tuple[bool, ...] | None) -> tuple[str, ...]:
    """The statements of an arm for so many rows; each takes all their values, as _bound puts them."""
    arm = BY_FIELD[field]
    columns = ", ".join(arm.columns)
    values = _places(size, same or (False,) * len(arm.columns))
    rows = f"WITH v({columns}) AS (VALUES {values})"
    match arm.kind:
        case Kind.INSERT | Kind.REGISTER:
            return (f"INSERT INTO {arm.table} ({columns}) VALUES {values} ON CONFLICT {arm.conflict}",)
        case Kind.UPDATE:
            guard = f" AND {arm.guard}" if arm.guard else ""
            return (f"{rows} UPDATE {arm.table} AS t SET {arm.change} FROM v WHERE {arm.where}{guard}",)
        case Kind.DELETE:
            guard = f" AND {arm.guard}" if arm.guard else ""
            return (f"{rows} DELETE FROM {arm.table} AS t WHERE ({columns}) IN (SELECT {columns} FROM v){guard}",)
        case Kind.RESOLVE:
            return (
                f"{rows} INSERT INTO outcomes ({columns}) SELECT {columns} FROM v "
                f"WHERE EXISTS (SELECT 1 FROM waits AS t WHERE {arm.where}) ON CONFLICT DO NOTHING",
                f"{rows} DELETE FROM waits WHERE (env, run_id, key) IN (SELECT env, run_id, key FROM v)",
            )


def _places(size: int, same: tuple[bool, ...]) -> str:
    """The rows of VALUES: first the numbers of what is the same in every row, then those of the rest, row by row."""
    shared, own = iter(range(1, sum(same) + 1)), sum(same)
    marks = [f"?{next(shared)}" if is_same else "" for is_same in same]
    rows: list[str] = []
    for _ in range(size):
        row: list[str] = []
        for mark in marks:
            own += not mark
            row.append(mark or f"?{own}")
        rows.append(f"({', '.join(row)})")
    return ", ".join(rows)


def _holds(db: sqlite3.Connection, fence: Fence) -> bool:
    _check(fence)
    sql = "SELECT 1 FROM sessions WHERE env = ? AND id = ? AND epoch = ? AND closed_ms IS NULL"
    return db.execute(sql, fence).fetchone() is not None


def _decide(db: sqlite3.Connection, decider: Decider) -> CommitResult:
    match decider:
        case DedupRow():
            return _dedup(db, decider)
        case Move() | Take() | End():
            won = _change(db, BY_FIELD[DECIDES[type(decider)]], decider) or _stands(db, decider)
        case ClaimRow():
            won = _change(db, BY_FIELD["claims"], decider) or db.execute(lite(CLAIM), decider[:2]).fetchone() == decider
        case OutcomeRow():
            won = _resolve(db, decider)
        case SessionWrite():
            won = _write_session(db, decider)
        case LeaseWrite():
            won = _write_lease(db, decider)
    return APPLIED if won else LOST


def _dedup(db: sqlite3.Connection, row: DedupRow) -> CommitResult:
    if _change(db, BY_FIELD["dedups"], row):
        return APPLIED
    (value,) = db.execute("SELECT value FROM dedup WHERE env = ? AND key = ?", row[:2]).fetchone()
    return APPLIED if value == row.value else CommitResult(Verdict.LOST, value)


def _stands(db: sqlite3.Connection, change: Move | Take | End) -> bool:
    """Whether an earlier try of the same change was applied."""
    there = db.execute(lite(RUN_STANDS), change[:2]).fetchone()
    return there is not None and stands(change, RunRow._make(there))


def _resolve(db: sqlite3.Connection, row: OutcomeRow) -> bool:
    sql = "SELECT kind, output, failure, event_id, attempt FROM outcomes WHERE env = ? AND run_id = ? AND key = ?"
    there = db.execute(sql, row[:3]).fetchone()
    if there is not None:
        db.execute("DELETE FROM waits WHERE env = ? AND run_id = ? AND key = ?", row[:3])
        return there == (row.kind, row.output, row.failure, row.event_id, row.attempt)
    return _change(db, BY_FIELD["resolves"], row)


def _write_session(db: sqlite3.Connection, write: SessionWrite) -> bool:
    row = write.row
    there = db.execute(f"SELECT {', '.join(SessionRow._fields)} FROM sessions WHERE env = ? AND id = ?", row[:2])
    found = there.fetchone()
    if (found[2] if found else 0) != write.expect_epoch:
        return found == row
    _check(row)
    db.execute(f"REPLACE INTO sessions ({', '.join(row._fields)}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", row)
    return True


def _write_lease(db: sqlite3.Connection, write: LeaseWrite) -> bool:
    row = write.row
    there = db.execute(f"SELECT {', '.join(LeaseRow._fields)} FROM leases WHERE name = ?", row[:1]).fetchone()
    if (there[1:3] if there else ("", 0)) != (write.expect_holder, write.expect_beat):
        return there == row
    _check(row)
    db.execute(f"REPLACE INTO leases ({', '.join(row._fields)}) VALUES (?,?,?,?)", row)
    return True
