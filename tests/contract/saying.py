"""Words in which the sentences of the contract are said."""

from __future__ import annotations

from typing import Any

from stepwell_server.model.commit import Commit, CommitResult, Verdict
from stepwell_server.model.run import RunRow
from stepwell_server.model.session import SessionWrite
from stepwell_server.ports.store import FIRST, RunState, Store, Stranded

from tests.contract.rows import ENV, commit, run_id, session
from tests.support.stores import OpenStore


async def put(store: Store, **rows: Any) -> None:
    """Writes rows that nothing stands in the way of."""
    assert await say(store, **rows) == Verdict.APPLIED


async def say(store: Store, **parts: Any) -> Verdict:
    """The verdict of one Commit alone."""
    return (await result(store, commit(**parts))).verdict


async def result(store: Store, one: Commit) -> CommitResult:
    [answer] = await store.commit([one])
    return answer


async def verdicts(store: Store, *batch: Commit) -> list[Verdict]:
    return [answer.verdict for answer in await store.commit(batch)]


async def open_session(store: Store, n: int = 1, **changes: Any) -> None:
    row = session(n, **changes)
    assert await say(store, decider=SessionWrite(0, row)) == Verdict.APPLIED


async def state(store: Store, n: int = 1) -> RunState:
    """The n-th run, which must be there."""
    return (await store.load(ENV, [run_id(n)]))[run_id(n)]


async def run_row(store: Store, n: int = 1) -> RunRow:
    return (await state(store, n)).run


async def keys(store: Store, n: int = 1) -> list[str]:
    """Keys of the outcomes of the n-th run, as loaded."""
    return [row.key for row in (await state(store, n)).outcomes]


async def dedups(opened: OpenStore) -> dict[str, str]:
    """Values by dedup key, as the table holds them."""
    return {key: value for env, key, value, _ in (await opened.dump())["dedup"] if env == ENV}


async def stranded(store: Store, limit: int = 10) -> Stranded:
    """What a sweep finds that begins at the first undelivered outcome."""
    return await store.stranded(limit, 2**53, FIRST)


async def open_keys(store: Store, n: int = 1) -> list[str]:
    return sorted(row.key for row in (await state(store, n)).waits)
