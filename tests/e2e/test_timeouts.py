"""Time-outs of functions: of the whole run and of its start, on both stores, over crashes, against other ends."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path

import pytest
from stepwell import RunTimedOutError
from stepwell.client import Client
from stepwell.values import Run, RunStatus

from tests.e2e.conftest import APPS, STORES, Databases, World
from tests.support.servers import ROOT, Server, ended, environment, reached, running, until

APP = APPS / "timed.py"
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module", params=STORES)
def timed(
    request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Generator[World]:
    """A dev server with the app timed.py; each test leaves both running."""
    folder = tmp_path_factory.mktemp(f"timed-{request.param}")
    effects = folder / "effects"
    effects.touch()
    server = Server(databases(request.param, folder), folder)
    with running(server, APP, EFFECTS=str(effects)) as (client, worker):
        yield World(request.param, server, worker, client, effects)


def parked(client: Client, run_id: str) -> Run:
    return reached(client, run_id, lambda run: run.status is RunStatus.PARKED)


def timed_out(run: Run, option: str, ms: int) -> None:
    """It ended so, and says by what."""
    assert run.status is RunStatus.TIMED_OUT
    assert run.failure is not None
    assert (run.failure.type, run.failure.reason) == ("RunTimedOutError", "TIMED_OUT")
    assert run.failure.details == {"option": option, "ms": ms}
    assert f"({option})" in run.failure.message
    assert run.deadline is None
    assert run.waiting_for == ()
    assert not run.cancel_requested, "nobody asked for it"


def shown(server: Server, *arguments: str) -> str:
    """What the command prints."""
    command = [sys.executable, "-m", "stepwell", *arguments, "--address", server.address]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_a_parked_run_times_out_cleans_up_and_takes_its_child_along(timed: World) -> None:
    client = timed.client
    handle = client.start("timed/asleep")
    run = parked(client, handle.run_id)
    assert run.started is not None
    assert run.deadline == run.started + HOUR
    assert "times out" in shown(timed.server, "runs", "get", handle.run_id)
    assert client.advance_clock("59m").fired == 0
    assert parked(client, handle.run_id)
    assert client.advance_clock("2m").complete
    run = ended(client, handle.run_id)
    timed_out(run, "timeout", 3_600_000)
    assert run.failure is not None
    assert run.failure.message == "the run had not ended 1h after its start (timeout)"
    entries = {entry.key: entry for entry in client.journal(handle.run_id)}
    assert entries["why"].output == run.failure.message
    assert (entries["$cancel"].kind, entries["$cancel"].number) == ("TIMEOUT", 1)
    (child,) = client.list_runs(parent_run_id=handle.run_id)
    assert ended(client, child.id).status is RunStatus.CANCELLED
    page = shown(timed.server, "runs", "get", handle.run_id)
    assert "timed out" in page
    assert "had not ended 1h after its start" in page
    assert handle.run_id in [one.id for one in client.list_runs(statuses=[RunStatus.TIMED_OUT])]
    with pytest.raises(RunTimedOutError, match="had not ended 1h"):
        handle.result(5)


def test_a_run_that_ends_in_time_leaves_no_timer(timed: World) -> None:
    client = timed.client
    handle = client.start("timed/in_time")
    parked(client, handle.run_id)
    assert client.advance_clock("1h").fired == 1
    assert handle.result(20) == "in time"
    assert client.advance_clock("2d").fired == 0
    assert ended(client, handle.run_id).status is RunStatus.COMPLETED


@pytest.mark.parametrize(("function", "data"), [("executing", "async"), ("executing", "plain"), ("sync_executing", "")])
def test_a_body_that_executes_is_interrupted(timed: World, function: str, data: str) -> None:
    client = timed.client
    handle = client.start(f"timed/{function}", data)
    timed_out(ended(client, handle.run_id), "timeout", 700)
    assert timed.executed(handle.run_id, "busy") == 1
    assert timed.executed(handle.run_id, "clean-up") == 1


def test_a_function_that_backs_off_times_out_too(timed: World) -> None:
    client = timed.client
    handle = client.start("timed/failing")
    run = parked(client, handle.run_id)
    assert [one.kind for one in run.waiting_for] == ["RETRY"]
    client.advance_clock("61m")
    timed_out(ended(client, handle.run_id), "timeout", 3_600_000)
    assert timed.executed(handle.run_id, "note") == 1


def test_a_run_that_does_not_listen_ends_after_the_grace(timed: World) -> None:
    client = timed.client
    handle = client.start("timed/deaf")
    parked(client, handle.run_id)
    client.advance_clock("1h5s")
    run = parked(client, handle.run_id)
    assert run.deadline is None
    client.advance_clock("30s")
    timed_out(ended(client, handle.run_id), "timeout", 3_600_000)


def test_of_a_cancel_and_a_time_out_the_first_wins(timed: World) -> None:
    client = timed.client
    cancelled, late = client.start("timed/deaf"), client.start("timed/deaf")
    for handle in (cancelled, late):
        parked(client, handle.run_id)
    client.advance_clock("59m50s")
    cancelled.cancel("enough")
    until(lambda: "sleep:2" in [one.key for one in client.journal(cancelled.run_id)], "it has swallowed that")
    client.advance_clock("15s")
    late.cancel("too late")
    client.advance_clock("1m")
    assert ended(client, cancelled.run_id).status is RunStatus.CANCELLED
    timed_out(ended(client, late.run_id), "timeout", 3_600_000)


def test_a_parent_catches_which_time_out_it_was(timed: World) -> None:
    client = timed.client
    own = client.start("timed/parent", {"function": "timed/asleep"})
    call = client.start("timed/parent", {"function": "timed/asleep", "timeout": "10m"})
    for handle in (own, call):
        parked(client, handle.run_id)
    client.advance_clock("2h")
    type_, message, reason = own.result(20)
    assert (type_, reason) == ("RunTimedOutError", "TIMED_OUT")
    assert "had not ended 1h after its start" in message
    assert call.result(20) == ["InvokeTimeoutError"]


def test_a_run_that_never_started_ends_at_once(timed: World) -> None:
    client, server = timed.client, timed.server
    timed.worker.kill()
    late, cancelled, begun = (client.start("timed/placed") for _ in range(3))
    run = client.get_run(late.run_id)
    assert run.deadline == run.created + timedelta(minutes=10)
    assert "must start" in shown(server, "runs", "get", late.run_id)
    cancelled.cancel()
    server.kill()  # what is queued is only in the store now
    server.start()
    client.advance_clock("11m")
    for handle in (late, begun):
        run = ended(client, handle.run_id)
        timed_out(run, "start_timeout", 600_000)
        assert (run.turn, run.started) == (0, None)
        assert run.failure is not None
        assert run.failure.message == "the run had not started 10m after it was created (start_timeout)"
    assert client.get_run(cancelled.run_id).status is RunStatus.CANCELLED
    timed.worker.start().connected(client)
    assert client.invoke("timed/quick", timeout=20) == "started in time", "nothing of them is left in the queue"


def test_a_run_that_got_its_place_in_time_is_not_timed_out_by_its_start(
    store: str, database: str, tmp_path: Path
) -> None:
    effects = tmp_path / "effects"
    effects.touch()
    with running(Server(database, tmp_path), APP, EFFECTS=str(effects), CAPACITY="1") as (client, _):
        first = client.start("timed/one_second")
        until(effects.read_text, "the only place is taken")
        second = client.start("timed/one_second")
        timed_out(ended(client, second.run_id), "start_timeout", 1_000)
        run = client.get_run(first.run_id)
        assert (run.status, run.deadline) == (RunStatus.RUNNING, None)
        first.cancel()
        assert ended(client, first.run_id).status is RunStatus.CANCELLED


def test_a_paused_run_ends_at_once(store: str, database: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    server = Server(database, tmp_path)
    with running(server, APP, "old", EFFECTS=str(effects), BUILD="one") as (client, old):
        handle = client.start("timed/changing")
        parked(client, handle.run_id)
        old.kill()
        with server.worker(APP, "new", EFFECTS=str(effects), BUILD="two") as new:
            new.connected(client)
            client.send("timed/go")
            run = reached(client, handle.run_id, lambda run: run.status is RunStatus.PAUSED)
            assert run.deadline is not None
            client.advance_clock("61m")
            timed_out(ended(client, handle.run_id), "timeout", 3_600_000)


@pytest.mark.parametrize("victim", ["server", "worker", "both"])
def test_a_time_out_survives_kill_9(timed: World, victim: str) -> None:
    client = timed.client
    handles = [client.start("timed/four_seconds") for _ in range(5)]
    for handle in handles:
        parked(client, handle.run_id)
    if victim != "worker":
        timed.server.kill()
    if victim != "server":
        timed.worker.kill()
        timed.worker.start()
    if victim != "worker":
        timed.server.start()
    for handle in handles:
        run = ended(client, handle.run_id, 40)
        timed_out(run, "timeout", 4_000)
        assert run.started is not None
        assert run.ended is not None
        assert run.ended - run.started >= timedelta(seconds=4)
        assert timed.executed(handle.run_id, "begun") == 1
        assert timed.executed(handle.run_id, "clean-up") == 1


def test_the_time_outs_of_a_function_are_shown(timed: World) -> None:
    info = timed.client.get_function("timed/in_time")
    assert (info.timeout, info.start_timeout) == (2 * HOUR, HOUR / 2)
    assert timed.client.get_function("timed/forever").timeout is None
    page = json.loads(shown(timed.server, "functions", "get", "timed/in_time", "-o", "json"))
    assert int(page["spec"]["timeoutMs" if "timeoutMs" in page["spec"] else "timeout_ms"]) == 7_200_000
    assert "2 h" in shown(timed.server, "functions", "get", "timed/in_time")
