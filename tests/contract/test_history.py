"""Reads for people: listings with filters and page tokens, settings, deduplication and its expiry (H35)."""

from __future__ import annotations

from typing import Any

import pytest
from stepwell_server.model.commit import Verdict
from stepwell_server.model.ids import run_id_for_event
from stepwell_server.model.journal import CANCEL_KEY, StepKind
from stepwell_server.model.limits import DAY_MS
from stepwell_server.model.run import RunRow, RunStatus
from stepwell_server.model.session import SessionWrite
from stepwell_server.ports.store import RunFilter

from tests.contract.rows import (
    ENV,
    FUNCTION,
    NOW,
    dedup,
    deployment,
    event,
    event_id,
    held_run,
    outcome,
    parked_run,
    run,
    run_id,
    session,
    session_id,
)
from tests.contract.saying import dedups, put, say, stranded
from tests.support.stores import FullStore, OpenStore


def derived_id(n: int) -> str:
    """The id of the n-th of many runs, which carries the time of its event: three of them have one event."""
    return f"run_{event_id(n // 3)[4:16]}{n:020x}"


async def listed(store: FullStore, **filter_: Any) -> list[int]:
    """Which of the runs a filter lists."""
    numbers = {id_: n for n in range(1, 100) for id_ in (run_id(n), derived_id(n))}
    return [numbers[row.id] for row in await store.list_runs(ENV, RunFilter(**filter_))]


async def events_listed(store: FullStore, name: str = "", **more: Any) -> list[int]:
    numbers = {event_id(n): n for n in range(1, 100)}
    asked: dict[str, Any] = {"from_ms": None, "until_ms": None, "behind": "", "limit": 50, **more}
    return [numbers[row.id] for row in await store.list_events(ENV, name, **asked)]


async def test_events_are_read_by_id_without_those_that_are_unknown(store: FullStore) -> None:
    await put(store, events=[event(1), event(2), event(3, env="test")])
    found = await store.events(ENV, [event_id(2), event_id(3), event_id(1), event_id(9)])
    assert {row.id: row for row in found} == {event_id(1): event(1), event_id(2): event(2)}
    assert await store.events(ENV, []) == []


async def test_events_are_listed_newest_first(store: FullStore) -> None:
    await put(store, events=[event(n) for n in (2, 5, 1, 4)])
    assert await events_listed(store) == [5, 4, 2, 1]
    assert await events_listed(store, limit=2) == [5, 4]
    assert await store.list_events("test", "", None, None, "", 9) == []


async def test_events_are_listed_by_name_or_by_the_beginning_of_a_name(store: FullStore) -> None:
    names = {1: "user/a", 2: "user/b", 3: "users", 4: "order/a", 5: "user/", 6: "user_/x", 7: "user%/x", 8: "User/a"}
    await put(store, events=[event(n, name=name) for n, name in names.items()])
    assert await events_listed(store, "user/a") == [1]
    assert await events_listed(store, "user/*") == [5, 2, 1]
    assert await events_listed(store, "user*") == [7, 6, 5, 3, 2, 1]
    assert await events_listed(store, "user_*") == [6]
    assert await events_listed(store, "user%*") == [7]
    assert await events_listed(store, "*") == [8, 7, 6, 5, 4, 3, 2, 1]
    assert await events_listed(store, "nothing") == []


async def test_events_are_listed_by_the_time_of_their_acceptance(store: FullStore) -> None:
    await put(store, events=[event(n, time_ms=0) for n in range(1, 10)])
    assert await events_listed(store, from_ms=NOW + 3) == [9, 8, 7, 6, 5, 4, 3]
    assert await events_listed(store, until_ms=NOW + 3) == [2, 1]
    assert await events_listed(store, from_ms=NOW + 3, until_ms=NOW + 6) == [5, 4, 3]


