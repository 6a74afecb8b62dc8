"""PostgresStore: the Store port on a Postgres database, with two connections that write and up to four that read."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from stepwell_server.adapters.sql import postgres_arrays, reads
from stepwell_server.adapters.sql.postgres_alone import apply_alone, holds
from stepwell_server.adapters.sql.postgres_apply import Arrivals, batch_statement, decider_key, is_plain
from stepwell_server.adapters.sql.postgres_errors import from_postgres
from stepwell_server.adapters.sql.postgres_history import PostgresHistory
from stepwell_server.adapters.sql.postgres_link import READ_SETTINGS, WRITE_SETTINGS, Connection, Connections, Target
from stepwell_server.adapters.sql.postgres_schema import prepare
from stepwell_server.adapters.sql.retention import SqlRetention
from stepwell_server.model.claim import ClaimRow, MemberRow
from stepwell_server.model.commit import APPLIED, FENCED, Commit, CommitResult, Verdict
from stepwell_server.model.errors import InvalidError, ServerError
from stepwell_server.model.event import CursorRow, EventRow
from stepwell_server.model.function import DeploymentRow, Registry, ShapeRow, SwitchRow
from stepwell_server.model.journal import CANCEL_KEY, OutcomeRow, WaitRow
from stepwell_server.model.run import GATHERED, ReadyRow, RunRow
from stepwell_server.model.session import Fence, LeaseRow, SessionRow
from stepwell_server.ports.store import Home, Matches, Probe, RunState, Stranded, Unseen

T = TypeVar("T")
_READERS = 4
_RUN_WIDTH = len(RunRow._fields)
# Whole rows are cut to what we know: a newer build may have added columns meanwhile.
_EVENT_WIDTH = len(EventRow._fields)
_OUTCOME_WIDTH = len(OutcomeRow._fields)
_WAIT_WIDTH = len(WaitRow._fields)
_DEPLOYMENT_WIDTH = len(DeploymentRow._fields)
_SHAPE_WIDTH = len(ShapeRow._fields)
_SWITCH_WIDTH = len(SwitchRow._fields)

# One statement, so one snapshot: a wait that is resolved meanwhile is seen open or with its outcome, never as neither.
_LOAD = (
    f"SELECT {reads.columns(RunRow._fields, 'r')}, "
    "(SELECT e FROM events AS e WHERE e.env = r.env AND e.id = r.event_id), "
    "ARRAY(SELECT o FROM outcomes AS o WHERE o.env = r.env AND o.run_id = r.id "
    "ORDER BY o.number, CASE WHEN o.number IS NULL THEN o.arrived END, o.key), "
    "ARRAY(SELECT w FROM waits AS w WHERE w.env = r.env AND w.run_id = r.id ORDER BY w.key), "
    f"CASE WHEN r.input IS NULL AND r.input_encoding = '{GATHERED}' THEN ARRAY(SELECT e FROM members AS m JOIN events "
    "AS e ON e.env = m.env AND e.id = m.event_id WHERE m.env = r.env AND m.run_id = r.id ORDER BY m.event_id) END "
    "FROM runs AS r WHERE r.env = $1 AND r.id = ANY($2::text[])"
)
_CHANGES = _LOAD.replace(
    "o.run_id = r.id ", f"o.run_id = r.id AND (o.number IS NULL OR o.number > $3::bigint OR o.key = '{CANCEL_KEY}') "
)
_MATCH = (
    # Each probe looks into the index; the fence (OFFSET 0) keeps the planner from reading all waits in the final order.
    "SELECT coalesce((SELECT registry_version FROM environments WHERE env = $1), 0), ARRAY(SELECT found.wait FROM "
    "(SELECT DISTINCT * FROM unnest($2::text[], $3::text[]) AS p(target, match_key)) AS p CROSS JOIN LATERAL "
    "(SELECT w AS wait FROM waits AS w WHERE w.env = $1 AND w.target = p.target AND w.match_key = p.match_key "
    "AND w.kind = 3 OFFSET 0) AS found ORDER BY (found.wait).run_id, (found.wait).key)"
)
_REGISTRY = (
    "SELECT coalesce((SELECT registry_version FROM environments WHERE env = $1), 0), "
    "ARRAY(SELECT d FROM deployments AS d WHERE d.env = $1 ORDER BY d.created_ms, d.app, d.id), "
    "ARRAY(SELECT s FROM shapes AS s WHERE s.env = $1 ORDER BY s.event, s.path), "
    "ARRAY(SELECT w FROM switches AS w WHERE w.env = $1 ORDER BY w.at_ms, w.function_id)"
)


class PostgresStore(PostgresHistory):
    """Store and History on a database. Raises as the ports say; see ``open`` for what else.

    commits: transactions so far. rows: operations in them.
    """

    flushers = 2

    def __init__(self, target: Target) -> None:
        """Use ``open``."""
        super().__init__(Connections(target, _READERS, READ_SETTINGS))
        self.commits = 0
        self.rows = 0
        self._flushers = Connections(target, self.flushers, WRITE_SETTINGS, postgres_arrays.install)
        self._arrivals = Arrivals(time.time_ns)
        self._tidying = Connections(target, 1, WRITE_SETTINGS)
        self.retention = SqlRetention(self._fetch, self._forget)

    @classmethod
    async def open(cls, url: str) -> PostgresStore:
        """Connects, and brings the schema up.

        url: ``postgresql://user:password@host/database``.
        Raises InvalidError, CorruptError (SCHEMA_NEWER, FOREIGN_DATABASE), StateError (DATABASE_ENCODING, NO_RIGHTS),
        UnavailableError; each names the database.
        """
        target = Target.parse(url)
        store = cls(target)
        try:
            with _named(target):
                await store._flushers.run(prepare)
                await store._reads.run(lambda db: db.fetchval("SELECT 1"))
        except BaseException:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        """Ends the connections. Safe to call twice."""
        for connections in (self._flushers, self._tidying, self._reads):
            await connections.close()

    async def _forget(self, sql: str, *values: Any) -> int:
        status = await self._tidying.run(lambda db: db.execute(sql, *values))
        return int(status.rsplit(" ", 1)[-1])

    async def commit(self, commits: Sequence[Commit], owner: Fence | None = None) -> list[CommitResult]:
        results: dict[int, CommitResult] = {}
        plain: list[int] = []
        later: list[int] = []
        keys: set[tuple[str, ...]] = set()
        for c, commit in enumerate(commits):
            key = decider_key(commit) if is_plain(commit) else ()
            if key is None:
                plain.append(c)
            elif not key or key in keys:
                later.append(c)
            else:
                keys.add(key)
                plain.append(c)
        if plain:
            later += await self._together(commits, plain, results, owner)
        if later:
            await self._alone(commits, sorted(later), results, owner)
        return [results[c] for c in range(len(commits))]

    async def _together(
        self, commits: Sequence[Commit], chosen: Sequence[int], results: dict[int, CommitResult], owner: Fence | None
    ) -> list[int]:
        """Plain Commits in one statement. Returns those whose decider lost, to be looked at again."""
        statement = batch_statement([commits[c] for c in chosen], self._arrivals, owner)
        if statement is None:
            results.update((c, APPLIED) for c in chosen)
            return []
        sql, values, count = statement
        try:
            left_out = await self._flushers.run(lambda db: db.fetch(sql, *values))
        except Exception as error:
            if from_postgres(error) is not None:
                raise
            if len(chosen) == 1:
                results[chosen[0]] = _refused(error)
                return []
            # The culprit is found by halves; the others are unharmed (H32).
            half = len(chosen) // 2
            lost = await self._together(commits, chosen[:half], results, owner)
            return lost + await self._together(commits, chosen[half:], results, owner)
        self.commits += 1
        self.rows += count
        results.update((c, APPLIED) for c in chosen)
        fenced = {c for c, is_fenced in left_out if is_fenced}
        results.update((chosen[c], FENCED) for c in fenced)
        return [chosen[c] for c, is_fenced in left_out if not is_fenced and c not in fenced]

    async def _alone(
        self, commits: Sequence[Commit], chosen: Sequence[int], results: dict[int, CommitResult], owner: Fence | None
    ) -> None:
        """Commits one after the other in one transaction."""

        async def work(db: Connection) -> list[CommitResult]:
            async with db.transaction():
                if owner is not None and not await holds(db, owner):
                    return [FENCED] * len(chosen)
                return [await apply_alone(db, commits[c], self._arrivals) for c in chosen]

        try:
            answers = await self._flushers.run(work)
        except Exception as error:
            if from_postgres(error) is not None:
                raise
            if len(chosen) == 1:
                results[chosen[0]] = _refused(error)
                return
            half = len(chosen) // 2
            await self._alone(commits, chosen[:half], results, owner)
            await self._alone(commits, chosen[half:], results, owner)
            return
        self.commits += 1
        results.update(zip(chosen, answers, strict=True))

    async def purge(self, now_ms: int, limit: int) -> int:
        async def work(db: Connection) -> int:
            gone = int((await db.execute(reads.PURGE_DEDUP, now_ms, limit)).rsplit(" ", 1)[-1])
            gone += int((await db.execute(reads.PURGE_CLAIMS, now_ms, limit - gone)).rsplit(" ", 1)[-1])
            gone += int((await db.execute(reads.PURGE_SESSIONS, now_ms, limit - gone)).rsplit(" ", 1)[-1])
            return gone + int((await db.execute(reads.PURGE_LEASES)).rsplit(" ", 1)[-1])

        return await self._flushers.run(work)

    async def load(self, env: str, run_ids: Sequence[str]) -> dict[str, RunState]:
        rows = await self._fetch(_LOAD, env, list(run_ids))
        return {row[1]: _state(row) for row in rows}

    async def changes(self, env: str, run_id: str, after_number: int) -> RunState | None:
        rows = await self._fetch(_CHANGES, env, [run_id], after_number)
        return _state(rows[0]) if rows else None

    async def match(self, env: str, probes: Sequence[Probe]) -> Matches:
        targets = [probe.event for probe in probes for _ in probe.match_keys]
        keys = [key for probe in probes for key in probe.match_keys]
        ((version, waits),) = await self._fetch(_MATCH, env, targets, keys)
        return Matches(version, tuple(WaitRow._make(wait[:_WAIT_WIDTH]) for wait in waits))

    async def look_back(self, env: str, event: str, after_event: str, limit: int) -> list[EventRow]:
        return list(map(EventRow._make, await self._fetch(reads.LOOK_BACK, env, event, after_event, limit)))

    async def due(self, until_ms: int, limit: int) -> list[WaitRow]:
        return list(map(WaitRow._make, await self._fetch(reads.DUE, until_ms, limit)))

    async def ready(self, env: str, function_id: str, line: str, limit: int, lines: int = 1) -> list[ReadyRow]:
        rows = await self._fetch(reads.LINES, env, function_id, line, limit, lines)
        return list(map(ReadyRow._make, rows))

    async def registry(self, env: str) -> Registry:
        ((version, deployments, shapes, switches),) = await self._fetch(_REGISTRY, env)
        return Registry(
            env,
            version,
            tuple(DeploymentRow._make(row[:_DEPLOYMENT_WIDTH]) for row in deployments),
            tuple(ShapeRow._make(row[:_SHAPE_WIDTH]) for row in shapes),
            tuple(SwitchRow._make(row[:_SWITCH_WIDTH]) for row in switches),
        )

    async def sessions(self, env: str) -> list[SessionRow]:
        return list(map(SessionRow._make, await self._fetch(reads.SESSIONS, env)))

    async def stranded(self, limit: int, until_ms: int, after: Unseen) -> Stranded:
        async def work(db: Connection) -> Stranded:
            return Stranded(
                cursors=tuple(map(CursorRow._make, await db.fetch(reads.CURSORS, limit))),
                lookbacks=tuple(map(WaitRow._make, await db.fetch(reads.LOOKBACKS, limit))),
                inbox=tuple(map(OutcomeRow._make, await db.fetch(reads.INBOX, limit))),
                held=tuple(map(RunRow._make, await db.fetch(reads.HELD, limit))),
                unseen=tuple(map(Unseen._make, await db.fetch(reads.UNSEEN, limit, until_ms, *after))),
            )

        return await self._reads.run(work)

    async def homes(self, env: str, run_ids: Sequence[str]) -> list[Home]:
        return list(map(Home._make, await self._fetch(reads.HOMES, env, list(run_ids))))

    async def leases(self, prefix: str) -> list[LeaseRow]:
        return list(map(LeaseRow._make, await self._fetch(reads.LEASES, prefix)))

    async def lease(self, name: str) -> LeaseRow | None:
        rows = await self._fetch(reads.LEASE, name)
        return LeaseRow._make(rows[0]) if rows else None

    async def claims(self, env: str, keys: Sequence[str]) -> dict[str, ClaimRow]:
        return {row[1]: ClaimRow._make(row) for row in await self._fetch(reads.CLAIMS, env, list(keys))}

    async def joined(self, env: str, event_ids: Sequence[str]) -> list[MemberRow]:
        return list(map(MemberRow._make, await self._fetch(reads.JOINED, env, list(event_ids))))


async def on_database(url: str, work: Callable[[Connection], Awaitable[T]]) -> T:
    """Work on one connection of its own. Raises as ``PostgresStore.open``."""
    target = Target.parse(url)
    connections = Connections(target, 1, WRITE_SETTINGS)
    try:
        with _named(target):
            return await connections.run(work)
    finally:
        await connections.close()


@contextmanager
def _named(target: Target) -> Generator[None]:
    """Errors of the start say which database they are about."""
    try:
        yield
    except ServerError as error:
        if isinstance(error, InvalidError):
            raise
        raise type(error)(error.reason, f"{target.where}: {error.message}", retry_ms=error.retry_ms) from error


def _refused(error: Exception) -> CommitResult:
    return CommitResult(Verdict.REFUSED, f"{type(error).__name__}: {error}")


def _state(row: Any) -> RunState:
    values = tuple(row)
    event, outcomes, waits, events = values[_RUN_WIDTH:]
    return RunState(
        run=RunRow._make(values[:_RUN_WIDTH]),
        event=EventRow._make(event[:_EVENT_WIDTH]) if event is not None else None,
        outcomes=tuple(OutcomeRow._make(outcome[:_OUTCOME_WIDTH]) for outcome in outcomes),
        waits=tuple(WaitRow._make(wait[:_WAIT_WIDTH]) for wait in waits),
        events=tuple(EventRow._make(event[:_EVENT_WIDTH]) for event in events or ()),
    )
