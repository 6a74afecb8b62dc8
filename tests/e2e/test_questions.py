"""What can be asked: why a run does not go on, its journal and its watch, waiting, workers, health, reflection."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from stepwell.client import Client
from stepwell.v1 import function_pb2, run_pb2
from stepwell.values import Run, RunStatus, WaitingFor

from tests.e2e.conftest import APPS, World
from tests.support.servers import Server, ended, environment, reached, running, until


def one_reason(client: Client, run_id: str, kind: str) -> WaitingFor:
    """What a run waits for, once it is of this kind."""
    run = reached(client, run_id, lambda run: [one.kind for one in run.waiting_for] == [kind])
    assert not run.status.ended
    return run.waiting_for[0]


REASONS: list[tuple[str, Any, str, str]] = [
    ("sleeper", {"for": "1h"}, "SLEEP", "sleep"),
    ("forever", None, "EVENT", "never/comes"),
    ("parent", {"kind": "waiting", "detached": False}, "CHILD", "features/forever"),
    ("retrier", {"fails": 1, "initial": "10m"}, "RETRY", "flaky#2"),
    ("cancellable", "async", "EXECUTING", ""),
]


@pytest.mark.parametrize(("function", "data", "kind", "key"), REASONS)
def test_a_run_says_what_it_waits_for(world: World, function: str, data: Any, kind: str, key: str) -> None:
    handle = world.client.start(f"features/{function}", data)
    reason = one_reason(world.client, handle.run_id, kind)
    assert reason.key == key
    assert reason.message
    assert (reason.until is not None) is (kind in ("SLEEP", "EVENT", "RETRY"))
    if kind == "EVENT":
        assert reason.event == "never/comes"
    if kind == "CHILD":
        child = world.client.get_run(reason.run_id)
        assert (child.parent_run_id, child.parent_key) == (handle.run_id, "features/forever")
    handle.cancel()
    assert ended(world.client, handle.run_id).waiting_for == ()


def test_a_run_without_a_worker_or_without_a_place_says_so(store: str, database: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    effects.touch()
    with Server(database, tmp_path) as server, server.worker(APPS / "small.py", "one", EFFECTS=str(effects)) as worker:
        client = server.client()
        worker.connected(client)
        first = client.start("small/hold")
        until(effects.read_text, "the only place is taken")
        second = client.start("small/hold")
        assert one_reason(client, second.run_id, "CAPACITY").message
        assert client.get_run(second.run_id).status is RunStatus.QUEUED
        worker.kill()
        found = reached(client, second.run_id, lambda run: [one.kind for one in run.waiting_for] == ["NO_WORKER"])
        assert "small/hold" in found.waiting_for[0].message
        assert [one.kind for one in reached(client, first.run_id, no_worker).waiting_for] == ["NO_WORKER"]
        assert client.get_function("small/hold").workers == 0
        assert second.cancel().status is RunStatus.CANCELLED, "it never started"
        assert not first.cancel().status.ended, "a worker may unwind it, for as long as the grace"
        client.advance_clock("31s")
        assert ended(client, first.run_id).status is RunStatus.CANCELLED


def test_a_run_whose_worker_is_away_says_until_when(store: str, database: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    effects.touch()
    server = Server(database, tmp_path, profile="serve")
    with running(server, APPS / "features.py", EFFECTS=str(effects)) as (client, worker):
        handle = client.start("features/cancellable", "async")
        until(effects.read_text, "its body executes")
        worker.signal(signal.SIGSTOP)
        try:
            server.kill()
            server.start()
            reason = one_reason(client, handle.run_id, "LEASE")
            assert reason.until is not None
            left = (reason.until - client.server_info().now).total_seconds()
            assert 0 < left <= 10
        finally:
            worker.signal(signal.SIGCONT)


def no_worker(run: Run) -> bool:
    return any(one.kind == "NO_WORKER" for one in run.waiting_for)


def test_a_wait_whose_look_back_was_cut_says_so(store: str, database: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    server = Server(database, tmp_path).tuned(lookback_events=5, lookback_pages=2)
    with running(server, APPS / "features.py", EFFECTS=str(effects)) as (client, _):
        hold = {"event": "w/go", "timeout": "1h"}
        late = {"event": "w/late", "match": "data.u", "timeout": "1h"}
        runs = {}
        for user in ("many", "few"):
            (runs[user],) = client.get_event(client.send("w/start", {"u": user, "waits": [hold, late]})).run_ids
            reached(client, runs[user], lambda run: [one.event for one in run.waiting_for] == ["w/go"])
            ids = [client.send("w/late", {"u": "other"}) for _ in range(30 if user == "many" else 9)]
            if user == "many":
                before = ids[9]
                client.send("w/late", {"u": "many", "n": "out of sight"})
        client.send("w/go")
        cut, whole = (
            reached(client, runs[user], lambda run: [one.event for one in run.waiting_for] == ["w/late"])
            for user in ("many", "few")
        )
        cut = reached(client, cut.id, lambda run: bool(run.waiting_for[0].cut_after))
        assert cut.waiting_for[0].cut_after == before
        assert f"its look-back was cut after event {before}" in cut.waiting_for[0].message
        assert whole.waiting_for[0].cut_after == ""
        page = subprocess.run(
            [sys.executable, "-m", "stepwell", "runs", "get", cut.id, "--address", server.address],
            env=environment(COLUMNS="300"), capture_output=True, text=True, timeout=60, check=True,
        ).stdout  # fmt: skip
        assert f"its look-back was cut after event {before}" in page
        client.send("w/late", {"u": "many", "n": 1})
        assert ended(client, cut.id).output == [None, 1], "new events are seen"


def test_a_watch_shows_every_entry_once_and_ends_with_the_run(world: World) -> None:
    event_id = world.client.send("w/start", {"u": "watch", "waits": [{"event": "w/watched", "timeout": "20s"}]})
    (run_id,) = world.client.get_event(event_id).run_ids
    seen: list[tuple[str, bool]] = []
    statuses: list[RunStatus] = []

    def watch() -> None:
        for change in world.client.watch_run(run_id):
            statuses.append(change.run.status)
            seen.extend((one.key, one.ended is not None) for one in change.entries)

    thread = threading.Thread(target=watch)
    thread.start()
    until(lambda: ("w/watched", False) in seen, "the open wait is seen")
    world.client.send("w/watched", {"n": 1})
    thread.join(20)
    assert not thread.is_alive()
    assert statuses[-1] is RunStatus.COMPLETED
    assert seen.count(("note", True)) == 1
    assert seen.count(("w/watched", False)) == 1
    assert seen[-1] == ("w/watched", True)


def test_a_watch_of_many_steps_looks_now_and_then_and_tells_the_end_at_once(world: World) -> None:
    handle = world.client.start("features/many", 800)
    began = time.monotonic()
    changes = list(world.client.watch_run(handle.run_id))
    took_s = time.monotonic() - began
    ended_keys = [one.key for change in changes for one in change.entries if one.number]
    assert len(ended_keys) == len(set(ended_keys)) == 800, "each is told once"
    assert changes[-1].run.output == 800
    assert len(changes) <= took_s / 0.25 + 2
    assert world.client.get_run(handle.run_id).ended is not None


def test_a_journal_has_pages_and_shows_what_is_open_last(world: World) -> None:
    handle = world.client.start("features/gatherer")
    handle.result(30)
    whole = [one.key for one in world.client.journal(handle.run_id)]
    numbers = [one.number for one in world.client.journal(handle.run_id)]
    assert numbers == list(range(1, len(numbers) + 1))
    paged: list[str] = []
    request = run_pb2.GetJournalRequest(run_id=handle.run_id, page_size=7)
    while True:
        page = world.client.call(lambda stubs: stubs.runs.GetJournal, request)
        paged += [entry.key for entry in page.entries]
        assert len(page.entries) <= 7
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert paged == whole


def test_waiting_for_a_run_ends_with_the_time_or_with_the_run(world: World) -> None:
    handle = world.client.start("features/forever")
    assert world.client.wait_run(handle.run_id, 0.1).status in (RunStatus.RUNNING, RunStatus.PARKED, RunStatus.QUEUED)
    with pytest.raises(TimeoutError):
        handle.result(0.1)
    waiting = threading.Thread(target=lambda: world.client.wait_run(handle.run_id, 30))
    waiting.start()
    handle.cancel()
    waiting.join(20)
    assert not waiting.is_alive()


def test_an_invoke_waits_as_long_as_it_is_told_and_is_one_run_a_request(world: World) -> None:
    def invoke(**given: Any) -> run_pb2.Run:
        return world.client.call(lambda stubs: stubs.functions.Invoke, function_pb2.InvokeRequest(**given)).run

    done = invoke(function_id="features/echo", input={"data": b"[1]"}, request_id="same", wait_ms=20_000)
    assert (done.status, done.output.data) == (run_pb2.RUN_STATUS_COMPLETED, b"[1]")
    again = invoke(function_id="features/echo", input={"data": b"[1]"}, request_id="same", wait_ms=20_000)
    assert again.id == done.id
    other = invoke(function_id="features/echo", input={"data": b"[1]"}, wait_ms=20_000)
    assert other.id != done.id
    early = invoke(function_id="features/forever", wait_ms=50)
    assert early.status not in (run_pb2.RUN_STATUS_COMPLETED, run_pb2.RUN_STATUS_FAILED)
    assert invoke(function_id="features/echo", wait_ms=20_000).output.data == b"null"
    world.client.cancel_run(early.id)


def test_functions_and_workers_are_listed(world: World) -> None:
    functions = {one.id: one for one in world.client.functions("features")}
    assert functions["features/by_condition"].triggers[0].condition.startswith("event.data.amount")
    assert functions["features/echo"].workers == 1
    assert world.client.functions("nobody") == []
    (worker,) = [one for one in world.client.workers() if one.app == "features"]
    assert worker.connected
    assert worker.instance == f"one:{world.worker.pid}"
    assert set(worker.function_ids) == set(functions)
    assert worker.sdk.startswith("python")
    assert worker.capacity == 500


def test_health_and_reflection_answer_for_every_service(world: World) -> None:
    with grpc.insecure_channel(world.server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "stepwell.v1.EventService", "stepwell.v1.StepService"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([ask]), timeout=10)
        services = {one.name for one in answer.list_services_response.service}
        wanted = {f"stepwell.v1.{name}Service" for name in ("Event", "Function", "Run", "Step", "Admin")}
        assert wanted <= services
