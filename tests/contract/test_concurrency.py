"""Many commits at once, on every store: each first-wins has one winner."""

from __future__ import annotations

import asyncio

from stepwell_server.model.commit import Verdict

from tests.contract.rows import by_event, by_time_out, dedup, parked_run, run, session_id, take, wait
from tests.contract.saying import keys, put, run_row, say
from tests.support.stores import FullStore


async def test_of_many_takes_at_once_one_wins(store: FullStore) -> None:
    await put(store, runs=[run()])
    answers = await asyncio.gather(*(say(store, decider=take(session=n)) for n in range(12)))
    assert sorted(answers) == [Verdict.APPLIED] + [Verdict.LOST] * 11
    row = await run_row(store)
    assert (row.turn, row.session_id) == (1, session_id(answers.index(Verdict.APPLIED)))


async def test_of_many_outcomes_of_a_wait_at_once_one_wins(store: FullStore) -> None:
    await put(store, runs=[parked_run()], waits=[wait()])
    rows = [by_time_out(), *(by_event(event_n=n) for n in range(11))]
    answers = await asyncio.gather(*(say(store, decider=row) for row in rows))
    assert sorted(answers) == [Verdict.APPLIED] + [Verdict.LOST] * 11
    assert await keys(store) == ["booking"]


async def test_of_many_requests_with_one_key_at_once_one_wins(store: FullStore) -> None:
    answers = await asyncio.gather(*(say(store, decider=dedup("r:1", f"evt_{n}")) for n in range(12)))
    assert sorted(answers) == [Verdict.APPLIED] + [Verdict.LOST] * 11


async def test_commits_that_have_nothing_in_common_are_all_applied_at_once(store: FullStore) -> None:
    answers = await asyncio.gather(*(say(store, runs=[run(n)], decider=dedup(f"r:{n}")) for n in range(40)))
    assert answers == [Verdict.APPLIED] * 40
