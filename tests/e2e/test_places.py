"""Who gets a worker's place, and when: capacity, homes of woken runs, resumes before starts (H14), with raw workers."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
from stepwell.client import Client
from stepwell.v1 import function_pb2, step_pb2
from stepwell.values import RunStatus

from tests.e2e.conftest import STORES, Databases
from tests.e2e.raw_worker import RawWorker
from tests.support.servers import Server, ended, reached

Place = tuple[Client, str]


@pytest.fixture(scope="module", params=STORES)
def short(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Place]:
    """A server whose woken runs wait 100 ms for their home."""
    folder = tmp_path_factory.mktemp(f"short-{request.param}")
    with Server(databases(request.param, folder), folder).tuned(home_wait_ms=100) as server:
        yield server.client(), server.address
        assert "Traceback" not in server.text()


@pytest.fixture(scope="module", params=STORES)
def patient(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Place]:
    """A server whose woken runs wait ten minutes for their home."""
    folder = tmp_path_factory.mktemp(f"patient-{request.param}")
    with Server(databases(request.param, folder), folder).tuned(home_wait_ms=600_000) as server:
        yield server.client(), server.address
        assert "Traceback" not in server.text()


def start(client: Client, raw: RawWorker, function: str = "f") -> str:
    """A new run of the worker's app, which need not have a place."""
    return client.start(f"{raw.app}/{function}", None).run_id


def assign_of(raw: RawWorker, run_id: str) -> step_pb2.Assign:
    """The assignment of a run to this worker."""
    return raw.work("assigns", lambda assign: assign.run_id == run_id)


def park(client: Client, raw: RawWorker, run: step_pb2.Assign) -> None:
    """The run waits for an event <app>/go; returns once the server has taken its place back."""
    named = {"run_id": run.run_id, "turn": run.turn}
    raw.commands(
        waits=[{**named, "key": "go", "event": f"{raw.app}/go"}],
        parks=[{**named, "tree": {"combine": 1, "keys": ["go"]}}],
    )
    reached(client, run.run_id, lambda one: one.status is RunStatus.PARKED)


def complete(client: Client, raw: RawWorker, run: step_pb2.Assign, *, seen: str = "") -> None:
    """Ends a run, which has seen the outcome of a key first."""
    named: dict[str, Any] = {"run_id": run.run_id, "turn": run.turn}
    frame: dict[str, Any] = {"completes": [{**named, "number": 2 if seen else 1, "output": {"data": b"7"}}]}
    if seen:
        frame["delivered"] = [{**named, "keys": [{"key": seen, "number": 1}]}]
    raw.commands(**frame)
    assert ended(client, run.run_id).output == 7


@pytest.fixture
def app(request: pytest.FixtureRequest) -> str:
    """An app of this test's own."""
    return f"places-{abs(hash(request.node.name))}"


def test_h14a_capacity_is_absolute_and_parked_runs_do_not_count(patient: Place, app: str) -> None:
    client, address = patient
    with RawWorker(address, app, capacity=1) as raw:
        raw.hello()
        first = assign_of(raw, start(client, raw))
        second_id = start(client, raw)
        (reason,) = reached(client, second_id, lambda run: run.status is RunStatus.QUEUED).waiting_for
        assert reason.kind == "CAPACITY"
        park(client, raw, first)
        second = assign_of(raw, second_id)
        client.send(f"{app}/go", {})
        reached(client, first.run_id, lambda run: [one.kind for one in run.waiting_for] == ["CAPACITY"])
        complete(client, raw, second)
        assert raw.work("outcomes").run_id == first.run_id, "a wake takes a place like a start, once there is one"
        third_id = start(client, raw)
        raw.send(capacity={"capacity": 2})
        third = assign_of(raw, third_id)
        complete(client, raw, first, seen="go")
        complete(client, raw, third)


