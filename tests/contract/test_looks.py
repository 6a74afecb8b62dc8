"""Bounded looks through history, over every store: conditions, error types, and failures gathered by error."""

from __future__ import annotations

import os
import random
from typing import Any

import orjson
import pytest
from stepwell_server.adapters.local.clock import SystemClock
from stepwell_server.adapters.local.limiter import LocalLimiter
from stepwell_server.adapters.local.queue import LocalQueue
from stepwell_server.engine import listing, scan, trouble
from stepwell_server.engine.lane import Lane
from stepwell_server.engine.listing import EventFilter
from stepwell_server.engine.node import Node
from stepwell_server.engine.trouble import FailureFilter
from stepwell_server.model.errors import InvalidError, NotFoundError
from stepwell_server.model.run import RunRow, RunStatus
from stepwell_server.ports.store import RunFilter

from tests.contract.rows import ENV, FUNCTION, NOW, event, event_id, run, run_id
from tests.contract.saying import put
from tests.support.stores import FullStore

FAILED, TIMED_OUT, SKIPPED = RunStatus.FAILED, RunStatus.TIMED_OUT, RunStatus.SKIPPED
CANCELLED, PAUSED, COMPLETED = RunStatus.CANCELLED, RunStatus.PAUSED, RunStatus.COMPLETED


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, no look ends by its time."""
    monkeypatch.setattr(scan, "LOOK_MS", 1_000_000)


def node_of(store: FullStore) -> Node:
    return Node(
        id_="n", store=store, history=store, claims=store, homes=store, lane=Lane(store), clock=SystemClock(),
        queue=LocalQueue(store), limiter=LocalLimiter(), entropy=os.urandom, chance=random.random,
    )  # fmt: skip


def ended(n: int, status: RunStatus, message: str = "no user 7", type_: str = "ValueError", **more: Any) -> RunRow:
    failure = orjson.dumps({"type": type_, "message": message})
    return run(n, status=int(status), ended_ms=NOW + 100 + n, **{"failure": failure, **more})


async def events_of(store: FullStore, **filter_: Any) -> list[int]:
    """All events of all pages; a page is as small as it may be."""
    node, found = node_of(store), list[int]()
    numbers = {event_id(n): n for n in range(2_000)}
    token = ""
    while True:
        page = await listing.list_events(node, ENV, EventFilter(behind=token, limit=2, **filter_))
        found.extend(numbers[row.id] for row in page.rows)
        token = page.token
        if not token:
            return found


async def test_events_are_listed_by_condition(store: FullStore) -> None:
    rows = [event(n, name="a" if n % 2 else "b", data=b'{"n":%d}' % n) for n in range(1, 300)]
    await put(store, events=[*rows, event(300, data=b"\xff", encoding="proto"), event(301, data=b"")])
    assert await events_of(store, condition="event.data.n < 6") == [5, 4, 3, 2, 1]
    assert await events_of(store, condition="event.data.n < 6", name="a") == [5, 3, 1]
    assert await events_of(store, condition='event.name == "b" && event.data.n > 295') == [298, 296]
    assert await events_of(store, condition="event.data.missing == 1") == []
    times = {"from_ms": NOW + 4, "until_ms": NOW + 7}
    assert await events_of(store, **times) == [6, 5, 4]
    assert await events_of(store, condition="event.data.n != 5", **times) == [6, 4]
    assert await events_of(store, from_ms=NOW + 4, until_ms=NOW + 4) == []
    assert await events_of(store, from_ms=2**62, until_ms=2**62 + 1) == []
    assert await events_of(store, oldest_first=True, **times) == [4, 5, 6]
    assert await events_of(store, oldest_first=True, condition="event.data.n < 4", until_ms=NOW + 99) == [1, 2, 3]
    assert await events_of(store, oldest_first=True, from_ms=2**62) == []


async def test_a_page_of_large_events_ends_early(store: FullStore) -> None:
    await put(store, events=[event(n, data=b'{"x":"%s"}' % (b"x" * 900_000)) for n in range(1, 8)])
    page = await listing.list_events(node_of(store), ENV, EventFilter(limit=1_000))
    assert [row.id for row in page.rows] == [event_id(7), event_id(6), event_id(5)]
    assert page.token == event_id(5)


async def test_a_look_that_finds_little_ends_with_a_token(store: FullStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "ROWS", 10)
    await put(store, events=[event(n, data=b'{"n":%d}' % n) for n in range(1, 26)])
    node = node_of(store)
    seen: list[tuple[int, int, str]] = []
    token = ""
    for _ in range(3):
        page = await listing.list_events(node, ENV, EventFilter(condition="event.data.n == 3", behind=token))
        seen.append((len(page.rows), page.scanned, page.token))
        token = page.token
    assert seen == [(0, 10, event_id(16)), (0, 10, event_id(6)), (1, 5, "")]


RUNS = [
    ended(1, FAILED, event_id=event_id(1)),
    ended(2, FAILED, type_="KeyError", function_id="shop/other", app="bank"),
    ended(3, COMPLETED, failure=None, output=b'{"total":30}'),
    ended(4, COMPLETED, failure=None, output=b'{"total":4}', event_id=event_id(4)),
    run(5, status=int(RunStatus.PARKED), event_id=None, parent_id=run_id(90), input=b'{"n":50}'),
    ended(6, SKIPPED, type_="KeyError"),
    run(7, output=b"\xff", output_encoding="proto"),
    ended(8, CANCELLED, failure=orjson.dumps({"type": "StepError", "cause": {"type": "KeyError", "message": ""}})),
]
CONDITIONS: list[tuple[dict[str, Any], str, str, list[int]]] = [
    ({}, "output.total > 10", "", [3]),
    ({}, "event.data.n == 4", "", [4]),
    ({}, "event.data.n == 50 && event.name == 'stepwell/function.invoked'", "", [5]),
    ({}, "run.status == 'PARKED' && run.error == null && run.ended_ms == null", "", [5]),
    ({}, "run.error.type == 'ValueError'", "", [1]),
    ({}, f"run.created_ms >= {NOW + 7}", "", [8, 7]),
    ({"function_id": "shop/other"}, "true", "", [2]),
    ({"app": "bank"}, "true", "", [2]),
    ({"statuses": (int(COMPLETED),)}, "output.total < 10", "", [4]),
    ({"statuses": (int(FAILED), int(SKIPPED))}, "true", "", [6, 2, 1]),
    ({"statuses": (int(FAILED),), "function_id": FUNCTION}, "true", "", [1]),
    ({"event_id": event_id(4)}, "true", "", [4]),
    ({"parent_id": run_id(90)}, "event.data.n > 1", "", [5]),
    ({"from_ms": NOW + 3, "until_ms": NOW + 5}, "true", "", [4, 3]),
    ({}, "", "KeyError", [8, 2]),
    ({"statuses": (int(SKIPPED),)}, "", "KeyError", [6]),
    ({"function_id": FUNCTION}, "run.status == 'CANCELLED'", "KeyError", [8]),
    ({}, "", "NoSuchError", []),
    ({}, "output.total.x > 1", "", []),
]


@pytest.mark.parametrize(("filter_", "condition", "error_type", "expected"), CONDITIONS)
async def test_runs_are_listed_by_condition_and_error_type(
    store: FullStore, filter_: dict[str, Any], condition: str, error_type: str, expected: list[int]
) -> None:
    await put(store, runs=RUNS, events=[event(1), event(4)])
    found: list[RunRow] = []
    token = ""
    while True:
        asked = RunFilter(**filter_, before=token, limit=1)
        page, _ = await listing.list_runs(node_of(store), ENV, asked, condition, error_type)
        found.extend(page.rows)
        token = page.token
        if not token:
            break
    assert [row.id for row in found] == [run_id(n) for n in expected]
    assert all((row.input, row.output) == (None, None) for row in found)


async def test_what_cannot_be_judged_is_counted_and_left_out(store: FullStore) -> None:
    numbers = orjson.dumps({"n": list(range(2_000))})
    await put(store, events=[event(1, data=numbers), event(2)])
    costly = "event.data.n.all(a, event.data.n.all(b, a + b >= 0))"
    page = await listing.list_events(node_of(store), ENV, EventFilter(condition=costly))
    assert ([row.id for row in page.rows], page.scanned, page.unjudged) == ([], 2, 1)


BAD_RUNS = [
    ({}, "run.status ==", "", "BAD_EXPRESSION"),
    ({}, "1 + 1", "", "BAD_EXPRESSION"),
    ({}, "nobody.knows", "", "BAD_EXPRESSION"),
    ({}, "x" * 10_000, "", "BAD_EXPRESSION"),
    ({}, "", "a\0b", "BAD_TEXT"),
    ({"before": "evt_1"}, "true", "", "BAD_PAGE_TOKEN"),
    ({"limit": 0}, "true", "", "BAD_PAGE_SIZE"),
]


@pytest.mark.parametrize(("filter_", "condition", "error_type", "reason"), BAD_RUNS)
async def test_a_filter_that_cannot_be_is_refused(
    store: FullStore, filter_: dict[str, Any], condition: str, error_type: str, reason: str
) -> None:
    with pytest.raises(InvalidError) as refused:
        await listing.list_runs(node_of(store), ENV, RunFilter(**filter_), condition, error_type)
    assert refused.value.reason == reason


TROUBLED = [
    ended(1, FAILED, "no user 1"),
    ended(2, FAILED, "no user 2"),
    ended(3, FAILED, "no user 3", function_id="shop/other"),
    ended(4, TIMED_OUT, "it took 5 s", type_=""),
    ended(5, CANCELLED, "the run was cancelled", type_=""),
    run(6, status=int(PAUSED), failure=b'{"message":"does not fit"}'),
    ended(7, SKIPPED, "skipped: 3 run already"),
    ended(8, FAILED, "no user 8", app="bank"),
    ended(9, COMPLETED, failure=None),
]
GROUPS: list[tuple[dict[str, Any], list[tuple[int, int]]]] = [
    ({}, [(8, 3), (4, 1), (3, 1)]),
    ({"statuses": frozenset({CANCELLED, PAUSED})}, [(5, 1), (6, 1)]),
    ({"statuses": trouble.STATUSES}, [(8, 3), (7, 1), (5, 1), (4, 1), (3, 1), (6, 1)]),
    ({"statuses": frozenset({SKIPPED})}, [(7, 1)]),
    ({"function_ids": frozenset({"shop/other"})}, [(3, 1)]),
    ({"function_ids": frozenset({"shop/other", FUNCTION})}, [(8, 3), (4, 1), (3, 1)]),
    ({"app": "bank"}, [(8, 1)]),
    ({"from_ms": NOW + 103}, [(8, 1), (4, 1), (3, 1)]),
    ({"from_ms": NOW + 103, "until_ms": NOW + 104}, [(3, 1)]),
    ({"from_ms": NOW + 10**9}, []),
    ({"from_ms": NOW + 10**9, "statuses": frozenset({PAUSED})}, [(6, 1)]),
]


@pytest.mark.parametrize(("filter_", "expected"), GROUPS)
async def test_failures_are_gathered_by_function_and_error(
    store: FullStore, filter_: dict[str, Any], expected: list[tuple[int, int]]
) -> None:
    await put(store, runs=TROUBLED)
    page = await trouble.list_failures(node_of(store), ENV, FailureFilter(**filter_))
    assert [(group.run_id, group.count) for group in page.groups] == [(run_id(n), count) for n, count in expected]
    assert page.token == ""


async def test_a_group_says_when_it_was_seen_and_what_it_is(store: FullStore) -> None:
    await put(store, runs=TROUBLED)
    group = (await trouble.list_failures(node_of(store), ENV, FailureFilter())).groups[0]
    assert (group.first_ms, group.last_ms, group.statuses) == (NOW + 101, NOW + 108, {int(FAILED)})
    assert (group.function_id, group.error.type, group.error.message) == (FUNCTION, "ValueError", "no user <n>")


async def test_pages_of_failures_look_at_every_run_once(store: FullStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "ROWS", 30)
    await put(store, runs=[ended(n, FAILED, f"{'abc'[n % 3]} broke {n}") for n in range(1, 101)])
    node, counts, scanned, token = node_of(store), dict[str, int](), list[int](), ""
    while True:
        page = await trouble.list_failures(node, ENV, FailureFilter(before=token))
        for group in page.groups:
            counts[group.error.message] = counts.get(group.error.message, 0) + group.count
        scanned.append(page.scanned)
        token = page.token
        if not token:
            break
    assert counts == {"a broke <n>": 33, "b broke <n>": 34, "c broke <n>": 33}
    assert scanned == [30, 30, 30, 10]
    two = await trouble.list_failures(node, ENV, FailureFilter(limit=2))
    assert (len(two.groups), two.scanned, two.token) == (2, 2, run_id(99))


BAD_FAILURES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"function_ids": frozenset({"shop/unknown"})}, NotFoundError, "FUNCTION_NOT_FOUND"),
    ({"function_ids": frozenset({"a\0b"})}, InvalidError, "BAD_TEXT"),
    ({"function_ids": frozenset(map(str, range(101)))}, InvalidError, "TOO_LARGE"),
    ({"app": "a\0b"}, InvalidError, "BAD_TEXT"),
    ({"statuses": frozenset({COMPLETED})}, InvalidError, "BAD_STATUS"),
    ({"from_ms": NOW, "until_ms": NOW}, InvalidError, "BAD_RANGE"),
    ({"before": "run_x"}, InvalidError, "BAD_PAGE_TOKEN"),
    ({"limit": 1_001}, InvalidError, "BAD_PAGE_SIZE"),
]


@pytest.mark.parametrize(("filter_", "error", "reason"), BAD_FAILURES)
async def test_a_filter_of_failures_that_cannot_be_is_refused(
    store: FullStore, filter_: dict[str, Any], error: type[Exception], reason: str
) -> None:
    with pytest.raises(error) as refused:
        await trouble.list_failures(node_of(store), ENV, FailureFilter(**filter_))
    assert getattr(refused.value, "reason", "") == reason
