"""SqliteStore: the Store port on one SQLite file, with one thread that writes and two that read."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from stepwell_server.adapters.sql import reads, sqlite_open
from stepwell_server.adapters.sql.reads import lite
from stepwell_server.adapters.sql.retention import SqlRetention
from stepwell_server.adapters.sql.rows import run_row, wait_row, wait_rows
from stepwell_server.adapters.sql.sqlite_apply import apply
from stepwell_server.adapters.sql.sqlite_checkpoint import Checkpointer
from stepwell_server.adapters.sql.sqlite_errors import from_sqlite
from stepwell_server.adapters.sql.sqlite_history import SqliteHistory
from stepwell_server.adapters.sql.sqlite_thread import SqliteThread, Work
from stepwell_server.model.claim import ClaimRow, MemberRow
from stepwell_server.model.commit import Commit, CommitResult, Verdict
from stepwell_server.model.event import CursorRow, EventRow
from stepwell_server.model.function import DeploymentRow, Registry, ShapeRow, SwitchRow
from stepwell_server.model.journal import CANCEL_KEY, OutcomeRow, WaitRow
from stepwell_server.model.run import ReadyRow
from stepwell_server.model.session import Fence, LeaseRow, SessionRow
from stepwell_server.ports.store import Home, Matches, Probe, RunState, Stranded, Unseen

_HOMES = lite(reads.HOMES)
_LEASES = lite(reads.LEASES)
_LOOK_BACK = lite(reads.LOOK_BACK)
_DUE = lite(reads.DUE)
_NEXT_LINE = lite(reads.NEXT_LINE)
_LINE = lite(reads.LINE)
_VERSION = lite(reads.VERSION)
_DEPLOYMENTS = lite(reads.DEPLOYMENTS)
_SHAPES = lite(reads.SHAPES)
_SWITCHES = lite(reads.SWITCHES)
_SESSIONS = lite(reads.SESSIONS)
_LEASE = lite(reads.LEASE)
_RUNS = lite(f"SELECT {reads.RUN} FROM runs WHERE env = $1 AND id = ANY($2::text[])")
_RUN_EVENTS = lite(f"SELECT {reads.EVENT} FROM events WHERE env = $1 AND id = ANY($2::text[])")
# Undelivered ones last, in the order in which they were inserted: that of the rowid.
_OUTCOMES = lite(
    f"SELECT {reads.OUTCOME} FROM outcomes WHERE env = $1 AND run_id = $2 "
    "ORDER BY number IS NULL, number, CASE WHEN number IS NULL THEN rowid END, key"
)
_CHANGES = _OUTCOMES.replace("ORDER", f"AND (number IS NULL OR number > ?3 OR key = '{CANCEL_KEY}') ORDER")
_WAITS = lite(f"SELECT {reads.WAIT} FROM waits WHERE env = $1 AND run_id = $2 ORDER BY key")
_MEMBERS = lite(reads.MEMBERS)
_CLAIMS = lite(reads.CLAIMS)
_JOINED = lite(reads.JOINED)
_MATCH = lite(
    f"SELECT {reads.WAIT} FROM {reads.hinted('waits', 'waits_match')} "
    "WHERE env = $1 AND target = $2 AND match_key = $3 AND kind = 3"
)


class SqliteStore(SqliteHistory):
    """Store and History on a file. Raises as the ports say; see ``open`` for what else.

    commits: transactions so far. rows: rows they inserted, changed or deleted.
    """

    flushers = 1

    def __init__(self, path: Path, synchronous: str) -> None:
        """Use ``open``."""
        super().__init__(SqliteThread("stepwell-history", partial(sqlite_open.reader, path)))
        self.commits = 0
        self.rows = 0
        self._path = path
        self._lock: sqlite_open.FileLock | None = None
        self._writer = SqliteThread("stepwell-writer", partial(sqlite_open.writer, path, synchronous))
        self._reader = SqliteThread("stepwell-reader", partial(sqlite_open.reader, path))
        self.retention = SqlRetention(self._fetch_as, self._forget)
        self._checkpointer = Checkpointer(partial(sqlite_open.checkpointer, path))

    @classmethod
    async def open(cls, path: str | Path, synchronous: str = "FULL") -> SqliteStore:
        """Opens or creates a file, brings its schema up, and keeps others out until ``close``.

        synchronous: FULL, or NORMAL to lose the last commits (never the file) when the power fails.
        Raises StateError (DATABASE_IN_USE), CorruptError (SCHEMA_NEWER, FOREIGN_DATABASE, DATABASE_DAMAGED),
        UnavailableError.
        """
        assert synchronous in {"FULL", "NORMAL"}, synchronous
        return await asyncio.to_thread(cls._opened, Path(path), synchronous)

    @classmethod
    def _opened(cls, path: Path, synchronous: str) -> SqliteStore:
        store = cls(path.resolve(), synchronous)
        store._start()
        return store

    def _start(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise from_sqlite(error) or error from error
        self._lock = sqlite_open.FileLock(self._path)
        try:
            sqlite_open.prepare(self._path)
        except BaseException:
            self._lock.release()
            raise
        for thread in (self._writer, self._reader, self._history, self._checkpointer):
            thread.start()

    async def close(self) -> None:
        """Finishes what was begun, lets the file go. Safe to call twice."""
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        self._reader.stop()
        self._history.stop()
        self._checkpointer.stop()
        self._writer.stop()  # the last connection: SQLite copies the log back and removes it
        if self._lock:
            self._lock.release()

    def commit(self, commits: Sequence[Commit], owner: Fence | None = None) -> asyncio.Future[list[CommitResult]]:
        return self._writer.run(lambda db: self._commit(db, commits, owner))

    def _commit(self, db: sqlite3.Connection, commits: Sequence[Commit], owner: Fence | None) -> list[CommitResult]:
        """In the writer's thread."""
        if not commits:
            return []
        if self._checkpointer.tail_due:
            self._checkpointer.finish_tail(db)
        try:
            db.execute("BEGIN IMMEDIATE")
            results, rows = apply(db, commits, owner)
            db.execute("COMMIT")
        except Exception as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            if from_sqlite(error) is not None:
                raise
            if len(commits) == 1:
                return [CommitResult(Verdict.REFUSED, f"{type(error).__name__}: {error}")]
            # The culprit is found by halves; the others are unharmed (H32).
            half = len(commits) // 2
            return self._commit(db, commits[:half], owner) + self._commit(db, commits[half:], owner)
        self.commits += 1
        self.rows += rows
        self._checkpointer.wrote(rows, sum([commit.size for commit in commits]))
        return results

    async def _fetch_as(self, sql: str, *values: Any) -> list[Any]:
        return await self._fetch(lite(sql), values)

    async def _forget(self, sql: str, *values: Any) -> int:
        bound = tuple(json.dumps(value) if isinstance(value, list) else value for value in values)

        def work(db: sqlite3.Connection) -> int:
            gone = db.execute(lite(sql), bound).rowcount
            self._checkpointer.wrote(gone, 0)
            return gone

        return await self._writer.run(work)

    async def purge(self, now_ms: int, limit: int) -> int:
        def work(db: sqlite3.Connection) -> int:
            gone = db.execute(lite(reads.PURGE_DEDUP), (now_ms, limit)).rowcount
            gone += db.execute(lite(reads.PURGE_CLAIMS), (now_ms, limit - gone)).rowcount
            gone += db.execute(lite(reads.PURGE_SESSIONS), (now_ms, limit - gone)).rowcount
            gone += db.execute(reads.PURGE_LEASES).rowcount
            self._checkpointer.wrote(gone, 0)
            return gone

        return await self._writer.run(work)

    async def load(self, env: str, run_ids: Sequence[str]) -> dict[str, RunState]:
        return await self._read(lambda db: _load(db, env, run_ids, _OUTCOMES, ()))

    async def changes(self, env: str, run_id: str, after_number: int) -> RunState | None:
        work = partial(_load, env=env, run_ids=[run_id], outcomes=_CHANGES, values=(after_number,))
        return (await self._bounded(partial(_snapshot, work))).get(run_id)

    async def match(self, env: str, probes: Sequence[Probe]) -> Matches:
        def work(db: sqlite3.Connection) -> Matches:
            version = db.execute(_VERSION, (env,)).fetchone()
            found: dict[tuple[str, str], tuple[Any, ...]] = {}
            for probe in probes:
                for match_key in probe.match_keys:
                    for row in db.execute(_MATCH, (env, probe.event, match_key)):
                        found[row[1], row[2]] = row
            return Matches(version[0] if version else 0, tuple(wait_row(found[at]) for at in sorted(found)))

        return await self._read(work)

    async def look_back(self, env: str, event: str, after_event: str, limit: int) -> list[EventRow]:
        return await self._read(
            lambda db: [EventRow._make(row) for row in db.execute(_LOOK_BACK, (env, event, after_event, limit))]
        )

    async def due(self, until_ms: int, limit: int) -> list[WaitRow]:
        return await self._read(lambda db: wait_rows(db.execute(_DUE, (until_ms, limit))))

    async def ready(self, env: str, function_id: str, line: str, limit: int, lines: int = 1) -> list[ReadyRow]:
        def work(db: sqlite3.Connection) -> list[ReadyRow]:
            rows: list[ReadyRow] = []
            name = line
            for _ in range(lines):
                following = db.execute(_NEXT_LINE, (env, function_id, name)).fetchone()
                if following is None:
                    break
                rows.extend(map(ReadyRow._make, db.execute(_LINE, (env, function_id, following[0], limit))))
                name = following[0] + "\x01"  # the least text behind it that a line can be
            return rows

        return await self._read(work)

    async def registry(self, env: str) -> Registry:
        def work(db: sqlite3.Connection) -> Registry:
            version = db.execute(_VERSION, (env,)).fetchone()
            return Registry(
                env=env,
                version=version[0] if version else 0,
                deployments=tuple(DeploymentRow._make(row) for row in db.execute(_DEPLOYMENTS, (env,))),
                shapes=tuple(ShapeRow._make(row) for row in db.execute(_SHAPES, (env,))),
                switches=tuple(SwitchRow._make(row) for row in db.execute(_SWITCHES, (env,))),
            )

        return await self._read(work)

    async def sessions(self, env: str) -> list[SessionRow]:
        return await self._read(lambda db: [SessionRow._make(row) for row in db.execute(_SESSIONS, (env,))])

    async def stranded(self, limit: int, until_ms: int, after: Unseen) -> Stranded:
        def work(db: sqlite3.Connection) -> Stranded:
            return Stranded(
                cursors=tuple(CursorRow._make(row) for row in db.execute(lite(reads.CURSORS), (limit,))),
                lookbacks=tuple(wait_rows(db.execute(lite(reads.LOOKBACKS), (limit,)))),
                inbox=tuple(OutcomeRow._make(row) for row in db.execute(lite(reads.INBOX), (limit,))),
                held=tuple(run_row(row) for row in db.execute(lite(reads.HELD), (limit,))),
                unseen=tuple(map(Unseen._make, db.execute(lite(reads.UNSEEN), (limit, until_ms, *after)))),
            )

        # Beside the listings: it is the one read whose cost grows with what is live.
        return await self._bounded(partial(_snapshot, work), sqlite_open.SWEEP_DEADLINE_S)

    async def homes(self, env: str, run_ids: Sequence[str]) -> list[Home]:
        values = (env, json.dumps(list(run_ids)))
        return list(map(Home._make, await self._read(lambda db: db.execute(_HOMES, values).fetchall())))

    async def leases(self, prefix: str) -> list[LeaseRow]:
        return list(map(LeaseRow._make, await self._read(lambda db: db.execute(_LEASES, (prefix,)).fetchall())))

    async def lease(self, name: str) -> LeaseRow | None:
        row = await self._read(lambda db: db.execute(_LEASE, (name,)).fetchone())
        return LeaseRow._make(row) if row else None

    async def claims(self, env: str, keys: Sequence[str]) -> dict[str, ClaimRow]:
        values = env, json.dumps(list(keys))
        rows = await self._read(lambda db: db.execute(_CLAIMS, values).fetchall())
        return {row[1]: ClaimRow._make(row) for row in rows}

    async def joined(self, env: str, event_ids: Sequence[str]) -> list[MemberRow]:
        rows = await self._read(
            lambda db: db.execute(lite(reads.JOINED), (env, json.dumps(list(event_ids)))).fetchall()
        )
        return list(map(MemberRow._make, rows))

    async def _read(self, work: Work) -> Any:
        return await self._reader.run(partial(_snapshot, work))


