"""The memory store behind faults: slow, failing before or after a commit, away; it tells what it applied."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

from stepwell_server.adapters.memory.disjoint import guarded_writes
from stepwell_server.adapters.memory.store import MemoryStore
from stepwell_server.model.commit import Commit, CommitResult, Rows
from stepwell_server.model.errors import UnavailableError
from stepwell_server.model.session import Fence

from tests.simulation.loop import SimLoop

Watcher = Callable[[Commit, CommitResult], None]


class FaultyStore:
    """Store and History over a MemoryStore that outlives the servers.

    latency_s: mean of a call. before, after, reads: chances that a commit fails unapplied, that it is applied and
    its answer lost, that a read fails. away: nothing answers. watch: learns each commit with its verdict.
    """

    def __init__(self, loop: SimLoop, rng: random.Random, latency_s: float, flushers: int) -> None:
        self.loop = loop
        self.rng = rng
        self.memory = MemoryStore()
        self.latency_s = latency_s
        self.flushers = flushers
        self.before = 0.0
        self.after = 0.0
        self.reads = 0.0
        self.away = False
        self.slow_s = 0.0
        self.faults = 0
        self.overlaps: list[str] = []
        self.watch: Watcher = lambda commit, result: None

    @property
    def commits(self) -> int:
        return self.memory.commits

    @property
    def rows(self) -> int:
        return self.memory.rows

    @property
    def retention(self) -> Any:
        """Without faults: nothing here says for how long anything is kept."""
        return self.memory.retention

    async def close(self) -> None:
        """Nothing to let go of."""

    async def commit(self, commits: Sequence[Commit], owner: Fence | None = None) -> list[CommitResult]:
        await self._pass()
        if self.away or self.rng.random() < self.before:
            raise self._fault("before the commit")
        results = await self._apply(commits, owner)
        await self._pass()
        if self.rng.random() < self.after:
            raise self._fault("after the commit")
        return results

    async def _apply(self, commits: Sequence[Commit], owner: Fence | None) -> list[CommitResult]:
        """One by one, which is as good as at once: nothing awaits in between. An overlap is told, and goes on."""
        self._tell_overlaps(commits)
        results: list[CommitResult] = []
        for commit in commits:
            (result,) = await self.memory.commit([commit], owner)
            results.append(result)
            self.loop.note("commit", commit.touches, int(result.verdict))
            self.watch(commit, result)
        return results

    def _tell_overlaps(self, commits: Sequence[Commit]) -> None:
        """Two Commits of a batch that write one place, or where one reads what the other writes (H33)."""
        writers: dict[tuple[str, ...], Commit] = {}
        for commit in commits:
            for place in guarded_writes(commit):
                first = writers.setdefault(place, commit)
                if first is not commit:
                    self.overlaps.append(f"one batch writes {place} twice: {brief(first)} and {brief(commit)}")
        for commit in commits:
            for fence in commit.fences:
                writer = writers.get(("sessions", fence.env, fence.session_id), commit)
                if writer is not commit:
                    self.overlaps.append(f"one batch writes and checks {fence}: {brief(writer)} and {brief(commit)}")

    def __getattr__(self, name: str) -> Any:
        """Every read of the ports."""
        read = getattr(self.memory, name)

        async def slowly(*args: Any, **kwargs: Any) -> Any:
            await self._pass()
            if self.away or self.rng.random() < self.reads:
                raise self._fault(name)
            result = await read(*args, **kwargs)
            await self._pass()
            return result

        return slowly

    def _fault(self, where: str) -> UnavailableError:
        self.faults += 1
        return UnavailableError("STORE_UNAVAILABLE", f"simulated: {where}")

    async def _pass(self) -> None:
        slow = 20 if self.rng.random() < 0.01 else 1
        await asyncio.sleep(self.rng.expovariate(2 / max(self.latency_s * slow, self.slow_s)))


def brief(commit: Commit) -> str:
    """What a Commit is about, in a line."""
    fields = [name for name in Rows.__annotations__ if getattr(commit, name)]
    return f"{type(commit.decider).__name__}{tuple(fields)} touches {commit.touches}"
