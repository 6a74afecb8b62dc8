"""Fences: a Commit is written only while each of its sessions is open with the epoch it names (H8, H9)."""

from __future__ import annotations

import pytest
from stepwell_server.model.commit import Verdict
from stepwell_server.model.session import Fence, SessionWrite
from stepwell_server.ports.store import Store

from tests.contract.rows import ENV, commit, dedup, event, fence, held_run, move, outcome, run, session, session_id
from tests.contract.saying import keys, open_session, put, run_row, say, verdicts
from tests.support.stores import OpenStore


async def test_a_commit_whose_session_is_open_in_its_epoch_is_applied(store: Store) -> None:
    await open_session(store)
    await put(store, runs=[held_run()])
    assert await say(store, fences=(fence(),), outcomes=[outcome("charge", number=1)]) == Verdict.APPLIED
    assert await keys(store) == ["charge"]


@pytest.mark.parametrize("epoch", [0, 1, 3])
async def test_a_commit_of_another_epoch_is_fenced_and_writes_nothing(opened: OpenStore, epoch: int) -> None:
    await open_session(opened.store, epoch=2)
    before = await opened.dump()
    assert await say(opened.store, fences=(fence(epoch=epoch),), runs=[run()], events=[event()]) == Verdict.FENCED
    assert await opened.dump() == before


async def test_a_commit_of_a_closed_session_is_fenced_though_the_epoch_is_right(store: Store) -> None:
    await open_session(store)
    assert await say(store, decider=SessionWrite(1, session(epoch=2, closed_ms=1))) == Verdict.APPLIED
    assert await say(store, fences=(fence(epoch=2),), runs=[run()]) == Verdict.FENCED


async def test_a_commit_of_an_unknown_session_is_fenced(store: Store) -> None:
    assert await say(store, fences=(fence(),), runs=[run()]) == Verdict.FENCED


async def test_a_session_of_the_same_id_in_another_environment_holds_no_fence(store: Store) -> None:
    await open_session(store)
    assert await say(store, fences=(Fence("test", session_id(1), 1),), runs=[run()]) == Verdict.FENCED


async def test_one_fence_of_several_that_fails_is_enough(store: Store) -> None:
    await open_session(store, 1)
    await open_session(store, 2, epoch=5)
    assert await say(store, fences=(fence(1), fence(2, epoch=4)), runs=[run()]) == Verdict.FENCED
    assert await say(store, fences=(fence(1), fence(2, epoch=5)), runs=[run()]) == Verdict.APPLIED


async def test_a_fenced_commit_says_so_even_where_its_decider_would_lose(store: Store) -> None:
    await put(store, dedups=[dedup(value="evt_1")])
    assert await say(store, fences=(fence(),), decider=dedup(value="evt_2")) == Verdict.FENCED


async def test_a_fenced_commit_leaves_what_its_decider_would_have_changed(store: Store) -> None:
    await open_session(store, epoch=2)
    await put(store, runs=[run()])
    assert await say(store, fences=(fence(epoch=1),), decider=move()) == Verdict.FENCED
    assert await run_row(store) == run()


async def test_a_fenced_commit_does_not_hinder_the_others_of_its_batch(store: Store) -> None:
    await open_session(store, 1)
    await open_session(store, 2, epoch=2)
    batch = [
        commit(fences=(fence(1),), runs=[run(1)]),
        commit(fences=(fence(2),), runs=[run(2)]),
        commit(runs=[run(3)]),
        commit(fences=(fence(1),), runs=[run(4)]),
    ]
    assert await verdicts(store, *batch) == [Verdict.APPLIED, Verdict.FENCED, Verdict.APPLIED, Verdict.APPLIED]
    assert set(await store.load(ENV, [run(n).id for n in (1, 2, 3, 4)])) == {run(1).id, run(3).id, run(4).id}
