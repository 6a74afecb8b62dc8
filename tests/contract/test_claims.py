"""Claims: each version is written once, let go by the run that holds it; events join a run once (H24, H28)."""

from __future__ import annotations

import pytest
from stepwell_server.model.commit import Verdict
from stepwell_server.model.run import GATHERED, RunStatus

from tests.contract.contention import answer, rival, start
from tests.contract.rows import (
    ENV,
    FUNCTION,
    NOW,
    claim,
    claim_end,
    commit,
    end,
    enqueue,
    event,
    event_id,
    held_run,
    member,
    parked_run,
    run,
    run_id,
)
from tests.contract.saying import put, run_row, say, state, verdicts
from tests.support.stores import FullStore, OpenStore

KEY = claim().key


async def test_the_first_of_a_key_claims_it_and_its_rows_are_written(store: FullStore) -> None:
    assert await say(store, decider=claim(), runs=[run()]) == Verdict.APPLIED
    assert await store.claims(ENV, [KEY, "other"]) == {KEY: claim()}
    assert await run_row(store) == run()


async def test_a_second_first_loses_and_writes_nothing(store: FullStore) -> None:
    await put(store, decider=claim())
    assert await say(store, decider=claim(n=2), runs=[run(2)], members=[member(2, 2)]) == Verdict.LOST
    assert await store.claims(ENV, [KEY]) == {KEY: claim()}
    assert await store.load(ENV, [run_id(2)]) == {}
    assert await store.joined(ENV, [event_id(2)]) == []


async def test_the_next_version_is_written_and_no_other(store: FullStore) -> None:
    await put(store, decider=claim())
    assert await say(store, decider=claim(3)) == Verdict.LOST
    assert await say(store, decider=claim(2, 2)) == Verdict.APPLIED
    assert await say(store, decider=claim(2, 3)) == Verdict.LOST
    assert await store.claims(ENV, [KEY]) == {KEY: claim(2, 2)}


async def test_a_later_version_of_a_claim_that_was_purged_is_written(store: FullStore) -> None:
    await put(store, decider=claim())
    assert await store.purge(NOW + 999, 10) == 0
    assert await store.purge(NOW + 1_000, 10) == 1
    assert await say(store, decider=claim(2)) == Verdict.APPLIED
    assert await store.claims(ENV, [KEY]) == {KEY: claim(2)}


async def test_a_claim_that_comes_again_is_recognised_with_its_followers(store: FullStore) -> None:
    assert await say(store, decider=claim()) == Verdict.APPLIED
    assert await say(store, decider=claim(), runs=[run()]) == Verdict.APPLIED
    assert await run_row(store) == run()


@pytest.mark.parametrize("change", [{"run_id": run_id(2)}, {"value": "[]"}, {"until_ms": NOW}])
async def test_a_claim_is_not_recognised_where_the_row_says_otherwise(
    store: FullStore, change: dict[str, str | int]
) -> None:
    await put(store, decider=claim())
    assert await say(store, decider=claim(**change)) == Verdict.LOST


async def test_a_claim_belongs_to_its_environment(store: FullStore) -> None:
    await put(store, decider=claim())
    assert await say(store, decider=claim(env="test")) == Verdict.APPLIED
    assert await store.claims("test", [KEY]) == {KEY: claim(env="test")}


async def test_the_run_that_holds_a_claim_lets_go_of_it_and_keeps_what_the_gate_knew(store: FullStore) -> None:
    await put(store, decider=claim(value='{"next":1}'), runs=[held_run()])
    await put(store, decider=end(), claim_ends=[claim_end()])
    left = claim(2, run_id="", value='{"next":1}', until_ms=NOW + 60_000)
    assert await store.claims(ENV, [KEY]) == {KEY: left}
    assert await say(store, decider=claim(3, 2)) == Verdict.APPLIED


async def test_a_run_lets_go_of_no_claim_that_another_holds(store: FullStore) -> None:
    await put(store, decider=claim())
    await put(store, claim_ends=[claim_end(2)])
    assert await store.claims(ENV, [KEY]) == {KEY: claim()}


async def test_a_claim_is_not_let_go_where_the_end_lost(store: FullStore) -> None:
    await put(store, decider=claim(), runs=[held_run()])
    assert await say(store, decider=end(turn=2), claim_ends=[claim_end()]) == Verdict.LOST
    assert await store.claims(ENV, [KEY]) == {KEY: claim()}


async def test_a_claim_is_written_and_let_go_in_one_commit(store: FullStore) -> None:
    await put(store, decider=claim(), claim_ends=[claim_end()])
    assert (await store.claims(ENV, [KEY]))[KEY][2:4] == (2, "")


async def test_claims_of_many_commits_are_decided_in_one_batch(store: FullStore) -> None:
    await put(store, decider=claim(key="k2"))
    batch = [commit(decider=claim(key=f"k{n}", n=n), runs=[run(n)]) for n in range(1, 6)]
    said = await verdicts(store, *batch)
    assert said == [Verdict.APPLIED, Verdict.LOST, *[Verdict.APPLIED] * 3]
    assert sorted(await store.load(ENV, [run_id(n) for n in range(1, 6)])) == [run_id(n) for n in (1, 3, 4, 5)]


