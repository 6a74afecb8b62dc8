"""Two connections at once, on real Postgres: a guard holds while another transaction changes what it read (H9, H19)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import asyncpg
import pytest
from stepwell_server.model.commit import Verdict
from stepwell_server.model.journal import OutcomeRow
from stepwell_server.model.run import RunStatus
from stepwell_server.model.session import LeaseWrite, SessionWrite
from stepwell_server.ports.store import Probe

from tests.contract.contention import answer, rival, start
from tests.contract.rows import (
    BOOKED,
    ENV,
    NOW,
    by_event,
    by_time_out,
    commit,
    dedup,
    end,
    enqueue,
    event,
    event_id,
    fence,
    held_run,
    lease,
    move,
    outcome,
    parked_run,
    run,
    run_id,
    session,
    session_id,
    shape,
    take,
    wait,
)
from tests.contract.saying import dedups, keys, open_keys, open_session, put, run_row, say, state
from tests.support.stores import OpenStore

LOCK_RUN = "select 1 from runs where env = $1 and id = $2 for update"
LOCK_WAIT = "select 1 from waits where env = $1 and run_id = $2 and key = $3 for update"
CLOSE_SESSION = "update sessions set epoch = epoch + 1, closed_ms = 1 where env = $1 and id = $2"
INSERT_RUN = (
    "insert into runs select env, $3, function_id, app, status, reason, turn, session_id, event_id, parent_id, "
    "parent_key, detached, depth, deployment, losses, priority, queued_ms, created_ms, started_ms, ended_ms, input, "
    "input_encoding, output, output_encoding, failure, metadata from runs where env = $1 and id = $2"
)


def lanes(opened: OpenStore) -> int:
    """How many of two concurrent batches reach the database at once."""
    return min(2, opened.store.flushers)


async def test_a_fence_waits_for_the_transaction_that_expires_its_session_and_then_fails(postgres: OpenStore) -> None:
    store = postgres.store
    await open_session(store)
    await put(store, runs=[held_run()])
    async with rival(postgres.url) as other:
        await other.execute(CLOSE_SESSION, ENV, session_id(1))
        step = start(say(store, fences=(fence(),), outcomes=[outcome(number=1)]))
        await other.until_blocked()
        await other.commit()
        assert await answer(step) == Verdict.FENCED
    assert await keys(store) == []


async def test_a_fence_holds_when_the_transaction_that_expires_its_session_rolls_back(postgres: OpenStore) -> None:
    store = postgres.store
    await open_session(store)
    await put(store, runs=[held_run()])
    async with rival(postgres.url) as other:
        await other.execute(CLOSE_SESSION, ENV, session_id(1))
        step = start(say(store, fences=(fence(),), outcomes=[outcome(number=1)]))
        await other.until_blocked()
        await other.rollback()
        assert await answer(step) == Verdict.APPLIED
    assert await keys(store) == ["charge"]


async def test_a_take_over_waits_until_a_batch_that_its_session_fences_is_done(postgres: OpenStore) -> None:
    store = postgres.store
    await open_session(store)
    await put(store, runs=[held_run(1)])
    async with rival(postgres.url) as other:
        await other.execute(INSERT_RUN, ENV, run_id(1), run_id(2))
        # The batch has its fence and waits for the rival's insert of the same run.
        step = start(say(store, fences=(fence(),), runs=[run(2)], outcomes=[outcome(number=1)]))
        await other.until_blocked()
        async with rival(postgres.url) as expiring:
            expiry = start(expiring.execute(CLOSE_SESSION, ENV, session_id(1)))
            await other.until_blocked(2)
            assert not expiry.done()
            assert not step.done()
            await other.rollback()
            assert await answer(step) == Verdict.APPLIED
            await answer(expiry)
            await expiring.commit()
    assert await keys(store) == ["charge"]
    assert await say(store, fences=(fence(),), outcomes=[outcome("late", number=2)]) == Verdict.FENCED


async def test_batches_of_one_session_do_not_wait_for_each_other(postgres: OpenStore) -> None:
    store = postgres.store
    await open_session(store)
    await put(store, runs=[held_run(1), held_run(2)])
    async with rival(postgres.url) as other:
        await other.execute("select 1 from sessions where env = $1 and id = $2 for share", ENV, session_id(1))
        step = start(say(store, fences=(fence(),), outcomes=[outcome(number=1)]))
        assert await answer(step) == Verdict.APPLIED
        await other.rollback()


async def test_a_batch_of_steps_does_not_wait_for_the_row_of_its_run(postgres: OpenStore) -> None:
    store = postgres.store
    await open_session(store)
    await put(store, runs=[held_run()])
    async with rival(postgres.url) as other:
        await other.execute(LOCK_RUN, ENV, run_id(1))
        step = start(say(store, fences=(fence(),), outcomes=[outcome(number=1)], waits=[wait()]))
        assert await answer(step) == Verdict.APPLIED
        await other.rollback()


async def test_of_two_takes_of_a_run_one_wins(postgres: OpenStore) -> None:
    store = postgres.store
    await put(store, runs=[run()])
    async with rival(postgres.url) as other:
        await other.execute(LOCK_RUN, ENV, run_id(1))
        takes = [start(say(store, decider=take(session=n), outcomes=[outcome(f"by {n}")])) for n in (1, 2)]
        await other.until_blocked(lanes(postgres))
        await other.rollback()
        answers = [await answer(task) for task in takes]
    assert sorted(answers) == [Verdict.APPLIED, Verdict.LOST]
    winner = answers.index(Verdict.APPLIED) + 1
    row = await run_row(store)
    assert (row.session_id, row.turn) == (session_id(winner), 1)
    assert await keys(store) == [f"by {winner}"]


async def test_of_two_moves_of_the_same_turn_one_wins(postgres: OpenStore) -> None:
    store = postgres.store
    await put(store, runs=[run()])
    async with rival(postgres.url) as other:
        await other.execute(LOCK_RUN, ENV, run_id(1))
        moves = [start(say(store, decider=move(session_id=session_id(n)))) for n in (1, 2)]
        await other.until_blocked(lanes(postgres))
        await other.rollback()
        answers = [await answer(task) for task in moves]
    assert sorted(answers) == [Verdict.APPLIED, Verdict.LOST]
    row = await run_row(store)
    assert (row.session_id, row.turn) == (session_id(answers.index(Verdict.APPLIED) + 1), 1)


async def test_a_take_loses_to_the_transaction_that_took_the_run_before_it(postgres: OpenStore) -> None:
    store = postgres.store
    await put(store, runs=[run()])
    async with rival(postgres.url) as other:
        await other.execute(
            "update runs set session_id = 'x', status = 2, turn = turn + 1 where env = $1 and id = $2", ENV, run_id(1)
        )
        taking = start(say(store, decider=take(), outcomes=[outcome()]))
        await other.until_blocked()
        await other.commit()
        assert await answer(taking) == Verdict.LOST
    assert await keys(store) == []


async def test_an_end_does_nothing_when_a_take_over_was_committed_before_it(postgres: OpenStore) -> None:
    store = postgres.store
    await put(store, runs=[held_run()])
    async with rival(postgres.url) as other:
        await other.execute("update runs set turn = turn + 1 where env = $1 and id = $2", ENV, run_id(1))
        ending = start(say(store, ends=[end(turn=1)]))
        await other.until_blocked()
        await other.commit()
        assert await answer(ending) == Verdict.APPLIED
    row = await run_row(store)
    assert (row.status, row.turn, row.ended_ms) == (RunStatus.RUNNING, 2, None)


async def test_of_an_end_and_a_take_over_of_one_turn_one_wins(postgres: OpenStore) -> None:
    store = postgres.store
    await put(store, runs=[held_run()])
    deciders = [end(turn=1), move(expect_turn=1, session_id=session_id(2))]
    async with rival(postgres.url) as other:
        await other.execute(LOCK_RUN, ENV, run_id(1))
        tasks = [start(say(store, decider=one, outcomes=[outcome(f"{n}")])) for n, one in enumerate(deciders)]
        await other.until_blocked(lanes(postgres))
        await other.rollback()
        answers = [await answer(task) for task in tasks]
    assert sorted(answers) == [Verdict.APPLIED, Verdict.LOST]
    winner = answers.index(Verdict.APPLIED)
    row = await run_row(store)
    assert (row.ended_ms is not None, row.turn) == ((True, 1), (False, 2))[winner]
    assert await keys(store) == [f"{winner}"]


async def test_a_batch_that_mixes_rare_and_plain_commits_holds_every_fence(postgres: OpenStore) -> None:
    store = postgres.store
    await open_session(store, 1)
    await open_session(store, 2)
    batch = [
        commit(fences=(fence(1),), runs=[run(1)]),
        commit(fences=(fence(1),), runs=[run(2)], shapes=[shape("a")]),
        commit(fences=(fence(2),), runs=[run(3)], shapes=[shape("b")]),
        commit(fences=(fence(2),), runs=[run(4)]),
    ]
    async with rival(postgres.url) as other:
        await other.execute(CLOSE_SESSION, ENV, session_id(1))
        task = start(store.commit(batch))
        await other.until_blocked()
        await other.commit()
        answers = [result.verdict for result in await answer(task)]
    assert answers == [Verdict.FENCED, Verdict.FENCED, Verdict.APPLIED, Verdict.APPLIED]
    assert set(await store.load(ENV, [run_id(n) for n in (1, 2, 3, 4)])) == {run_id(3), run_id(4)}


async def test_of_an_event_and_a_time_out_in_two_batches_one_wins(postgres: OpenStore) -> None:
    store = postgres.store
    await put(store, runs=[parked_run()], waits=[wait()])
    rivals: list[OutcomeRow] = [by_event(), by_time_out()]
    async with rival(postgres.url) as other:
        await other.execute(LOCK_WAIT, ENV, run_id(1), "booking")
        tasks = [start(say(store, decider=row, runs=[run(10 + n)])) for n, row in enumerate(rivals)]
        await other.until_blocked(lanes(postgres))
        await other.rollback()
        answers = [await answer(task) for task in tasks]
    assert sorted(answers) == [Verdict.APPLIED, Verdict.LOST]
    winner = answers.index(Verdict.APPLIED)
    assert (await state(store)).outcomes == (rivals[winner],)
    assert await open_keys(store) == []
    assert list(await store.load(ENV, [run_id(10), run_id(11)])) == [run_id(10 + winner)]


async def test_a_time_out_loses_to_an_abandonment_that_was_committed_before_it(postgres: OpenStore) -> None:
    store = postgres.store
    await put(store, runs=[parked_run()], waits=[wait()])
    async with rival(postgres.url) as other:
        await other.execute("delete from waits where env = $1 and run_id = $2", ENV, run_id(1))
        time_out = start(say(store, decider=by_time_out()))
        follower = start(say(store, resolves=[by_event()]))
        await other.until_blocked(lanes(postgres))
        await other.commit()
        assert await answer(time_out) == Verdict.LOST
        assert await answer(follower) == Verdict.APPLIED
    assert await keys(store) == []


async def test_of_two_requests_with_one_key_the_second_learns_what_the_first_was_given(postgres: OpenStore) -> None:
    store = postgres.store
    async with rival(postgres.url) as other:
        await other.execute("insert into dedup values ($1, 'r:1', 'theirs', $2)", ENV, dedup().expires_ms)
        ours = start(store.commit([commit(decider=dedup("r:1", "ours"), runs=[run()])]))
        await other.until_blocked()
        await other.commit()
        [result] = await answer(ours)
    assert (result.verdict, result.existing) == (Verdict.LOST, "theirs")
    assert await store.load(ENV, [run_id(1)]) == {}


async def test_a_request_wins_when_the_first_one_was_rolled_back(postgres: OpenStore) -> None:
    store = postgres.store
    async with rival(postgres.url) as other:
        await other.execute("insert into dedup values ($1, 'r:1', 'theirs', $2)", ENV, dedup().expires_ms)
        ours = start(say(store, decider=dedup("r:1", "ours")))
        await other.until_blocked()
        await other.rollback()
        assert await answer(ours) == Verdict.APPLIED
    assert await dedups(postgres) == {"r:1": "ours"}


async def test_of_two_nodes_that_adopt_a_session_one_wins(postgres: OpenStore) -> None:
    store = postgres.store
    await open_session(store)
    async with rival(postgres.url) as other:
        await other.execute("select 1 from sessions where env = $1 and id = $2 for update", ENV, session_id(1))
        writes = [SessionWrite(1, session(epoch=2, node=f"node-{n}")) for n in (2, 3)]
        tasks = [start(say(store, decider=write)) for write in writes]
        await other.until_blocked(lanes(postgres))
        await other.rollback()
        answers = [await answer(task) for task in tasks]
    assert sorted(answers) == [Verdict.APPLIED, Verdict.LOST]
    assert await store.sessions(ENV) == [writes[answers.index(Verdict.APPLIED)].row]


async def test_of_two_nodes_that_take_a_free_lease_the_second_loses(postgres: OpenStore) -> None:
    store = postgres.store
    async with rival(postgres.url) as other:
        await other.execute("insert into leases values ('serve', 'node-2', 1, '')")
        ours = start(say(store, decider=LeaseWrite("", 0, lease("node-1", 1))))
        await other.until_blocked()
        await other.commit()
        assert await answer(ours) == Verdict.LOST
    assert await store.lease("serve") == lease("node-2", 1)


async def test_an_event_that_commits_after_a_wait_has_looked_back_finds_the_wait(postgres: OpenStore) -> None:
    store = postgres.store
    await put(store, runs=[held_run()])
    async with rival(postgres.url) as other:
        await other.execute(INSERT_RUN, ENV, run_id(1), run_id(2))
        # The event is written and not committed: its batch waits for the rival's insert of the same run.
        arriving = start(say(store, events=[event(9, name=BOOKED)], runs=[run(2)]))
        await other.until_blocked()
        if store.flushers == 1:
            await other.rollback()
        await put(store, waits=[wait(match_key="u1", after_event=event_id(1))])
        looked = await store.look_back(ENV, BOOKED, event_id(1), 10)
        if store.flushers > 1:
            assert looked == []
            await other.rollback()
        assert await answer(arriving) == Verdict.APPLIED
        matched = (await store.match(ENV, [Probe(BOOKED, ("u1",))])).waits
    assert [row.key for row in matched] == ["booking"]


async def test_a_wait_and_an_event_that_commit_at_once_never_miss_each_other(postgres: OpenStore) -> None:
    store = postgres.store
    await put(store, runs=[held_run()])

    async def event_side(n: int) -> bool:
        await put(store, events=[event(n, name=BOOKED)])
        return bool((await store.match(ENV, [Probe(BOOKED, (f"u{n}",))])).waits)

    async def wait_side(n: int) -> bool:
        await put(store, waits=[wait(f"w{n}", match_key=f"u{n}", after_event=event_id(n - 1))])
        return bool(await store.look_back(ENV, BOOKED, event_id(n - 1), 10))

    for n in range(1, 41):
        sides = [start(side(n)) for side in ((event_side, wait_side) if n % 2 else (wait_side, event_side))]
        assert any([await answer(side) for side in sides])


async def test_the_version_that_a_match_reads_counts_every_registration_that_was_answered(postgres: OpenStore) -> None:
    store = postgres.store
    tasks = [start(say(store, shapes=[shape(f"p{n}"), shape("shared")])) for n in range(10)]
    assert [await answer(task) for task in tasks] == [Verdict.APPLIED] * 10
    registry = await store.registry(ENV)
    assert len(registry.shapes) == 11
    assert (await store.match(ENV, [])).registry_version == registry.version >= 2


async def test_batches_that_touch_the_same_rows_in_opposite_order_are_all_answered(postgres: OpenStore) -> None:
    store = postgres.store
    for n in range(1, 9):
        await open_session(store, n)
    await put(store, runs=[held_run(n) for n in range(1, 9)])
    await put(store, waits=[wait(f"r{n}", n) for n in range(1, 9)])
    for turn in range(1, 4):
        forth = [
            commit(decider=move(n, turn), fences=(fence(9 - n),), shapes=[shape(f"{turn}/{n}")]) for n in range(1, 9)
        ]
        back = [
            commit(decider=move(n, turn, losses=1), fences=(fence(n),), shapes=[shape(f"{turn}/{n}")])
            for n in range(8, 0, -1)
        ]
        tasks = [start(store.commit(forth)), start(store.commit(back))]
        first, second = [await answer(task) for task in tasks]
        pairs = zip(first, reversed(second), strict=True)
        assert all(sorted((a.verdict, b.verdict)) == [Verdict.APPLIED, Verdict.LOST] for a, b in pairs)


@pytest.mark.parametrize("field", ["move", "take", "end", "moves", "takes", "enqueues", "ends"])
async def test_the_runs_of_a_batch_are_locked_in_the_order_of_their_ids(postgres: OpenStore, field: str) -> None:
    store = postgres.store
    changes: dict[str, Callable[[int], Any]] = {
        "move": move, "take": take, "end": end, "moves": move, "takes": take, "enqueues": enqueue, "ends": end
    }  # fmt: skip
    await put(store, runs=[parked_run(n, turn=0 if field.startswith("move") else 1) for n in range(1, 9)])
    rows = [changes[field](n) for n in (8, 3, 5, 1, 7, 2, 6, 4)]
    batch = [commit(**{field: [row]}) if field.endswith("s") else commit(decider=row) for row in rows]
    async with rival(postgres.url) as other:
        await other.execute(LOCK_RUN, ENV, run_id(4))
        task = start(store.commit(batch))
        await other.until_blocked()
        async with rival(postgres.url) as probe:
            for n in (5, 6, 7, 8):
                await probe.execute(f"{LOCK_RUN} nowait", ENV, run_id(n))
            for n in (1, 2, 3):
                await probe.execute("savepoint before")
                with pytest.raises(asyncpg.LockNotAvailableError):
                    await probe.execute(f"{LOCK_RUN} nowait", ENV, run_id(n))
                await probe.execute("rollback to before")
            await probe.rollback()
        await other.rollback()
        assert [result.verdict for result in await answer(task)] == [Verdict.APPLIED] * 8


async def test_a_commit_that_is_answered_is_seen_by_every_read_though_many_are_in_flight(postgres: OpenStore) -> None:
    store = postgres.store

    async def write_then_read(n: int) -> bool:
        await put(store, events=[event(n)], runs=[run(n)], waits=[wait(n=n, due_ms=NOW)])
        return (await state(store, n)).run == run(n)

    tasks = [start(write_then_read(n)) for n in range(1, 41)]
    assert all([await answer(task) for task in tasks])
    assert len(await store.due(NOW, 100)) == 40
