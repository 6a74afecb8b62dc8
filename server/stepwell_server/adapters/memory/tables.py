"""The tables as dictionaries, with the few indexes that keep a large simulation quick."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Any

from stepwell_server.model.claim import ClaimRow
from stepwell_server.model.event import CursorRow, DedupRow, EventRow
from stepwell_server.model.function import DeploymentRow, ShapeRow, SwitchRow
from stepwell_server.model.journal import OutcomeRow, StepKind, WaitRow
from stepwell_server.model.run import RunRow, RunStatus
from stepwell_server.model.session import LeaseRow, SessionRow

Key2 = tuple[str, str]
Key3 = tuple[str, str, str]


def discard(ordered: list[Any], item: Any) -> None:
    """Takes an item out of a sorted list, if it is in it."""
    at = bisect_left(ordered, item)
    if at < len(ordered) and ordered[at] == item:
        del ordered[at]


class Tables:
    """All rows. Events, runs, waits and outcomes change only through the methods, which keep the indexes."""

    def __init__(self) -> None:
        self.rows = 0
        self.event: dict[Key2, EventRow] = {}
        self.event_ids: dict[str, list[str]] = {}
        self.event_ids_by_name: dict[Key2, list[str]] = {}
        self.dedup: dict[Key2, DedupRow] = {}
        self.cursor: dict[Key2, CursorRow] = {}
        self.run: dict[Key2, RunRow] = {}
        self.run_ids: dict[str, list[str]] = {}
        self.held: dict[Key2, dict[str, None]] = {}
        self.queue: dict[Key2, dict[str, list[tuple[int, int, str]]]] = {}
        """By function: its lines, each in its order."""
        self.outcome: dict[Key2, dict[str, OutcomeRow]] = {}
        self.inbox: dict[Key2, dict[str, None]] = {}
        self.wait: dict[Key2, dict[str, WaitRow]] = {}
        self.waits_by_match: dict[tuple[str, str, str | None], dict[Key2, None]] = {}
        self.due: list[tuple[int, str, str, str]] = []
        self.not_looked_back: dict[Key3, None] = {}
        self.claim: dict[Key2, ClaimRow] = {}
        self.member: dict[Key3, str] = {}
        self.members: dict[Key2, list[str]] = {}
        self.session: dict[Key2, SessionRow] = {}
        self.deployment: dict[Key3, DeploymentRow] = {}
        self.shape: dict[ShapeRow, None] = {}
        self.switch: dict[tuple[str, str, int], SwitchRow] = {}
        self.version: dict[str, int] = {}
        self.lease: dict[str, LeaseRow] = {}
        self.setting: dict[str, str] = {}

    def add_event(self, row: EventRow) -> None:
        if (row.env, row.id) in self.event:
            return
        self.rows += 1
        self.event[row.env, row.id] = row
        insort(self.event_ids.setdefault(row.env, []), row.id)
        insort(self.event_ids_by_name.setdefault((row.env, row.name), []), row.id)

    def add_run(self, row: RunRow) -> None:
        if (row.env, row.id) in self.run:
            return
        insort(self.run_ids.setdefault(row.env, []), row.id)
        self.put_run(row)

    def put_run(self, row: RunRow) -> None:
        """Inserts or replaces a run."""
        self.rows += 1
        at = (row.env, row.id)
        old = self.run.get(at)
        self.run[at] = row
        if old is not None and old.session_id is not None:
            holders = self.held.get((row.env, old.session_id), {})
            holders.pop(row.id, None)
            if not holders:
                self.held.pop((row.env, old.session_id), None)
        if row.ended_ms is None and row.session_id is not None:
            self.held.setdefault((row.env, row.session_id), {})[row.id] = None
        if old is not None and old.status == RunStatus.QUEUED:
            lines = self.queue[old.env, old.function_id]
            discard(lines[old.line], (old.priority, old.queued_ms, old.id))
            if not lines[old.line]:
                del lines[old.line]
        if row.status == RunStatus.QUEUED:
            lines = self.queue.setdefault((row.env, row.function_id), {})
            insort(lines.setdefault(row.line, []), (row.priority, row.queued_ms, row.id))

    def add_outcome(self, row: OutcomeRow) -> bool:
        """Inserts an outcome; False if the key is there."""
        rows = self.outcome.setdefault((row.env, row.run_id), {})
        if row.key in rows:
            return False
        self.rows += 1
        rows[row.key] = row
        if row.number is None:
            self.inbox.setdefault((row.env, row.run_id), {})[row.key] = None
        return True

    def number(self, env: str, run_id: str, key: str, number: int) -> None:
        rows = self.outcome.get((env, run_id), {})
        row = rows.get(key)
        if row is None or row.number is not None:
            return
        self.rows += 1
        rows[key] = row._replace(number=number)
        self._deliver(env, run_id, key)

    def remove_undelivered(self, env: str, run_id: str, key: str) -> None:
        """Takes an outcome out, if it has no number."""
        rows = self.outcome.get((env, run_id), {})
        row = rows.get(key)
        if row is None or row.number is not None:
            return
        self.rows += 1
        del rows[key]
        if not rows:
            del self.outcome[env, run_id]
        self._deliver(env, run_id, key)

    def _deliver(self, env: str, run_id: str, key: str) -> None:
        undelivered = self.inbox[env, run_id]
        del undelivered[key]
        if not undelivered:
            del self.inbox[env, run_id]

    def add_wait(self, row: WaitRow) -> None:
        rows = self.wait.setdefault((row.env, row.run_id), {})
        if row.key in rows:
            return
        self.rows += 1
        rows[row.key] = row
        if row.kind == StepKind.EVENT:
            self.waits_by_match.setdefault((row.env, row.target, row.match_key), {})[row.run_id, row.key] = None
        if row.due_ms is not None:
            insort(self.due, (row.due_ms, row.env, row.run_id, row.key))
        if row.after_event is not None:
            self.not_looked_back[row.env, row.run_id, row.key] = None

    def look_back_done(self, env: str, run_id: str, key: str, cut: bytes | None) -> None:
        rows = self.wait.get((env, run_id), {})
        if key in rows:
            self.rows += 1
            rows[key] = rows[key]._replace(after_event=None, failure=cut)
            self.not_looked_back.pop((env, run_id, key), None)

    def remove_wait(self, env: str, run_id: str, key: str) -> bool:
        """Takes a wait out; False if there was none."""
        rows = self.wait.get((env, run_id), {})
        row = rows.pop(key, None)
        if row is None:
            return False
        self.rows += 1
        if not rows:
            del self.wait[env, run_id]
        if row.kind == StepKind.EVENT:
            found = self.waits_by_match[env, row.target, row.match_key]
            del found[run_id, key]
            if not found:
                del self.waits_by_match[env, row.target, row.match_key]
        if row.due_ms is not None:
            discard(self.due, (row.due_ms, env, run_id, key))
        self.not_looked_back.pop((env, run_id, key), None)
        return True

    def add_member(self, env: str, event_id: str, function_id: str, run_id: str) -> None:
        """An event joins a run, unless it joined one at this function before."""
        at = (env, event_id, function_id)
        if self.member.get(at, "") == "":
            self.rows += 1
            self.member[at] = run_id
            if run_id:
                insort(self.members.setdefault((env, run_id), []), event_id)

    def forget_run(self, env: str, run_id: str) -> None:
        """Takes an ended run out, with all it has."""
        del self.run[env, run_id]
        discard(self.run_ids[env], run_id)
        self.outcome.pop((env, run_id), None)
        self.inbox.pop((env, run_id), None)
        self.members.pop((env, run_id), None)
        self.member = {key: of for key, of in self.member.items() if (key[0], of) != (env, run_id)}

    def all_outcomes(self) -> Iterator[OutcomeRow]:
        for rows in self.outcome.values():
            yield from rows.values()

    def all_waits(self) -> Iterator[WaitRow]:
        for rows in self.wait.values():
            yield from rows.values()