def _snapshot(work: Work, db: sqlite3.Connection) -> Any:
    """One read transaction around the work, so that its statements see one state."""
    db.execute("BEGIN")
    try:
        return work(db)
    finally:
        if db.in_transaction:
            db.execute("COMMIT")


def _load(
    db: sqlite3.Connection, env: str, run_ids: Sequence[str], outcomes: str, values: tuple[int, ...]
) -> dict[str, RunState]:
    """outcomes: how those of a run are read, by env, run, and the values."""
    runs = [run_row(row) for row in db.execute(_RUNS, (env, json.dumps(list(run_ids))))]
    event_ids = list({run.event_id for run in runs if run.event_id is not None})
    events: dict[str, EventRow] = {}
    if event_ids:
        for row in db.execute(_RUN_EVENTS, (env, json.dumps(event_ids))):
            events[row[1]] = EventRow._make(row)
    return {
        run.id: RunState(
            run=run,
            event=events.get(run.event_id) if run.event_id is not None else None,
            outcomes=tuple(OutcomeRow._make(row) for row in db.execute(outcomes, (env, run.id, *values))),
            waits=tuple(wait_rows(db.execute(_WAITS, (env, run.id)))),
            events=tuple(map(EventRow._make, db.execute(_MEMBERS, (env, run.id)))) if run.gathers else (),
        )
        for run in runs
    }
