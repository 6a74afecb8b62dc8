"""The node's own fence: nothing of a batch is written once another node has taken the database over (H31)."""

from __future__ import annotations

from typing import Any

import pytest
from stepwell_server.model.commit import Commit, Verdict
from stepwell_server.model.session import Fence, SessionWrite
from stepwell_server.ports.store import Store

from tests.contract.contention import answer, rival, start
from tests.contract.rows import (
    ENV,
    by_event,
    commit,
    dedup,
    deployment,
    event,
    fence,
    held_run,
    move,
    outcome,
    parked_run,
    run,
    run_id,
    session,
    session_id,
    wait,
)
from tests.contract.saying import keys, open_session, put, run_row
from tests.support.stores import OpenStore

OWNER = Fence("", session_id(9), 1)
CLOSE = "update sessions set epoch = epoch + 1, closed_ms = 1 where env = '' and id = $1"
INSERT_EVENT = "insert into events select env, $2, name, data, encoding, sender_id, time_ms, accepted_ms, metadata from events where id = $1"  # noqa: E501

BATCHES: dict[str, list[dict[str, Any]]] = {
    "plain inserts": [{"events": [event(2)]}, {"runs": [run(2)]}],
    "fenced by a session too": [{"fences": (fence(),), "outcomes": [outcome(number=1)]}, {"runs": [run(2)]}],
    "with deciders": [{"decider": dedup()}, {"decider": move(expect_turn=1)}, {"decider": by_event(n=3)}],
    "a session": [{"decider": SessionWrite(0, session(2))}],
    "a registration": [{"deployments": [deployment()]}],
    "all at once": [
        {"events": [event(2)]},
        {"fences": (fence(),), "outcomes": [outcome(number=1)]},
        {"decider": move(expect_turn=1)},
        {"decider": SessionWrite(0, session(2))},
        {"deployments": [deployment()]},
    ],
}


async def prepared(store: Store) -> None:
    """An owner, a worker's session, and runs for all batches."""
    await open_session(store, 9, env="")
    await open_session(store)
    await put(store, runs=[held_run(1), parked_run(3)], waits=[wait(n=3)])


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
async def test_what_the_owner_writes_is_applied(store: Store, batch: list[dict[str, Any]]) -> None:
    await prepared(store)
    answers = await store.commit([commit(**parts) for parts in batch], OWNER)
    assert [one.verdict for one in answers] == [Verdict.APPLIED] * len(batch)


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("owner", [OWNER._replace(epoch=2), OWNER._replace(env=ENV), OWNER._replace(session_id="x")])
async def test_what_somebody_else_writes_is_fenced_and_changes_nothing(
    opened: OpenStore, batch: list[dict[str, Any]], owner: Fence
) -> None:
    await prepared(opened.store)
    before = await opened.dump()
    answers = await opened.store.commit([commit(**parts) for parts in batch], owner)
    assert [one.verdict for one in answers] == [Verdict.FENCED] * len(batch)
    assert await opened.dump() == before


async def test_an_owner_that_was_closed_writes_nothing_more(store: Store) -> None:
    await prepared(store)
    close = Commit("", decider=SessionWrite(1, session(9, env="", epoch=2, closed_ms=1)))
    assert [one.verdict for one in await store.commit([close], OWNER)] == [Verdict.APPLIED], "it may close itself"
    for epoch in (1, 2):
        answers = await store.commit([commit(events=[event(2)])], OWNER._replace(epoch=epoch))
        assert [one.verdict for one in answers] == [Verdict.FENCED]


async def test_a_session_that_fails_leaves_out_its_commit_alone(store: Store) -> None:
    await prepared(store)
    batch = [commit(fences=(fence(epoch=7),), outcomes=[outcome(number=1)]), commit(runs=[run(2)])]
    assert [one.verdict for one in await store.commit(batch, OWNER)] == [Verdict.FENCED, Verdict.APPLIED]
    assert await keys(store) == []
    assert (await run_row(store, 2)).id == run_id(2)


async def test_a_batch_waits_for_the_take_over_of_its_owner_and_is_fenced(postgres: OpenStore) -> None:
    await prepared(postgres.store)
    async with rival(postgres.url) as other:
        await other.execute(CLOSE, session_id(9))
        late = start(postgres.store.commit([commit(events=[event(2)])], OWNER))
        await other.until_blocked()
        await other.commit()
        assert [one.verdict for one in await answer(late)] == [Verdict.FENCED]
    assert await postgres.store.events(ENV, [event(2).id]) == []


async def test_a_take_over_waits_for_the_batch_of_the_owner_that_is_under_way(postgres: OpenStore) -> None:
    await prepared(postgres.store)
    await put(postgres.store, events=[event(1)])
    async with rival(postgres.url) as other:
        await other.execute(INSERT_EVENT, event(1).id, event(2).id)
        # The batch has checked its owner, and waits for the rival's insert of the same event.
        batch = start(postgres.store.commit([commit(events=[event(2)])], OWNER))
        await other.until_blocked()
        async with rival(postgres.url) as next_node:
            closing = start(next_node.execute(CLOSE, session_id(9)))
            await other.until_blocked(2)
            assert not closing.done()
            await other.rollback()
            assert [one.verdict for one in await answer(batch)] == [Verdict.APPLIED]
            await answer(closing)
            await next_node.commit()
    assert [one.verdict for one in await postgres.store.commit([commit(runs=[run(2)])], OWNER)] == [Verdict.FENCED]