def test_h14b_a_woken_run_waits_for_its_home_while_another_worker_idles(patient: Place, app: str) -> None:
    client, address = patient
    with RawWorker(address, app, capacity=1) as home:
        home.hello()
        woken = assign_of(home, start(client, home))
        park(client, home, woken)
        busy = assign_of(home, start(client, home))
        with RawWorker(address, app, capacity=1) as idle:
            idle.hello()
            client.send(f"{app}/go", {})
            reached(client, woken.run_id, lambda run: [one.kind for one in run.waiting_for] == ["CAPACITY"])
            complete(client, home, busy)
            assert home.work("outcomes").run_id == woken.run_id
            complete(client, home, woken, seen="go")


def test_h14b_a_woken_run_whose_home_stays_busy_is_evicted_and_moves(short: Place, app: str) -> None:
    client, address = short
    with RawWorker(address, app, capacity=1) as home:
        home.hello()
        woken = assign_of(home, start(client, home))
        park(client, home, woken)
        busy = assign_of(home, start(client, home))
        with RawWorker(address, app, capacity=1) as idle:
            idle.hello()
            client.send(f"{app}/go", {})
            evicted = home.work("evicts")
            assert (evicted.run_id, evicted.turn) == (woken.run_id, woken.turn)
            moved = assign_of(idle, woken.run_id)
            assert moved.turn == woken.turn + 1
            assert [(one.key, one.number) for one in moved.journal] == [("go", 0)]
            complete(client, idle, moved, seen="go")
            complete(client, home, busy)


def test_h14c_a_woken_resident_gets_its_place_before_a_start_that_is_older(patient: Place, app: str) -> None:
    client, address = patient
    with RawWorker(address, app, capacity=1) as raw:
        raw.hello()
        woken = assign_of(raw, start(client, raw))
        park(client, raw, woken)
        busy = assign_of(raw, start(client, raw))
        older = [start(client, raw) for _ in range(3)]
        client.send(f"{app}/go", {})
        reached(client, woken.run_id, lambda run: [one.kind for one in run.waiting_for] == ["CAPACITY"])
        complete(client, raw, busy)
        assert raw.work("outcomes").run_id == woken.run_id
        complete(client, raw, woken, seen="go")
        for run_id in older:
            complete(client, raw, assign_of(raw, run_id))


@pytest.mark.parametrize("function", ["f", "g"])
def test_h14c_a_run_that_was_given_back_and_is_woken_goes_before_starts_that_are_older(
    patient: Place, app: str, function: str
) -> None:
    """Also before the starts of another function that this worker serves."""
    client, address = patient
    functions = [function_pb2.FunctionSpec(name=name) for name in ("f", "g")]
    with RawWorker(address, app, capacity=1, functions=functions) as raw:
        raw.hello()
        woken = assign_of(raw, start(client, raw))
        park(client, raw, woken)
        busy = assign_of(raw, start(client, raw))
        raw.commands(
            releases=[{"run_id": woken.run_id, "turn": woken.turn}],
            results=[{"run_id": busy.run_id, "turn": busy.turn, "key": "k", "number": 1}],
        )
        assert raw.work("acks").run_id == busy.run_id, "the frame with the release was read"
        older = [start(client, raw, function) for _ in range(3)]
        client.send(f"{app}/go", {})
        reached(client, woken.run_id, lambda run: run.status is RunStatus.QUEUED)
        raw.commands(completes=[{"run_id": busy.run_id, "turn": busy.turn, "number": 2}])
        first = raw.work("assigns")
        assert first.run_id == woken.run_id
        complete(client, raw, first, seen="go")
        for run_id in older:
            complete(client, raw, assign_of(raw, run_id))


def test_h14c_functions_take_turns_by_the_age_of_their_runs(patient: Place, app: str) -> None:
    """A backlog of one function does not keep out another of the same worker."""
    client, address = patient
    functions = [function_pb2.FunctionSpec(name=name) for name in ("f", "g")]
    with RawWorker(address, app, capacity=1, functions=functions) as raw:
        raw.hello()
        busy = assign_of(raw, start(client, raw))
        order = [start(client, raw, function) for function in "ffgffg"]
        complete(client, raw, busy)
        for run_id in order:
            assign = raw.work("assigns")
            assert assign.run_id == run_id
            complete(client, raw, assign)
