"""What a node counts while somebody scrapes its metrics: plain integers, taken from what the lane made durable."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any

from stepwell_server.model.commit import Commit, CommitResult, Verdict
from stepwell_server.model.journal import OutcomeRow, StepKind
from stepwell_server.model.run import End, ReadyRow, RunRow, RunStatus

MOST_FUNCTIONS = 200
OTHER = "other"
"""Functions beyond the first two hundred are counted together under this name: labels stay bounded."""

DURATIONS_MS = (1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000, 1_800_000)
COMMITS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_APPLIED = Verdict.APPLIED
_RUN, _EVENT = int(StepKind.RUN), int(StepKind.EVENT)
_LAST_KIND = int(StepKind.RETRY)
COMPLETED, FAILED, TIMED_OUT = range(3)


class Histogram:
    """Counts by upper bound, the last without one, and the sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[int]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total: float = 0

    def add(self, value: float) -> None:
        """One observation. Clocks that differ show as 0."""
        if value > 0:
            self.counts[bisect_left(self.bounds, value)] += 1
            self.total += value
        else:
            self.counts[0] += 1


class FunctionTally:
    """Runs of one function. ended: by the number of the status. queue_ms: from QUEUED to a place."""

    __slots__ = ("created", "ended", "queue_ms")

    def __init__(self) -> None:
        self.created = 0
        self.ended = [0] * (max(RunStatus) + 1)
        self.queue_ms = Histogram(DURATIONS_MS)


class Tally:
    """Counts since the start of this process. Runs are counted when they are durable, once each."""

    def __init__(self) -> None:
        self.functions: dict[tuple[str, str], FunctionTally] = {}
        self.steps = [[0, 0, 0] for _ in range(_LAST_KIND + 1)]
        self.step_ms = Histogram(DURATIONS_MS)
        self.waits = [0] * (_LAST_KIND + 1)
        self.events = 0
        self.refused = 0
        self.duplicates = 0
        self.lost = 0
        self.healed = 0
        self.batches = Histogram(COMMITS)
        self.commit_ms = Histogram(DURATIONS_MS)

    def function(self, env: str, function_id: str) -> FunctionTally:
        """The counts of a function."""
        found = self.functions.get((env, function_id))
        if found is None:
            key = (env, function_id if len(self.functions) < MOST_FUNCTIONS else OTHER)
            found = self.functions.setdefault(key, FunctionTally())
        return found

    def sent(self, answer: asyncio.Future[Any], loop: asyncio.AbstractEventLoop) -> None:
        """A batch is on its way to the store."""
        began = loop.time()
        answer.add_done_callback(lambda _: self.commit_ms.add((loop.time() - began) * 1000))

    def landed(self, batch: Iterable[tuple[Commit, Any, Any]], results: Sequence[CommitResult]) -> None:
        """The store has decided a batch."""
        self.batches.add(len(results))
        for (commit, _, _), result in zip(batch, results, strict=True):
            if result.verdict is _APPLIED:
                self._applied(commit)

    def _applied(self, commit: Commit) -> None:
        self.events += len(commit.events)
        for run in commit.runs:
            function = self.function(run.env, run.function_id)
            function.created += 1
            if run.session_id is not None:
                function.queue_ms.add(0)
            elif run.ended_ms is not None:  # it was skipped
                function.ended[run.status] += 1
        for outcome in commit.outcomes:
            self._step(outcome)
        for outcome in commit.resolves:
            self._step(outcome)
        if type(commit.decider) is OutcomeRow:
            self._step(commit.decider)
        for wait in commit.waits:
            if wait.kind <= _LAST_KIND:
                self.waits[wait.kind] += 1

    def _step(self, outcome: OutcomeRow) -> None:
        kind = outcome.kind
        if kind >= _LAST_KIND:
            return  # leave to try again, or an order to unwind: no step has its outcome
        if outcome.failure is not None:
            self.steps[kind][FAILED] += 1
        elif kind == _EVENT and outcome.event_id is None:
            self.steps[kind][TIMED_OUT] += 1
        else:
            self.steps[kind][COMPLETED] += 1
        if kind == _RUN and outcome.started_ms:
            self.step_ms.add(outcome.ended_ms - outcome.started_ms)

    def queued(self, row: ReadyRow, now_ms: int) -> None:
        """A queued run got a place."""
        self.function(row.env, row.function_id).queue_ms.add(now_ms - row.queued_ms)

    def ended(self, run: RunRow, end: End) -> None:
        """A run has ended."""
        self.function(run.env, run.function_id).ended[end.status] += 1

    def answered(self, outcomes: Iterable[str]) -> None:
        """A sender of events was told what became of each; the accepted ones are counted when they are durable."""
        for outcome in outcomes:
            if outcome == "refused":
                self.refused += 1
            elif outcome == "duplicate":
                self.duplicates += 1
