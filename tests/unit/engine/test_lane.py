"""The lane: batches form by themselves, runs keep their order, environments take turns, trouble is waited out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from stepwell_server.engine.lane import Lane
from stepwell_server.model.commit import Commit, CommitResult, Verdict
from stepwell_server.model.errors import UnavailableError
from stepwell_server.model.session import Fence


class Gate:
    """A store that keeps every batch until it is let through."""

    flushers = 1

    def __init__(self) -> None:
        self.batches: list[Sequence[Commit]] = []
        self.trouble: list[Exception] = []
        self._go = asyncio.Semaphore(0)

    async def commit(self, commits: Sequence[Commit], owner: Fence | None = None) -> list[CommitResult]:
        self.batches.append(commits)
        await self._go.acquire()
        if self.trouble:
            raise self.trouble.pop()
        return [CommitResult(Verdict.APPLIED) for _ in commits]

    def let_through(self, batches: int = 1) -> None:
        for _ in range(batches):
            self._go.release()


def submit(lane: Lane, done: list[str], name: str, *touches: str, env: str = "dev", size: int = 0) -> None:
    commit = Commit(env, touches=touches, size=size)
    lane.submit(commit, lambda _, name: done.append(name), name)


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_alone_a_commit_goes_at_once_and_what_comes_meanwhile_goes_together() -> None:
    store = Gate()
    lane, done = Lane(store), list[str]()
    submit(lane, done, "a")
    await settled()
    for name in "bcd":
        submit(lane, done, name)
    await settled()
    assert [len(batch) for batch in store.batches] == [1]
    assert lane.pending == 3
    store.let_through(2)
    await lane.settle()
    assert [len(batch) for batch in store.batches] == [1, 3]
    assert done == ["a", "b", "c", "d"]


async def test_h33_commits_that_touch_the_same_run_are_never_in_flight_together_and_keep_their_order() -> None:
    store = Gate()
    lane, done = Lane(store), list[str]()
    for name, run in (("a1", "a"), ("b1", "b"), ("a2", "a"), ("a3", "a"), ("b2", "b"), ("c1", "c")):
        submit(lane, done, name, run)
    store.let_through(3)
    await lane.settle()
    assert [[commit.touches[0] for commit in batch] for batch in store.batches] == [["a", "b", "c"], ["a", "b"], ["a"]]
    assert done == ["a1", "b1", "c1", "a2", "b2", "a3"]


async def test_h37_environments_take_turns() -> None:
    store = Gate()
    lane, done = Lane(store), list[str]()
    for number in range(2_000):
        submit(lane, done, f"flood{number}", env="flood")
    submit(lane, done, "quiet", env="quiet")
    store.let_through(20)
    await lane.settle()
    assert done.index("quiet") < 512
    assert len(done) == 2_001


async def test_h34_a_batch_is_capped_in_bytes() -> None:
    store = Gate()
    lane, done = Lane(store), list[str]()
    for number in range(6):
        submit(lane, done, str(number), size=3 * 1024 * 1024)
    store.let_through(6)
    await lane.settle()
    assert max(len(batch) for batch in store.batches) <= 2
    assert done == [str(number) for number in range(6)]


async def test_h32_a_store_that_is_away_is_asked_again_with_the_same_commits() -> None:
    store = Gate()
    lane, done = Lane(store), list[str]()
    store.trouble = [UnavailableError("DISK_FULL", "the disk is full")]
    submit(lane, done, "a", "a")
    submit(lane, done, "b", "b")
    store.let_through(2)
    await lane.settle()
    first, second = store.batches
    assert list(first) == list(second)
    assert done == ["a", "b"]
    assert lane.trouble is None


async def test_h32d_runs_of_a_batch_that_failed_wait_until_it_is_settled() -> None:
    store = Gate()
    store.flushers = 2
    lane, done = Lane(store), list[str]()
    store.trouble = [UnavailableError("CONNECTION_LOST", "inside COMMIT")]
    submit(lane, done, "a1", "a")
    submit(lane, done, "b1", "b")
    await settled()
    store.let_through()
    await settled()
    for name, run in (("a2", "a"), ("c1", "c"), ("b2", "b")):
        submit(lane, done, name, run)
    await settled()
    store.let_through()
    await settled()
    assert done == ["c1"], "nobody knows yet what became of the first ones of a and b"
    store.let_through(2)
    await lane.settle()
    touched = [[commit.touches[0] for commit in batch] for batch in store.batches]
    assert touched == [["a", "b"], ["c"], ["a", "b"], ["a", "b"]]
    assert done == ["c1", "a1", "b1", "a2", "b2"]


async def test_h37_an_environment_with_a_backlog_leaves_the_others_their_share() -> None:
    store = Gate()
    lane, done = Lane(store), list[str]()
    for number in range(1_000):
        for env in ("loud", "other"):
            submit(lane, done, f"{env} {number}", env=env)
    await settled()
    store.let_through(3)
    await settled()
    shares = [(sum(c.env == "loud" for c in batch), sum(c.env == "other" for c in batch)) for batch in store.batches]
    assert shares[:3] == [(128, 128)] * 3