async def test_events_are_listed_oldest_first(store: FullStore) -> None:
    await put(store, events=[event(n, name="a" if n % 3 else "b") for n in range(1, 8)])
    assert await events_listed(store, oldest_first=True, limit=3) == [1, 2, 3]
    assert await events_listed(store, "a", oldest_first=True, behind=event_id(2)) == [4, 5, 7]


async def test_pages_of_events_go_on_where_the_last_one_ended(store: FullStore) -> None:
    await put(store, events=[event(n, name="a" if n % 3 else "b") for n in range(1, 20)])
    paged: list[int] = []
    while page := await events_listed(store, "a", behind=event_id(paged[-1]) if paged else "", limit=4):
        paged += page
    assert paged == [n for n in range(19, 0, -1) if n % 3]


async def test_an_id_between_two_pages_is_listed_though_it_was_committed_last(store: FullStore) -> None:
    await put(store, events=[event(n) for n in (1, 2, 8, 9)], runs=[run(n) for n in (1, 2, 8, 9)])
    assert await events_listed(store, limit=2) == [9, 8]
    await put(store, events=[event(5)], runs=[run(5)])
    assert await events_listed(store, behind=event_id(8)) == [5, 2, 1]
    assert await listed(store, before=run_id(8)) == [5, 2, 1]


async def test_a_run_is_read_whole(store: FullStore) -> None:
    row = held_run(
        parent_id=run_id(9), parent_key="invoke", detached=True, depth=3, deployment="d", losses=2, input=b"in",
        input_encoding="proto", output=b"out", output_encoding="x", failure=b"{}", metadata=b'{"m":1}', ended_ms=NOW,
        status=int(RunStatus.FAILED), reason=0,
    )  # fmt: skip
    await put(store, runs=[row])
    assert await store.run(ENV, run_id(1)) == row
    assert await store.run("test", run_id(1)) is None
    assert await store.run(ENV, run_id(2)) is None


async def test_runs_are_listed_newest_first_without_input_and_output(store: FullStore) -> None:
    whole = run(2, input=b"in", output=b"out", failure=b"{}", metadata=b"{}")
    await put(store, runs=[run(1), whole, run(3, env="test")])
    rows = await store.list_runs(ENV, RunFilter())
    assert [row.id for row in rows] == [run_id(2), run_id(1)]
    assert (rows[0].input, rows[0].output) == (None, None)
    assert rows[0]._replace(input=b"in", output=b"out") == whole


