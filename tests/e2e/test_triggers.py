"""Events start runs: triggers of every kind, idempotent sends, and what can be asked about events."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import pytest
from stepwell.api_errors import AlreadyExistsError
from stepwell.event import NewEvent
from stepwell.values import EventOutcome, RunStatus

from tests.e2e.conftest import World
from tests.support.servers import ended, reached, until


def runs_of(world: World, event_id: str) -> dict[str, Any]:
    """Outputs by function of the runs that an event started, once all have ended."""
    found = [ended(world.client, run_id) for run_id in world.client.get_event(event_id).run_ids]
    return {run.function_id.removeprefix("features/"): run.output for run in found}


TRIGGERS = [
    ("t/exact", {}, {}, {"by_name": "t/exact"}),
    ("t/exacts", {}, {}, {}),
    ("t/wild/a/b", {}, {}, {"by_wildcard": "t/wild/a/b"}),
    ("t/wild", {}, {}, {}),
    ("t/cond", {"amount": 11}, {"kind": "big"}, {"by_condition": 11}),
    ("t/cond", {"amount": 10}, {"kind": "big"}, {}),
    ("t/cond", {"amount": 11}, {}, {}),
    ("t/cond", {}, {"kind": "big"}, {}),
    ("t/cond", {"amount": "11"}, {"kind": "big"}, {}),
    ("t/one", {}, {}, {"by_several": "t/one"}),
    ("t/other", {}, {}, {"by_several": "t/other"}),
    ("t/two", {"yes": True}, {}, {"by_several": "t/two"}),
    ("t/two", {"yes": False}, {}, {}),
    ("t/fan", {}, {}, {"fan_a": "a", "fan_b": "b"}),
    ("nobody/listens", {}, {}, {}),
]


@pytest.mark.parametrize(("name", "data", "metadata", "expected"), TRIGGERS)
def test_an_event_starts_one_run_of_each_function_that_it_fits(
    world: World, name: str, data: Any, metadata: dict[str, str], expected: dict[str, Any]
) -> None:
    event_id = world.client.send(name, data, metadata=metadata)
    assert runs_of(world, event_id) == expected


def test_an_event_sent_twice_with_its_id_is_one_event(world: World) -> None:
    own = f"order-{uuid.uuid4().hex}"
    first, again = world.client.send_many([NewEvent("t/exact", {}, own), NewEvent("t/exact", {"x": 1}, own)])
    assert {first.outcome, again.outcome} == {EventOutcome.ACCEPTED, EventOutcome.DUPLICATE}
    assert first.event_id == again.event_id
    assert world.client.send("t/exact", {}, id=own) == first.event_id
    stored = world.client.get_event(first.event_id)
    assert stored.event.sender_id == own
    assert len(stored.run_ids) == 1


def test_a_condition_that_takes_too_long_starts_nothing_and_is_shown(world: World) -> None:
    client = world.client
    assert client.get_event(client.send("t/costly", {"l": [1, 2]})).run_ids
    assert client.get_function("features/costly").unjudged == ""
    event_id = client.send("t/costly", {"l": list(range(20_000))})
    assert client.get_event(event_id).run_ids == ()
    said = client.get_function("features/costly").unjudged
    assert event_id in said
    assert "Iteration budget exceeded" in said
    listed = {one.id: one.unjudged for one in client.functions("features")}
    assert (listed["features/costly"], listed["features/echo"]) == (said, "")


def test_a_wait_whose_condition_takes_too_long_says_so_and_waits_on(world: World) -> None:
    client, user = world.client, uuid.uuid4().hex
    wait = {"event": "w/costly", "match": "data.u", "if_": "async.data.l.all(x, x >= 0)", "timeout": "30s"}
    (run_id,) = client.get_event(client.send("w/start", {"u": user, "waits": [wait]})).run_ids
    reached(client, run_id, lambda run: any(one.event == "w/costly" for one in run.waiting_for))
    event_id = client.send("w/costly", {"u": user, "l": list(range(20_000))})
    run = reached(client, run_id, lambda run: event_id in run.waiting_for[0].message)
    assert "could not be judged" in run.waiting_for[0].message
    client.send("w/costly", {"u": user, "l": [1], "n": 5})
    assert ended(client, run_id).output == [5]


def test_a_request_sent_twice_is_answered_again(world: World) -> None:
    request = uuid.uuid4().hex
    events = [NewEvent("t/exact", {"n": n}) for n in range(3)]
    first = world.client.send_many(events, request_id=request)
    again = world.client.send_many(events, request_id=request)
    assert [status.outcome for status in again] == [EventOutcome.DUPLICATE] * 3
    assert [status.event_id for status in again] == [status.event_id for status in first]
    with pytest.raises(AlreadyExistsError) as raised:
        world.client.send_many([NewEvent("t/exact", {"n": 9})], request_id=request)
    assert raised.value.reason == "REQUEST_ID_REUSED"


def test_many_senders_of_one_id_store_one_event(world: World) -> None:
    own, found = uuid.uuid4().hex, list[str]()
    threads = [
        threading.Thread(target=lambda: found.append(world.client.send("t/exact", {}, id=own))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(world.client.get_event(found[0]).run_ids) == 1


def test_events_are_listed_by_name_and_time_over_pages(world: World) -> None:
    name = f"list/{uuid.uuid4().hex}"
    sent = [status.event_id for status in world.client.send_many([NewEvent(f"{name}/{n % 2}") for n in range(7)])]
    assert sorted(one.event.id for one in world.client.list_events(f"{name}/*", page_size=2)) == sorted(sent)
    assert sorted(one.event.id for one in world.client.list_events(f"{name}/1", page_size=2)) == sorted(sent[1::2])
    accepted = world.client.get_event(sent[0]).accepted
    assert list(world.client.list_events(f"{name}/*", until=accepted)) == []
    assert len(list(world.client.list_events(f"{name}/*", since=accepted))) == 7


def test_events_are_watched_as_they_are_accepted(world: World) -> None:
    name = f"watch/{uuid.uuid4().hex}"
    seen: list[str] = []

    def watch() -> None:
        for one in world.client.watch_events(f"{name}/*"):
            seen.append(one.event.name)
            if one.event.name.endswith("/end"):
                return

    thread = threading.Thread(target=watch)
    thread.start()
    # The watch sees what comes after it began, and says nothing when it has: so its first event is sent until seen.
    until(lambda: world.client.send(f"{name}/begin") and seen, "the watch has begun")
    world.client.send("other/name")
    world.client.send(f"{name}/end")
    thread.join(20)
    assert set(seen) == {f"{name}/begin", f"{name}/end"}


def test_listing_runs_by_filter_and_page(world: World) -> None:
    client = world.client
    event_id = client.send("t/fan")
    runs_of(world, event_id)
    mine = list(client.list_runs(event_id=event_id, page_size=1))
    assert {run.function_id for run in mine} == {"features/fan_a", "features/fan_b"}
    assert [run.function_id for run in client.list_runs(event_id=event_id, function="features/fan_a")] == [
        "features/fan_a"
    ]
    assert list(client.list_runs(event_id=event_id, statuses=[RunStatus.FAILED])) == []
    assert len(list(client.list_runs(event_id=event_id, statuses=[RunStatus.COMPLETED, RunStatus.FAILED]))) == 2
    assert len(list(client.list_runs(event_id=event_id, app="features"))) == 2
    assert list(client.list_runs(event_id=event_id, app="nobody")) == []
    assert list(client.list_runs(event_id=event_id, until=mine[-1].created)) == []
    assert len(list(client.list_runs(event_id=event_id, since=mine[-1].created))) == 2
