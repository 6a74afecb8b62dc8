"""Functions paused and resumed from the command line, over kill -9 of the server, on both stores."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from stepwell.client import Client
from stepwell.values import RunStatus

from tests.e2e.conftest import APPS, World
from tests.support.servers import ROOT, Server, ended, environment, reached, running, until

APP = APPS / "gated.py"


@pytest.fixture
def world(store: str, database: str, tmp_path: Path) -> Generator[World]:
    """A dev server with the app gated.py."""
    effects = tmp_path / "effects"
    effects.touch()
    server = Server(database, tmp_path).tuned(sweep_ms=200)
    with running(server, APP, EFFECTS=str(effects)) as (client, worker):
        yield World(store, server, worker, client, effects)


def functions(server: Server, *arguments: str, code: int = 0) -> Any:
    """What `stepwell functions` answers."""
    command = [sys.executable, "-m", "stepwell", "functions", *arguments, "--output", "json"]
    command += ["--address", server.address]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    if code:
        return done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    return answers if arguments == ("list",) else answers[0]


def run_of(client: Client, user: str, **data: Any) -> str:
    """The run of an event."""
    event_id = client.send("gate/single", {"user": user, **data})
    found: list[str] = until(lambda: client.get_event(event_id).run_ids, "the event has its run")
    return found[0]


def test_a_paused_function_outlives_its_server_and_what_waited_runs_when_it_is_resumed(world: World) -> None:
    client, server = world.client, world.server
    shown = functions(server, "pause", "gated/single")
    assert shown["pause"]["running"] == "keep"
    waiting = [run_of(client, f"w{n}", n=n) for n in range(5)]
    assert [reason.kind for reason in client.get_run(waiting[0]).waiting_for] == ["FUNCTION_PAUSED"]
    server.kill()
    server.start()
    world.worker.connected(client)
    waiting.append(run_of(client, "late", n=5))
    assert {client.get_run(run_id).status for run_id in waiting} == {RunStatus.QUEUED}
    assert client.invoke("gated/small", {"n": 9}) == [9]
    listed = {one["id"]: one for one in functions(server, "list")}
    assert "pause" in listed["gated/single"]
    assert "pause" not in listed["gated/small"]
    assert "pause" not in functions(server, "resume", "gated/single")
    assert [ended(client, run_id).output for run_id in waiting] == list(range(6))


def test_runs_that_are_held_come_back_with_what_they_had(world: World) -> None:
    client, server = world.client, world.server
    asleep = run_of(client, "a", n=1, sleep=3600)
    reached(client, asleep, lambda run: run.status is RunStatus.PARKED)
    functions(server, "pause", "gated/single", "--running", "hold")
    assert client.advance_clock("2h").complete
    held = reached(client, asleep, lambda run: run.status is RunStatus.QUEUED)
    assert [reason.kind for reason in held.waiting_for] == ["FUNCTION_PAUSED"]
    functions(server, "resume", "gated/single")
    assert ended(client, asleep).output == 1


def test_runs_that_have_begun_are_cancelled_with_the_pause(world: World) -> None:
    client, server = world.client, world.server
    asleep = [run_of(client, f"c{n}", sleep=3600) for n in range(5)]
    for run_id in asleep:
        reached(client, run_id, lambda run: run.status is RunStatus.PARKED)
    functions(server, "pause", "gated/single", "--running", "cancel")
    assert {ended(client, run_id).status for run_id in asleep} == {RunStatus.CANCELLED}
    functions(server, "resume", "gated/single")
    assert ended(client, run_of(client, "c0", n=3)).output == 3


def test_what_waited_is_skipped_also_by_the_next_server(world: World) -> None:
    client, server = world.client, world.server
    functions(server, "pause", "gated/single")
    waiting = [run_of(client, f"s{n}", n=n) for n in range(300)]
    functions(server, "resume", "gated/single", "--waiting", "skip")
    server.kill()
    server.start()
    world.worker.connected(client)
    states = [ended(client, run_id) for run_id in waiting]
    assert {run.status for run in states} == {RunStatus.SKIPPED}
    assert {run.failure.reason for run in states if run.failure} == {"FUNCTION_PAUSED"}
    until(lambda: "pause" not in functions(server, "get", "gated/single"), "it is resumed")
    assert ended(client, run_of(client, "s0", n=7)).output == 7


def test_a_function_that_nobody_knows_is_not_paused(world: World) -> None:
    assert "no app has registered function" in functions(world.server, "pause", "gated/nobody", code=3)
    assert "no app has registered function" in functions(world.server, "resume", "gated/nobody", code=3)
