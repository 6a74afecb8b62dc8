"""Random batches of Commits from a seed: colliding, sometimes bad, sometimes sent again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from stepwell_server.adapters.memory.disjoint import guarded_writes
from stepwell_server.model.commit import Commit
from stepwell_server.model.event import CursorDelete
from stepwell_server.model.journal import LookedBack, Number, OutcomeDelete, WaitDelete
from stepwell_server.model.session import SettingRow

from tests.model.pools import ENVS, EVENTS, Pools

Place = tuple[str, ...]
_BAD = ("\0", "a\0b", "\ud800")
_REPEATED = 0.12
_SPOILED = 0.04


class Generator:
    """The batches of one seed."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self._pools = Pools(self.rng)
        self._last: list[Commit] = []
        pools = self._pools
        self._deciders: tuple[Callable[[], Any], ...] = (
            pools.dedup,
            pools.move,
            pools.take,
            pools.end,
            pools.outcome,
            pools.claim,
            pools.session_write,
            pools.lease_write,
        )
        # How a follower is drawn, and its likelihood to be there at all.
        self._followers: dict[str, tuple[Callable[[], Any], float]] = {
            "events": (pools.event, 0.2),
            "cursors": (pools.cursor, 0.1),
            "runs": (pools.run, 0.35),
            "outcomes": (pools.outcome, 0.2),
            "resolves": (pools.outcome, 0.2),
            "numbers": (self._number, 0.2),
            "outcome_deletes": (lambda: OutcomeDelete(*pools.place()), 0.1),
            "waits": (pools.wait, 0.35),
            "looked_back": (lambda: LookedBack(*pools.place(), self.rng.choice((None, b"cut"))), 0.15),
            "wait_deletes": (lambda: WaitDelete(*pools.place()), 0.1),
            "moves": (pools.move, 0.25),
            "takes": (pools.take, 0.1),
            "enqueues": (pools.enqueue, 0.15),
            "relines": (pools.reline, 0.1),
            "ends": (pools.end, 0.03),
            "cursor_deletes": (lambda: CursorDelete(pools.env, self.rng.choice(EVENTS)), 0.1),
            "dedups": (pools.dedup, 0.1),
            "claims": (pools.claim, 0.1),
            "claim_ends": (pools.claim_end, 0.1),
            "members": (pools.member, 0.2),
            "deployments": (pools.deployment, 0.05),
            "shapes": (pools.shape, 0.1),
            "switches": (pools.switch, 0.05),
            "settings": (lambda: SettingRow(self.rng.choice(("x", "y")), pools.text()), 0.1),
        }

    def batch(self) -> list[Commit]:
        """A few Commits that a lane would put into one batch; or the batch before, as after an unknown outcome."""
        if self._last and self.rng.random() < _REPEATED:
            return self._last
        batch: list[Commit] = []
        for _ in range(self.rng.choice((1, 1, 2, 4, 8))):
            commit = self._commit()
            if _fits(batch, commit):
                batch.append(commit)
        self._last = batch
        return batch

    def _commit(self) -> Commit:
        self._pools.env = env = self.rng.choice(ENVS)
        commit = Commit(env)
        if self.rng.random() < 0.2:
            commit.fences = tuple(self._pools.fence() for _ in range(self.rng.choice((1, 1, 2))))
        if self.rng.random() < 0.7:
            commit.decider = self.rng.choice(self._deciders)()
        for field, (draw, likelihood) in self._followers.items():
            if self.rng.random() < likelihood:
                rows = [draw() for _ in range(self.rng.choice((1, 1, 2, 3)))]
                setattr(commit, field, _once(field, rows))
        if self.rng.random() < _SPOILED:
            commit.events = [*commit.events, self._pools.event()._replace(sender_id=self.rng.choice(_BAD))]
        return commit

    def _number(self) -> Number:
        return Number(*self._pools.place(), self.rng.randrange(1, 7))


def spoiled(commit: Commit) -> bool:
    """Whether the generator put a value into it that no store can take."""
    return any(row.sender_id in _BAD for row in commit.events)


def _once(field: str, rows: list[Any]) -> list[Any]:
    """One operation a row, where a second one on the same row would change it again."""
    changing = {
        "numbers",
        "moves",
        "takes",
        "enqueues",
        "relines",
        "ends",
        "settings",
        "claims",
        "claim_ends",
        "members",
    }
    if field not in changing:
        return rows
    width = {"numbers": 3, "members": 3, "settings": 1}.get(field, 2)
    return list({row[:width]: row for row in rows}.values())


def _fits(batch: list[Commit], commit: Commit) -> bool:
    """Whether the Commit writes nothing that one of the batch reads or writes (H33)."""
    writes = set(_writes(commit))
    reads = set(_reads(commit))
    for other in batch:
        theirs = set(_writes(other))
        if writes & theirs or reads & theirs or writes & set(_reads(other)):
            return False
    return True


def _reads(commit: Commit) -> Iterator[Place]:
    for fence in commit.fences:
        yield ("sessions", fence.env, fence.session_id)


def _writes(commit: Commit) -> Iterator[Place]:
    yield from guarded_writes(commit)
    for table, rows in (("events", commit.events), ("cursors", commit.cursors), ("cursors", commit.cursor_deletes)):
        for row in rows:
            yield (table, row.env, row.id)
    for row in commit.members:
        yield ("members", row.env, row.event_id, row.function_id)
    for row in commit.switches:
        yield ("switches", row.env, row.function_id)
    for row in commit.deployments:
        yield ("deployments", row.env, row.app, row.id)