async def test_an_event_joins_one_run_of_a_function(store: FullStore) -> None:
    await put(store, members=[member(1, 1), member(2, 1), member(1, 3, function_id="shop/other")])
    await put(store, members=[member(1, 2), member(3, 2)])
    assert await store.joined(ENV, [event_id(n) for n in (1, 2, 3, 4)]) == [
        member(1, 1),
        member(1, 3, function_id="shop/other"),
        member(2, 1),
        member(3, 2),
    ]


async def test_an_event_that_is_only_past_the_first_gate_joins_a_run_later(store: FullStore) -> None:
    await put(store, members=[member(1, run_id=""), member(2, 1)])
    await put(store, members=[member(1, run_id=""), member(2, run_id="")])
    assert await store.joined(ENV, [event_id(1), event_id(2)]) == [member(1, run_id=""), member(2, 1)]
    await put(store, members=[member(1, 5)])
    await put(store, members=[member(1, 6)])
    assert await store.joined(ENV, [event_id(1)]) == [member(1, 5)]


async def test_a_run_that_gathered_is_loaded_with_its_events_in_order(store: FullStore) -> None:
    rows = [parked_run(turn=0, event_id=event_id(1), input_encoding=GATHERED), run(2, event_id=event_id(2))]
    await put(store, events=[event(n) for n in (3, 1, 2)], runs=rows, members=[member(n, 1) for n in (2, 3, 1)])
    await put(store, members=[member(2, 2, function_id="shop/other")])
    gathered = await state(store)
    assert gathered.event == event(1)
    assert gathered.events == (event(1), event(2), event(3))
    assert (await state(store, 2)).events == ()


async def test_a_run_that_gathered_begins_with_the_event_that_is_named(store: FullStore) -> None:
    await put(store, runs=[parked_run(turn=0), parked_run(2, turn=0)])
    await put(store, enqueues=[enqueue(event_id=event_id(7)), enqueue(2)])
    assert (await run_row(store)).event_id == event_id(7)
    assert (await run_row(store, 2)).event_id == event_id(2)
    assert [row.run_id for row in await store.ready(ENV, FUNCTION, "", 10)] == [run_id(1), run_id(2)]


NEXT = "update claims set version = version + 1, run_id = $3 where env = $1 and key = $2"


async def test_a_claim_waits_for_the_transaction_that_writes_it_and_then_loses(postgres: OpenStore) -> None:
    store = postgres.store
    await put(store, decider=claim())
    async with rival(postgres.url) as other:
        await other.execute(NEXT, ENV, KEY, run_id(3))
        joining = start(say(store, decider=claim(2, 2), runs=[run(2)]))
        await other.until_blocked()
        await other.commit()
        assert await answer(joining) == Verdict.LOST
    assert await store.load(ENV, [run_id(2)]) == {}
    assert (await store.claims(ENV, [KEY]))[KEY].run_id == run_id(3)


async def test_a_first_claim_waits_for_one_that_is_not_committed_and_then_loses(postgres: OpenStore) -> None:
    store = postgres.store
    async with rival(postgres.url) as other:
        await other.execute("insert into claims values ($1, $2, 1, 'run_x', '', 1)", ENV, KEY)
        first = start(say(store, decider=claim(), runs=[run()]))
        await other.until_blocked()
        await other.commit()
        assert await answer(first) == Verdict.LOST
    assert await store.load(ENV, [run_id(1)]) == {}


async def test_firing_loses_to_the_event_that_extends_and_late_events_to_the_firing(postgres: OpenStore) -> None:
    store = postgres.store
    await put(store, decider=claim(), runs=[parked_run(turn=0)])
    for version in range(2, 22):
        fires = commit(decider=claim(version, run_id=""), enqueues=[enqueue()])
        joins = commit(decider=claim(version, value=str(version)), members=[member(version, 1)])
        tasks = [start(say(store, decider=side.decider, enqueues=side.enqueues, members=side.members))
                 for side in ((fires, joins) if version % 2 else (joins, fires))]  # fmt: skip
        said = [await answer(task) for task in tasks]
        assert sorted(said) == [Verdict.APPLIED, Verdict.LOST]
        fired = (await store.claims(ENV, [KEY]))[KEY].run_id == ""
        assert (await store.joined(ENV, [event_id(version)]) == []) is fired
        assert ((await run_row(store)).status == RunStatus.QUEUED) is fired
        if fired:
            break


async def test_claims_of_batches_in_opposite_order_are_all_answered(postgres: OpenStore) -> None:
    store = postgres.store
    for version in (1, 2, 3):
        batches = [
            [commit(decider=claim(version, n, key=f"k{m}")) for m in order]
            for n, order in ((1, range(8)), (2, range(7, -1, -1)))
        ]
        first, second = [await answer(task) for task in [start(verdicts(store, *batch)) for batch in batches]]
        pairs = zip(first, reversed(second), strict=True)
        assert all(sorted(pair) == [Verdict.APPLIED, Verdict.LOST] for pair in pairs)