def _many() -> list[RunRow]:
    """Twelve runs that differ in all that a filter can ask for."""
    return [
        run(
            n,
            id=derived_id(n),
            function_id=FUNCTION if n % 2 else "shop/other",
            app="shop" if n % 3 else "bank",
            status=int((RunStatus.QUEUED, RunStatus.PARKED, RunStatus.FAILED, RunStatus.PAUSED)[n % 4]),
            event_id=event_id(n // 3),
            parent_id=run_id(90) if n > 8 else None,
        )
        for n in range(1, 13)
    ]


FILTERS: dict[str, tuple[dict[str, Any], list[int]]] = {
    "nothing": ({}, list(range(12, 0, -1))),
    "function": ({"function_id": "shop/other"}, [12, 10, 8, 6, 4, 2]),
    "app": ({"app": "bank"}, [12, 9, 6, 3]),
    "status": ({"statuses": (int(RunStatus.FAILED),)}, [10, 6, 2]),
    "statuses": ({"statuses": (int(RunStatus.FAILED), int(RunStatus.PAUSED))}, [11, 10, 7, 6, 3, 2]),
    "live and ended": ({"statuses": tuple(int(status) for status in RunStatus)}, list(range(12, 0, -1))),
    "event": ({"event_id": event_id(2)}, [8, 7, 6]),
    "parent": ({"parent_id": run_id(90)}, [12, 11, 10, 9]),
    "from": ({"from_ms": NOW + 10}, [12, 11, 10]),
    "until": ({"until_ms": NOW + 3}, [2, 1]),
    "between": ({"from_ms": NOW + 3, "until_ms": NOW + 5}, [4, 3]),
    "before": ({"before": derived_id(4)}, [3, 2, 1]),
    "limit": ({"limit": 2}, [12, 11]),
    "function and status": ({"function_id": FUNCTION, "statuses": (int(RunStatus.PAUSED),)}, [11, 7, 3]),
    "app and function": ({"app": "bank", "function_id": FUNCTION}, [9, 3]),
    "parent and status": ({"parent_id": run_id(90), "statuses": (int(RunStatus.FAILED),)}, [10]),
    "event and app": ({"event_id": event_id(2), "app": "shop"}, [8, 7]),
    "all": (
        {
            "function_id": "shop/other",
            "app": "shop",
            "statuses": (int(RunStatus.FAILED), int(RunStatus.QUEUED)),
            "from_ms": NOW + 2,
            "until_ms": NOW + 10,
            "before": derived_id(10),
            "limit": 2,
        },
        [8, 4],
    ),
    "nobody": ({"function_id": "unknown"}, []),
}


@pytest.mark.parametrize(("filter_", "expected"), FILTERS.values(), ids=FILTERS)
async def test_runs_are_listed_by_filter(store: FullStore, filter_: dict[str, Any], expected: list[int]) -> None:
    await put(store, runs=_many())
    assert await listed(store, **filter_) == expected


async def test_an_event_lists_the_runs_whose_ids_are_derived_from_it(store: FullStore) -> None:
    ids = [run_id_for_event(ENV, event_id(5), function_id) for function_id in ("shop/a", "shop/b")]
    others = [run(5, event_id=event_id(6)), run(6, event_id=event_id(5)), run(7, id=run_id(5)[:-1] + "f")]
    await put(store, runs=[*(run(9, id=id_, event_id=event_id(5)) for id_ in ids), *others])
    rows = await store.list_runs(ENV, RunFilter(event_id=event_id(5)))
    assert [row.id for row in rows] == sorted(ids, reverse=True)


async def test_pages_of_runs_go_on_where_the_last_one_ended(store: FullStore) -> None:
    await put(store, runs=_many())
    paged: list[int] = []
    while page := await listed(store, app="shop", before=derived_id(paged[-1]) if paged else "", limit=3):
        paged += page
    assert paged == [11, 10, 8, 7, 5, 4, 2, 1]


async def test_functions_are_known_by_their_runs_and_their_deployments(store: FullStore) -> None:
    spec = b'[{"id":"shop/new","name":"new"},{"id":"shop/drip"}]'
    await put(store, runs=[run(1), run(2, function_id="shop/old"), run(3, env="test", function_id="x/y")])
    await put(store, deployments=[deployment(spec=spec), deployment(env="test")])
    assert sorted(await store.known_functions(ENV)) == ["shop/drip", "shop/new", "shop/old"]
    assert await store.known_functions("nothing") == []


async def test_runs_whose_end_was_asked_for_are_told_apart_from_those_whose_time_was_over(store: FullStore) -> None:
    await put(store, runs=[run(n) for n in range(1, 5)])
    kinds = {1: StepKind.CANCEL, 2: StepKind.TIMEOUT}
    await put(store, outcomes=[outcome(CANCEL_KEY, n=n, kind=int(kind)) for n, kind in kinds.items()])
    await put(
        store, outcomes=[outcome("booking", n=3), outcome(CANCEL_KEY, n=1, kind=int(StepKind.CANCEL), env="test")]
    )
    asked = [run_id(n) for n in (1, 2, 3, 9)]
    assert await store.cancel_requested(ENV, asked) == {run_id(1)}
    assert await store.cancel_requested(ENV, asked[1:]) == set()
    assert await store.cancel_requested(ENV, []) == set()


async def test_a_key_is_free_again_when_its_row_has_expired(opened: OpenStore) -> None:
    store = opened.store
    await put(store, decider=dedup("r:1", "evt_1", expires_ms=NOW + DAY_MS))
    at_expiry = dedup("r:1", "evt_2", expires_ms=NOW + DAY_MS + DAY_MS)
    assert await say(store, decider=at_expiry) == Verdict.LOST
    assert await say(store, decider=at_expiry._replace(expires_ms=NOW + DAY_MS + 1 + DAY_MS)) == Verdict.APPLIED
    assert await dedups(opened) == {"r:1": "evt_2"}


async def test_a_key_that_follows_a_decider_takes_the_place_of_one_that_has_expired(opened: OpenStore) -> None:
    store = opened.store
    await put(store, dedups=[dedup("e:1", "evt_1", expires_ms=NOW), dedup("e:2", "evt_1", expires_ms=NOW + DAY_MS)])
    later = NOW + 1 + DAY_MS
    await put(store, dedups=[dedup("e:1", "evt_2", expires_ms=later), dedup("e:2", "evt_2", expires_ms=later)])
    assert await dedups(opened) == {"e:1": "evt_2", "e:2": "evt_1"}


async def test_a_purge_deletes_expired_keys_and_frees_them(opened: OpenStore) -> None:
    store = opened.store
    await put(store, dedups=[dedup(f"r:{n}", "a", expires_ms=NOW + n) for n in range(1, 6)])
    assert await store.purge(NOW, 10) == 0
    assert await store.purge(NOW + 3, 10) >= 2
    left = await dedups(opened)
    assert [key for key in ("r:1", "r:2", "r:4", "r:5") if key in left] == ["r:4", "r:5"]
    assert await say(store, decider=dedup("r:1", "b")) == Verdict.APPLIED


async def test_a_purge_deletes_sessions_that_closed_a_day_ago(opened: OpenStore) -> None:
    rows = [session(1), session(2, closed_ms=NOW), session(3, closed_ms=NOW + 100)]
    for row in rows:
        await put(opened.store, decider=SessionWrite(0, row))
    assert await opened.store.purge(NOW + DAY_MS - 1, 10) == 0
    assert await opened.store.purge(NOW + DAY_MS + 1, 10) == 1
    assert [row[1] for row in (await opened.dump())["sessions"]] == [session_id(1), session_id(3)]


async def test_a_purge_deletes_at_most_what_it_was_asked_to(store: FullStore) -> None:
    await put(store, dedups=[dedup(f"r:{n}", "a", expires_ms=NOW) for n in range(5)])
    for n in range(1, 4):
        await put(store, decider=SessionWrite(0, session(n, closed_ms=NOW)))
    purged: list[int] = []
    while done := await store.purge(NOW + 2 * DAY_MS, 3):
        assert done <= 3
        purged.append(done)
    assert sum(purged) == 8


async def test_a_run_whose_session_was_purged_is_stranded(store: FullStore) -> None:
    await put(store, decider=SessionWrite(0, session(closed_ms=NOW)))
    await put(store, runs=[held_run(1), parked_run(2)])
    assert await store.purge(NOW + 2 * DAY_MS, 10) == 1
    assert [row.id for row in (await stranded(store)).held] == [run_id(1)]


async def test_runs_in_a_line_that_have_begun_are_listed_by_function(store: FullStore) -> None:
    ended = parked_run(5, line="k", status=int(RunStatus.COMPLETED), ended_ms=NOW)
    begun = run(6, line="k", turn=2, started_ms=NOW)
    elsewhere = held_run(7, line="k", function_id="other")
    await put(store, runs=[held_run(1, line="k"), parked_run(2, line="k"), held_run(3), run(4, line="k"), ended, begun])
    await put(store, runs=[elsewhere])
    assert await listed(store, function_id=FUNCTION, begun=True) == [6, 2, 1]
    assert await listed(store, function_id=FUNCTION, begun=True, before=run_id(6), limit=1) == [2]
    assert await listed(store, begun=True) == [7, 6, 2, 1]
