"""Gates before functions, with real processes on both stores: bursts, long periods, crashes, and what each run says."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from stepwell import NewEvent
from stepwell.client import Client
from stepwell.values import Run, RunStatus

from tests.e2e.conftest import APPS, STORES, Databases, World
from tests.support.servers import ROOT, Server, ended, environment, reached, running, until

APP = APPS / "gated.py"


@pytest.fixture(scope="module", params=STORES)
def gated(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Generator[World]:
    """A dev server with the app gated.py; each test has keys of its own."""
    folder = tmp_path_factory.mktemp(f"gated-{request.param}")
    effects = folder / "effects"
    effects.touch()
    server = Server(databases(request.param, folder), folder)
    with running(server, APP, EFFECTS=str(effects)) as (client, worker):
        yield World(request.param, server, worker, client, effects)


def send(client: Client, name: str, user: str, numbers: range | list[int], **data: Any) -> list[str]:
    """Events in one request; their ids."""
    return [
        status.event_id
        for status in client.send_many([NewEvent(name, {"user": user, "n": n, **data}) for n in numbers])
    ]


def runs_of(client: Client, event_ids: list[str]) -> list[Run]:
    """The run that each event started, joined or left, once every one has."""

    def look() -> list[str]:
        found = [client.get_event(event_id).run_ids for event_id in event_ids]
        return [run_ids[0] for run_ids in found if len(run_ids) == 1] if all(found) else []

    ids = until(look, "every event has its run")
    assert len(ids) == len(event_ids), "an event has one run of a function"
    return [client.get_run(run_id) for run_id in ids]


def shown(server: Server, *arguments: str) -> str:
    """What the command prints."""
    command = [sys.executable, "-m", "stepwell", *arguments, "--address", server.address]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_a_burst_beyond_a_rate_limit_is_skipped_and_a_day_later_it_is_not(gated: World) -> None:
    client = gated.client
    burst = runs_of(client, send(client, "gate/rated", "burst", range(50)))
    skipped = [run for run in burst if run.status is RunStatus.SKIPPED]
    assert len(skipped) == 47
    failure = skipped[0].failure
    assert failure is not None
    assert (failure.type, failure.reason) == ("RunSkippedError", "RATE_LIMITED")
    assert failure.details["limit"] == 3
    assert sorted(ended(client, run.id).output for run in burst if run not in skipped) == [0, 1, 2]
    assert all(run.started is None and run.waiting_for == () for run in skipped)
    assert "in the last 1d (rate_limit)" in shown(gated.server, "runs", "get", skipped[0].id)
    (other,) = runs_of(client, send(client, "gate/rated", "other", [7]))
    assert ended(client, other.id).output == 7
    assert client.advance_clock("1d").complete
    (late,) = runs_of(client, send(client, "gate/rated", "burst", [99]))
    assert ended(client, late.id).output == 99


def test_a_flurry_starts_one_run_with_the_last_event(gated: World) -> None:
    client = gated.client
    ids: list[str] = []
    for round_ in range(2):
        ids += send(client, "gate/settled", "flurry", range(round_ * 10, round_ * 10 + 10))
        (run_id,) = {run.id for run in runs_of(client, ids)}
        run = client.get_run(run_id)
        assert run.status is RunStatus.PARKED
        assert [reason.kind for reason in run.waiting_for] == ["GATHERING"]
        assert run.waiting_for[0].until is not None
        assert client.advance_clock("50m").complete
        assert client.get_run(run_id).status is RunStatus.PARKED
    assert client.advance_clock("15m").complete
    assert ended(client, run_id).output == 19
    (after,) = runs_of(client, send(client, "gate/settled", "flurry", [20]))
    assert after.id != run_id


def test_a_flurry_that_does_not_end_starts_after_max_wait(gated: World) -> None:
    client = gated.client
    ids: list[str] = []
    for n in range(5):
        ids += send(client, "gate/settled", "restless", [n])
        (run_id,) = {run.id for run in runs_of(client, ids)}
        assert client.advance_clock("32m").complete
    assert ended(client, run_id).output == 4


def test_events_are_gathered_in_batches_and_the_rest_starts_in_time(gated: World) -> None:
    client = gated.client
    runs = runs_of(client, send(client, "gate/many", "crowd", range(25)))
    distinct = {run.id: run for run in runs}
    assert len(distinct) == 3
    open_ = [run for run in distinct.values() if run.status is RunStatus.PARKED and run.started is None]
    (last,) = open_
    assert [reason.kind for reason in last.waiting_for] == ["GATHERING"]
    (urgent,) = runs_of(client, send(client, "gate/many", "crowd", [100], urgent=True))
    assert urgent.id not in distinct
    assert client.advance_clock("1h").complete
    reached(client, last.id, lambda run: run.started is not None)
    assert client.advance_clock("2h").complete
    outputs = [ended(client, run_id).output for run_id in distinct]
    assert sorted(map(len, outputs)) == [5, 10, 10]
    assert sorted(n for numbers in outputs for n in numbers) == list(range(25))
    assert all(numbers == sorted(numbers) for numbers in outputs)
    assert ended(client, urgent.id).output == [100]


def test_a_batch_is_entered_again_with_the_same_events_by_another_worker(gated: World) -> None:
    client, server = gated.client, gated.server
    (run_id,) = {run.id for run in runs_of(client, send(client, "gate/many", "moving", range(10)))}
    reached(client, run_id, lambda run: run.status is RunStatus.PARKED and run.started is not None)
    gated.worker.kill()
    with server.worker(APP, "two", EFFECTS=str(gated.effects)) as other:
        other.connected(client)
        assert client.advance_clock("2h").complete
        assert ended(client, run_id).output == list(range(10))
        assert gated.executed(run_id, "first") == 1
    gated.worker.start()
    gated.worker.connected(client)


def test_an_invoke_of_a_batch_function_has_one_event(gated: World) -> None:
    assert gated.client.invoke("gated/small", {"user": "x", "n": 5}) == [5]


def test_a_rate_limit_and_a_batch_work_together(gated: World) -> None:
    client = gated.client
    runs = runs_of(client, send(client, "gate/mixed", "", range(8)))
    assert sum(run.status is RunStatus.SKIPPED for run in runs) == 3
    assert client.advance_clock("1h").complete
    gathered = {run.id for run in runs if run.status is not RunStatus.SKIPPED}
    assert sorted(ended(client, run_id).output for run_id in gathered) == [[0, 1], [2, 3], [4]]


def test_while_a_single_run_sleeps_others_are_skipped(gated: World) -> None:
    client = gated.client
    (alive,) = runs_of(client, send(client, "gate/single", "s", [1], sleep=30 * 86_400))
    reached(client, alive.id, lambda run: run.status is RunStatus.PARKED)
    burst = runs_of(client, send(client, "gate/single", "s", range(20)))
    assert {run.status for run in burst} == {RunStatus.SKIPPED}
    assert all(run.failure and run.failure.details == {"run_id": alive.id} for run in burst)
    assert client.advance_clock("30d").complete
    assert ended(client, alive.id).output == 1
    (after,) = runs_of(client, send(client, "gate/single", "s", [2]))
    assert ended(client, after.id).output == 2


def test_an_invoke_of_a_single_function_that_lives_fails_by_name(gated: World) -> None:
    client = gated.client
    (alive,) = runs_of(client, send(client, "gate/single", "i", [1], sleep=30 * 86_400))
    handle = client.start("gated/single", {"user": "i", "n": 2})
    run = ended(client, handle.run_id)
    assert run.status is RunStatus.SKIPPED
    parent = ended(client, client.start("gated/parent", {"user": "i", "n": 3}).run_id)
    assert parent.status is RunStatus.FAILED
    assert parent.failure is not None
    assert "SINGLETON" in json.dumps([parent.failure.reason, parent.failure.cause and parent.failure.cause.reason])
    client.cancel_run(alive.id)
    ended(client, alive.id)
    assert client.invoke("gated/single", {"user": "i", "n": 4}) == 4


def test_of_a_burst_the_latest_takes_the_place_of_the_run_that_lives(gated: World) -> None:
    client = gated.client
    ids = send(client, "gate/latest", "", [0])
    (first,) = runs_of(client, ids)
    reached(client, first.id, lambda run: run.status is RunStatus.PARKED)
    for n in range(1, 100):
        ids += send(client, "gate/latest", "", [n])
    runs = runs_of(client, ids)
    assert ended(client, first.id).status is RunStatus.CANCELLED
    reached(client, runs[-1].id, lambda run: run.status is RunStatus.PARKED and run.started is not None)
    states = [client.get_run(run.id).status for run in runs[1:-1]]
    assert set(states) <= {RunStatus.SKIPPED, RunStatus.CANCELLED}
    client.send("gate/go", {})
    assert ended(client, runs[-1].id).output == 99


def test_a_debounce_outlives_a_restart_of_the_server(store: str, database: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    effects.touch()
    server = Server(database, tmp_path)
    with running(server, APP, EFFECTS=str(effects)) as (client, worker):
        ids = send(client, "gate/settled", "r", range(5))
        (run_id,) = {run.id for run in runs_of(client, ids)}
        server.kill()
        server.start()
        worker.connected(client)
        ids += send(client, "gate/settled", "r", [5])
        assert {run.id for run in runs_of(client, ids)} == {run_id}
        assert client.advance_clock("1h").complete
        assert ended(client, run_id).output == 5


def test_under_kill_9_every_event_ends_in_one_run_one_batch_or_a_skipped_one(
    store: str, database: str, tmp_path: Path
) -> None:
    effects = tmp_path / "effects"
    effects.touch()
    server = Server(database, tmp_path).tuned(sweep_ms=200)
    with running(server, APP, EFFECTS=str(effects)) as (client, worker):
        sent: dict[str, list[str]] = {"gate/rated": [], "gate/small": [], "gate/mixed": []}

        def load(name: str) -> None:
            mine = server.client()
            for n in range(40):
                sent[name] += send(mine, name, f"{name}{n % 2}", range(n * 5, n * 5 + 5))

        threads = [threading.Thread(target=load, args=(name,)) for name in sent]
        for thread in threads:
            thread.start()
        for kills in range(3):
            accepted = 100 * (kills + 1)
            until(lambda least=accepted: sum(map(len, sent.values())) > least, "events are accepted")
            server.kill()
            server.start()
        for thread in threads:
            thread.join()
        worker.connected(client)
        for name, ids in sent.items():
            assert len(ids) == 200
            _all_decided(client, name, ids)
        small = {run.id: run for run in runs_of(client, sent["gate/small"])}
        outputs = [n for run_id in small for n in ended(client, run_id).output]
        assert sorted(outputs) == list(range(200))


def _all_decided(client: Client, name: str, ids: list[str]) -> None:
    runs = runs_of(client, ids)
    started = [run for run in runs if run.status is not RunStatus.SKIPPED]
    if name == "gate/rated":
        assert len(started) == 6
    elif name == "gate/mixed":
        assert len(started) == 5
