"""MemoryStore: Store and History over plain dictionaries; the oracle that the SQL stores are compared with."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from stepwell_server.adapters.memory.decide import decide, holds
from stepwell_server.adapters.memory.disjoint import assert_disjoint
from stepwell_server.adapters.memory.history import MemoryHistory
from stepwell_server.adapters.memory.refuse import refusal
from stepwell_server.adapters.memory.retention import MemoryRetention
from stepwell_server.adapters.memory.tables import Tables
from stepwell_server.model.claim import ClaimRow, MemberRow
from stepwell_server.model.commit import FENCED, Commit, CommitResult, Verdict
from stepwell_server.model.event import EventRow
from stepwell_server.model.function import Registry
from stepwell_server.model.journal import CANCEL_KEY, OutcomeRow, WaitRow
from stepwell_server.model.run import ReadyRow, RunRow, RunStatus
from stepwell_server.model.session import Fence, LeaseRow, SessionRow
from stepwell_server.ports.store import Home, Matches, Probe, RunState, Stranded, Unseen


class MemoryStore(MemoryHistory):
    """Store and History. Nothing awaits while rows change, so every batch is atomic.

    flushers: how many batches the lane may have in flight. commits: batches applied; rows: rows written.
    """

    flushers = 1

    def __init__(self) -> None:
        self.tables = Tables()
        self.retention = MemoryRetention(self.tables)
        self.commits = 0

    @property
    def rows(self) -> int:
        return self.tables.rows

    async def close(self) -> None:
        """Nothing to let go of; the SQL stores have connections."""

    async def commit(self, commits: Sequence[Commit], owner: Fence | None = None) -> list[CommitResult]:
        assert_disjoint(commits)
        if owner is not None and not holds(self.tables, owner):
            return [FENCED] * len(commits)
        self.commits += 1
        return [self._commit(commit) for commit in commits]

    def _commit(self, commit: Commit) -> CommitResult:
        why = refusal(commit)
        return CommitResult(Verdict.REFUSED, why) if why else decide(self.tables, commit)

    async def load(self, env: str, run_ids: Sequence[str]) -> dict[str, RunState]:
        found = self.tables.run
        return {id_: self._state(found[env, id_]) for id_ in run_ids if (env, id_) in found}

    async def changes(self, env: str, run_id: str, after_number: int) -> RunState | None:
        run = self.tables.run.get((env, run_id))
        if run is None:
            return None
        state = self._state(run)
        kept = (
            row for row in state.outcomes
            if row.number is None or row.number > after_number or row.key == CANCEL_KEY
        )  # fmt: skip
        return replace(state, outcomes=tuple(kept))

    def _state(self, run: RunRow) -> RunState:
        at = (run.env, run.id)
        outcomes = self.tables.outcome.get(at, {}).values()
        numbered = sorted(
            ((row.number, row.key, row) for row in outcomes if row.number is not None), key=lambda item: item[:2]
        )
        return RunState(
            run=run,
            event=self.tables.event.get((run.env, run.event_id)) if run.event_id is not None else None,
            outcomes=(*(row for _, _, row in numbered), *(row for row in outcomes if row.number is None)),
            waits=tuple(sorted(self.tables.wait.get(at, {}).values(), key=lambda row: row.key)),
            events=tuple(self._joined(run)) if run.gathers else (),
        )

    def _joined(self, run: RunRow) -> Iterable[EventRow]:
        for event_id in self.tables.members.get((run.env, run.id), ()):
            event = self.tables.event.get((run.env, event_id))
            if event is not None:
                yield event

    async def claims(self, env: str, keys: Sequence[str]) -> dict[str, ClaimRow]:
        return {key: self.tables.claim[env, key] for key in keys if (env, key) in self.tables.claim}

    async def joined(self, env: str, event_ids: Sequence[str]) -> list[MemberRow]:
        wanted = set(event_ids)
        found = [
            MemberRow(*at, run_id) for at, run_id in self.tables.member.items() if at[0] == env and at[1] in wanted
        ]
        return sorted(found)

    async def match(self, env: str, probes: Sequence[Probe]) -> Matches:
        found: dict[tuple[str, str], WaitRow] = {}
        for probe in probes:
            for match_key in probe.match_keys:
                for run_id, key in self.tables.waits_by_match.get((env, probe.event, match_key), ()):
                    found[run_id, key] = self.tables.wait[env, run_id][key]
        return Matches(self.tables.version.get(env, 0), tuple(found[at] for at in sorted(found)))

    async def look_back(self, env: str, event: str, after_event: str, limit: int) -> list[EventRow]:
        ids = self.tables.event_ids_by_name.get((env, event), [])
        start = bisect_right(ids, after_event)
        return [self.tables.event[env, id_] for id_ in ids[start : start + limit]]

    async def due(self, until_ms: int, limit: int) -> list[WaitRow]:
        first = islice(self.tables.due, limit)
        return [self.tables.wait[env, run_id][key] for due_ms, env, run_id, key in first if due_ms <= until_ms]

    async def ready(self, env: str, function_id: str, line: str, limit: int, lines: int = 1) -> list[ReadyRow]:
        queue = self.tables.queue.get((env, function_id), {})
        return [
            ReadyRow(env, run_id, function_id, priority, queued_ms, name)
            for name in sorted(name for name in queue if name >= line)[:lines]
            for priority, queued_ms, run_id in queue[name][:limit]
        ]

    async def registry(self, env: str) -> Registry:
        deployments = [row for row in self.tables.deployment.values() if row.env == env]
        return Registry(
            env=env,
            version=self.tables.version.get(env, 0),
            deployments=tuple(sorted(deployments, key=lambda row: (row.created_ms, row.app, row.id))),
            shapes=tuple(sorted(row for row in self.tables.shape if row.env == env)),
            switches=tuple(
                sorted(
                    (row for row in self.tables.switch.values() if row.env == env),
                    key=lambda row: (row.at_ms, row.function_id),
                )
            ),
        )

    async def sessions(self, env: str) -> list[SessionRow]:
        return sorted(row for row in self.tables.session.values() if row.env == env and row.closed_ms is None)

    async def stranded(self, limit: int, until_ms: int, after: Unseen) -> Stranded:
        tables = self.tables
        return Stranded(
            cursors=tuple(islice(tables.cursor.values(), limit)),
            lookbacks=tuple(tables.wait[env, run][key] for env, run, key in islice(tables.not_looked_back, limit)),
            inbox=tuple(islice(self._stranded_inbox(), limit)),
            held=tuple(islice(self._stranded_held(), limit)),
            unseen=tuple(sorted(place for place in self._unseen(until_ms) if place > after)[:limit]),
        )

    def _unseen(self, until_ms: int) -> Iterable[Unseen]:
        for at, keys in self.tables.inbox.items():
            yield from (Unseen(*at, key) for key in keys if self.tables.outcome[at][key].ended_ms <= until_ms)

    def _stranded_inbox(self) -> Iterable[OutcomeRow]:
        for at, keys in self.tables.inbox.items():
            run = self.tables.run.get(at)
            if run is None or run.ended_ms is not None or run.session_id is not None:
                continue
            if run.status == RunStatus.PARKED:
                yield from (self.tables.outcome[at][key] for key in keys)

    def _stranded_held(self) -> Iterable[RunRow]:
        for (env, session_id), run_ids in self.tables.held.items():
            session = self.tables.session.get((env, session_id))
            if session is None or session.closed_ms is not None:
                yield from (self.tables.run[env, run_id] for run_id in run_ids)

    async def homes(self, env: str, run_ids: Sequence[str]) -> list[Home]:
        rows = [
            row for id_ in sorted(set(run_ids)) if (row := self.tables.run.get((env, id_))) and row.ended_ms is None
        ]
        return [Home(row.id, row.function_id, row.status, row.losses, self._holder(row)) for row in rows]

    def _holder(self, run: RunRow) -> str | None:
        if run.session_id is None:
            return None
        session = self.tables.session.get((run.env, run.session_id))
        return session.node if session is not None else ""

    async def leases(self, prefix: str) -> list[LeaseRow]:
        return sorted(row for row in self.tables.lease.values() if row.name.startswith(prefix))

    async def lease(self, name: str) -> LeaseRow | None:
        return self.tables.lease.get(name)

    def snapshot(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every table as sorted rows, in the columns of the model's rows: equal snapshots are equal stores."""
        tables = self.tables
        dump: dict[str, Iterable[tuple[Any, ...]]] = {
            "events": tables.event.values(),
            "dedup": tables.dedup.values(),
            "cursors": tables.cursor.values(),
            "runs": tables.run.values(),
            "outcomes": tables.all_outcomes(),
            "waits": tables.all_waits(),
            "sessions": tables.session.values(),
            "deployments": tables.deployment.values(),
            "shapes": tables.shape,
            "environments": tables.version.items(),
            "switches": tables.switch.values(),
            "claims": tables.claim.values(),
            "members": (MemberRow(*at, run_id) for at, run_id in tables.member.items()),
            "leases": tables.lease.values(),
            "settings": tables.setting.items(),
        }
        return {name: sorted((tuple(row) for row in rows), key=repr) for name, rows in dump.items()}
