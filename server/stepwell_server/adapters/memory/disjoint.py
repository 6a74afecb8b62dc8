"""The rule for a batch: no two of its Commits write the same guarded row, or one reads what the other writes (H33)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

from stepwell_server.model.claim import ClaimRow
from stepwell_server.model.commit import Commit
from stepwell_server.model.event import DedupRow
from stepwell_server.model.journal import OutcomeRow
from stepwell_server.model.run import End, Move, Take
from stepwell_server.model.session import LeaseWrite, SessionWrite

Place = tuple[str, ...]


def assert_disjoint(commits: Sequence[Commit]) -> None:
    """A batch that breaks the rule is a mistake of the lane; SQL would answer it silently and wrong."""
    writers: dict[Place, int] = {}
    for index, commit in enumerate(commits):
        for place in guarded_writes(commit):
            first = writers.setdefault(place, index)
            assert first == index, f"two Commits of one batch write {place}: {commits[first]} and {commit}"
    for index, commit in enumerate(commits):
        for fence in commit.fences:
            writer = writers.get(("sessions", fence.env, fence.session_id), index)
            assert writer == index, f"one Commit of a batch checks the session that another writes: {fence}"


def guarded_writes(commit: Commit) -> Iterator[Place]:
    """The places of a Commit that no other Commit of its batch may write."""
    match commit.decider:
        case DedupRow(env=env, key=key):
            yield ("dedup", env, key)
        case Move(env=env, run_id=run_id) | Take(env=env, run_id=run_id) | End(env=env, run_id=run_id):
            yield ("runs", env, run_id)
        case OutcomeRow(env=env, run_id=run_id, key=key):
            yield ("keys", env, run_id, key)
        case ClaimRow(env=env, key=key):
            yield ("claims", env, key)
        case SessionWrite(row=row):
            yield ("sessions", row.env, row.id)
        case LeaseWrite(row=row):
            yield ("leases", row.name)
        case None:
            pass
    for run in commit.runs:
        yield ("runs", run.env, run.id)
    for change in chain(commit.moves, commit.takes, commit.enqueues, commit.relines, commit.ends):
        yield ("runs", change.env, change.run_id)
    # The outcome and the wait of a key are one place: a resolve reads one and writes both.
    for change in chain(commit.outcomes, commit.resolves, commit.numbers, commit.outcome_deletes):
        yield ("keys", change.env, change.run_id, change.key)
    for change in chain(commit.waits, commit.looked_back, commit.wait_deletes):
        yield ("keys", change.env, change.run_id, change.key)
    for dedup in commit.dedups:
        yield ("dedup", dedup.env, dedup.key)
    for claim in chain(commit.claims, commit.claim_ends):
        yield ("claims", claim.env, claim.key)
    for setting in commit.settings:
        yield ("settings", setting.name)
