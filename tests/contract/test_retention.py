"""What is no longer kept goes by end time, page by page, with all it has; never what lives (H35)."""

from __future__ import annotations

from stepwell_server.model.claim import MemberRow
from stepwell_server.model.run import RunStatus
from stepwell_server.ports.retention import Expiry, Oldest, Page

from tests.contract.rows import ENV, FUNCTION, NOW, cursor, event, event_id, outcome, parked_run, run, run_id, wait
from tests.contract.saying import put
from tests.support.stores import FullStore, OpenStore

COMPLETED, FAILED = RunStatus.COMPLETED, RunStatus.FAILED
FIRST, LAST = "run_", "run_z"


def ended_run(n: int, ended_ms: int = NOW, status: RunStatus = COMPLETED, **changes: object):
    return run(n, status=status, ended_ms=ended_ms, **changes)


async def runs_of(opened: OpenStore) -> list[str]:
    return sorted(row[1] for row in (await opened.dump())["runs"])


async def test_runs_that_ended_long_enough_ago_go_with_their_journal(opened: OpenStore) -> None:
    store = opened.store
    await put(
        store,
        runs=[ended_run(1), ended_run(2, NOW + 1), ended_run(3, status=FAILED), parked_run(4), run(5)],
        outcomes=[outcome("a", n, number=1) for n in range(1, 6)] + [outcome("b", n, number=None) for n in range(1, 6)],
        members=[MemberRow(ENV, event_id(n), FUNCTION, run_id(n)) for n in (1, 2)],
        waits=[wait("open", 4)],
    )
    before = await opened.dump()
    page = await store.retention.forget_runs(ENV, FIRST, LAST, [Expiry(COMPLETED, NOW + 1)], 100)
    assert page == Page("", 1)
    after = await opened.dump()
    assert await runs_of(opened) == [run_id(n) for n in (2, 3, 4, 5)]
    for table in ("runs", "outcomes", "members"):
        assert after[table] == [row for row in before[table] if run_id(1) not in row]
    assert {table: after[table] for table in after if table not in ("runs", "outcomes", "members")} == {
        table: before[table] for table in before if table not in ("runs", "outcomes", "members")
    }
    assert await store.run(ENV, run_id(1)) is None
    assert await store.load(ENV, [run_id(1)]) == {}


async def test_h35_a_live_run_never_goes(opened: OpenStore) -> None:
    store = opened.store
    live = [run(n, status=RunStatus(n)) for n in (1, 2, 3, 4)]
    await put(store, runs=live)
    expiries = [Expiry(status, NOW * 2) for status in RunStatus]
    assert await store.retention.forget_runs(ENV, FIRST, LAST, expiries, 100) == Page("", 0)
    assert len(await runs_of(opened)) == 4


async def test_runs_go_page_by_page_between_two_ids(opened: OpenStore) -> None:
    store = opened.store
    await put(store, runs=[ended_run(n) for n in range(1, 8)], outcomes=[outcome(f"k{k}", 2) for k in range(9)])
    expiries = [Expiry(COMPLETED, NOW + 1)]
    assert await store.retention.forget_runs(ENV, run_id(1), run_id(7), expiries, 3) == Page(run_id(4), 3)
    assert await store.retention.forget_runs(ENV, run_id(4), run_id(7), expiries, 3) == Page("", 2)
    assert await runs_of(opened) == [run_id(1), run_id(7)]
    assert (await opened.dump())["outcomes"] == []


async def test_other_environments_keep_theirs(opened: OpenStore) -> None:
    store = opened.store
    await put(store, runs=[ended_run(1), ended_run(1, env="test")], events=[event(1), event(1, env="test")])
    assert (await store.retention.forget_runs(ENV, FIRST, LAST, [Expiry(COMPLETED, NOW + 1)], 9)).removed == 1
    assert (await store.retention.forget_events(ENV, "evt_", "evt_z", 9)).removed == 1
    assert [row[0] for row in (await opened.dump())["runs"]] == ["test"]
    assert [row[0] for row in (await opened.dump())["events"]] == ["test"]


async def test_events_go_page_by_page_unless_they_are_part_of_a_batch(store: FullStore) -> None:
    await put(
        store,
        events=[event(n) for n in range(1, 7)],
        members=[MemberRow(ENV, event_id(2), FUNCTION, run_id(9))],
    )
    assert await store.retention.forget_events(ENV, "evt_", event_id(6), 3) == Page(event_id(3), 2)
    assert await store.retention.forget_events(ENV, event_id(3), event_id(6), 3) == Page("", 2)
    left = await store.list_events(ENV, "", None, None, "", 50)
    assert [row.id for row in left] == [event_id(6), event_id(2)]


async def test_what_is_oldest_is_known(store: FullStore) -> None:
    assert await store.retention.oldest(ENV) == Oldest("", "")
    await put(store, runs=[run(3), run(2), run(1, env="test")], cursors=[cursor(5), cursor(4)])
    assert await store.retention.oldest(ENV) == Oldest(event_id(4), run_id(2))
