"""The dev clock: four days in seconds, due instant by due instant, and an offset that survives kill -9 (H20)."""

from __future__ import annotations

import time
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path

import pytest
from stepwell.api_errors import FailedPreconditionError, InvalidArgumentError
from stepwell.client import Client
from stepwell.v1 import admin_pb2
from stepwell.values import Run, RunStatus

from tests.e2e.conftest import APPS, World
from tests.support.servers import Server, ended, reached, running, until

DAY = timedelta(days=1)
NEAR = timedelta(seconds=5)


@pytest.fixture
def clocked(store: str, database: str, tmp_path: Path) -> Generator[World]:
    """A dev server of one's own: its clock may be moved."""
    effects = tmp_path / "effects"
    effects.touch()
    server = Server(database, tmp_path)
    with running(server, APPS / "features.py", EFFECTS=str(effects)) as (client, worker):
        yield World(store, server, worker, client, effects)


def parked(client: Client, run_id: str) -> Run:
    return reached(client, run_id, lambda run: run.status is RunStatus.PARKED)


def drip(client: Client, user: str) -> str:
    (run_id,) = client.get_event(client.send("drip/start", {"user": user})).run_ids
    parked(client, run_id)
    return run_id


def test_four_days_of_waiting_pass_in_seconds_on_both_branches(clocked: World) -> None:
    client = clocked.client
    booked, reminded = drip(client, "a"), drip(client, "b")
    began = time.monotonic()
    half = client.advance_clock("3d")
    assert half.complete
    assert half.fired == 0
    assert abs(half.offset - 3 * DAY) < NEAR
    client.send("drip/booked", {"user": "a"})
    assert ended(client, booked).output == "booked"
    assert client.get_run(reminded).status is RunStatus.PARKED
    assert client.advance_clock("1d").fired == 1
    run = ended(client, reminded)
    assert run.output == "reminded"
    assert run.ended is not None
    assert run.ended - run.created >= 4 * DAY
    assert time.monotonic() - began < 20
    assert clocked.executed(reminded, "reminder") == 1


def test_h20_a_loop_of_one_day_sleeps_wakes_each_day(clocked: World) -> None:
    client = clocked.client
    handle = client.start("features/daily", 5)
    created = parked(client, handle.run_id).created
    moved = client.advance_clock("4d12h")
    assert (moved.complete, moved.fired) == (True, 4)
    assert clocked.executed(handle.run_id, "note:4") == 1
    assert clocked.executed(handle.run_id, "note:5") == 0
    assert client.advance_clock("1d").fired == 1
    days = handle.result(20)
    assert len(days) == 5
    for number, entry in enumerate((one for one in client.journal(handle.run_id) if one.kind == "SLEEP"), 1):
        assert entry.ended is not None
        assert timedelta(0) <= entry.ended - created - number * DAY < timedelta(seconds=10)


def test_h20_the_offset_survives_kill_9_and_a_deadline_says_where_it_stopped(clocked: World) -> None:
    client, server = clocked.client, clocked.server
    run_id = drip(client, "c")
    client.advance_clock("2d")
    before = client.server_info().now
    server.kill()
    server.start()
    assert timedelta(0) <= client.server_info().now - before < timedelta(minutes=1)
    clocked.worker.connected(client)
    handle = client.start("features/cancellable", "async")
    until(lambda: clocked.executed(handle.run_id, "abusy"), "a body executes")
    stopped = client.advance_clock("2d", deadline_s=0.3)
    assert not stopped.complete, "an instant lasts until nothing executes"
    assert abs(stopped.offset - 2 * DAY) < NEAR
    handle.cancel()
    ended(client, handle.run_id)
    moved = client.advance_clock("2d")
    assert moved.complete
    assert abs(moved.offset - 4 * DAY) < NEAR
    assert ended(client, run_id).output == "reminded"


def test_a_grace_after_a_cancel_passes_with_the_clock(clocked: World) -> None:
    client = clocked.client
    handle = client.start("features/stubborn", "parked")
    parked(client, handle.run_id)
    handle.cancel()
    until(lambda: client.get_run(handle.run_id).status is RunStatus.PARKED, "it has swallowed the cancellation")
    client.advance_clock("31s")
    assert ended(client, handle.run_id).status is RunStatus.CANCELLED


def test_the_clock_moves_forward_only_so_far_and_under_dev_only(clocked: World, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        clocked.client.call(
            lambda stubs: stubs.admin.AdvanceClock, admin_pb2.AdvanceClockRequest(advance_ms=367 * 86_400_000)
        )
    assert raised.value.reason == "TOO_LONG"
    folder = tmp_path / "serve"
    folder.mkdir()
    with Server(f"sqlite:///{folder}/other.db", folder, profile="serve") as server:
        client = server.client()
        assert client.server_info().profile == "serve"
        with pytest.raises(FailedPreconditionError) as refused:
            client.advance_clock("1d")
        assert refused.value.reason == "NOT_DEV"
