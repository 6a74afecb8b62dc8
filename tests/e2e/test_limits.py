"""Limits with real processes: never more at once than there may be, and all of it is done in the end."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from stepwell.client import Client
from stepwell.event import NewEvent
from stepwell.values import RunStatus

from tests.e2e.conftest import APPS
from tests.support.servers import Server, Worker, ended, environment, reached, running, until

APP = APPS / "limited.py"


def sent(client: Client, name: str, *data: dict[str, object]) -> list[str]:
    """Runs that these events start, in their order."""
    statuses = client.send_many([NewEvent(name, one) for one in data])
    return [run_id for status in statuses for run_id in client.get_event(status.event_id).run_ids]


def noted(effects: Path) -> list[list[str]]:
    return [line.split("\t") for line in effects.read_text().splitlines()] if effects.exists() else []


def most_at_once(effects: Path, group: str) -> int:
    """How many bodies of a group ran at once. One that never ended was killed with its process, and ran until then."""
    rows = noted(effects)
    last = {pid: index for index, (*_, pid) in enumerate(rows)}
    open_: dict[str, tuple[str, str]] = {}
    most = 0
    for index, (what, of, run_id, pid) in enumerate(rows):
        open_ = {run: (of, pid) for run, (of, pid) in open_.items() if last[pid] >= index}
        if what == "begin":
            open_[run_id] = of, pid
            most = max(most, Counter(of for of, _ in open_.values())[group])
        else:
            open_.pop(run_id, None)
    return most


def all_completed(client: Client, runs: list[str], timeout: float = 60) -> None:
    assert {ended(client, run_id, timeout).status for run_id in runs} == {RunStatus.COMPLETED}


def two_workers(server: Server, effects: Path, **variables: str) -> list[Worker]:
    return [server.worker(APP, name, EFFECTS=str(effects), **variables) for name in ("a", "b")]


def test_never_more_than_the_limit_execute_on_two_workers_and_all_complete(database: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    with Server(database, tmp_path) as server:
        client = server.client()
        workers = two_workers(server, effects)
        try:
            for worker in workers:
                worker.start().connected(client)
            runs = sent(client, "limited/two", *({} for _ in range(50)))
            shared = sent(client, "limited/shared", *({} for _ in range(25)))
            assert len(shared) == 50
            all_completed(client, runs + shared)
        finally:
            for worker in workers:
                worker.kill()
    assert most_at_once(effects, "two") == 2
    assert most_at_once(effects, "all") == 3
    assert Counter(what for what, *_ in noted(effects)) == {"begin": 100, "end": 100}


def test_a_run_that_waits_gives_its_slot_back(database: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    with running(Server(database, tmp_path), APP, EFFECTS=str(effects)) as (client, _):
        runs = sent(client, "limited/sleepy", *({"id": n} for n in range(10)))
        for run_id in runs:
            reached(client, run_id, lambda run: any(one.event == "limited/go" for one in run.waiting_for))
        client.send_many([NewEvent("limited/go", {"id": n}) for n in range(10)])
        all_completed(client, runs)
    assert most_at_once(effects, "sleepy") == 1


def test_a_key_with_a_thousand_runs_keeps_no_other_key_waiting(database: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    with running(Server(database, tmp_path), APP, EFFECTS=str(effects), CAPACITY="2") as (client, _):
        sent(client, "limited/user", *({"user": "a"} for _ in range(1_000)))
        runs = sent(client, "limited/user", *({"user": "b"} for _ in range(3)))
        all_completed(client, runs)
        assert any(client.list_runs(function="limited/user", statuses=[RunStatus.QUEUED]))
    ends = [group for what, group, *_ in noted(effects) if what == "end"]
    assert Counter(ends)["user a"] < 900
    assert most_at_once(effects, "user a") == 1


def test_a_throttle_spaces_the_starts(database: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    with running(Server(database, tmp_path), APP, EFFECTS=str(effects)) as (client, _):
        runs = [ended(client, run_id) for run_id in sent(client, "limited/paced", {}, {}, {})]
        starts = sorted(run.started for run in runs if run.started is not None)
    assert len(starts) == 3
    assert all((later - earlier).total_seconds() >= 0.98 for earlier, later in itertools.pairwise(starts))


def test_a_run_with_priority_goes_ahead_of_those_that_wait(database: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    with Server(database, tmp_path) as server:
        client = server.client()
        with server.worker(APP, "registers", EFFECTS=str(effects)) as first:
            first.connected(client)
        runs = sent(client, "limited/urgent", *({"ahead": ahead} for ahead in (0, 100, -100, 50)))
        with server.worker(APP, "works", EFFECTS=str(effects)):
            all_completed(client, runs)
    assert [group for what, group, *_ in noted(effects) if what == "begin"] == [
        f"urgent {ahead}" for ahead in (100, 50, 0, -100)
    ]


def test_h27_workers_that_are_killed_leave_no_slot_behind(database: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    with Server(database, tmp_path) as server:
        client = server.client()
        workers = two_workers(server, effects, BODY_S="0.1")
        try:
            for worker in workers:
                worker.start().connected(client)
            runs = sent(client, "limited/two", *({} for _ in range(20)))
            for kill in range(3):
                count = len(noted(effects))
                until(lambda: len(noted(effects)) > count + 2, "bodies begin")  # noqa: B023
                workers[kill % 2].kill()
                workers[kill % 2].start()
            all_completed(client, runs)
        finally:
            for worker in workers:
                worker.kill()
    assert most_at_once(effects, "two") == 2


def test_h27_the_limit_holds_while_the_server_is_killed_and_starts_again(database: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    with Server(database, tmp_path) as server:
        client = server.client()
        workers = two_workers(server, effects, BODY_S="0.2")
        try:
            for worker in workers:
                worker.start().connected(client)
            runs = sent(client, "limited/two", *({} for _ in range(30)))
            for _ in range(3):
                count = len(noted(effects))
                until(lambda: len(noted(effects)) > count + 2, "bodies begin")  # noqa: B023
                server.kill()
                server.start()
            all_completed(client, runs)
        finally:
            for worker in workers:
                worker.kill()
    assert most_at_once(effects, "two") == 2


def test_what_limits_a_run_is_seen_from_outside(database: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    with running(Server(database, tmp_path), APP, EFFECTS=str(effects), BODY_S="60") as (client, worker):
        runs = sent(client, "limited/user", *({"user": 7} for _ in range(3)))
        until(lambda: noted(effects), "the first one executes")
        told = [[(one.kind, one.message) for one in client.get_run(run_id).waiting_for] for run_id in runs]
        assert sorted(told)[1:] == [[("LIMIT", "limit user=7: 1 of 1 in use")]] * 2
        (limit,) = shown_limits(worker.server, "--function", "limited/user")
        assert (limit["name"], limit["used"], limit["bound"], limit["waiting"]) == ("user=7", 1, 1, 2)
        assert limit["kind"] == "executing"
        assert shown_limits(worker.server, "--function", "limited/other") == []
        assert "1 of 1" in stepwell(worker.server, "limits")
        for run_id in runs:
            client.cancel_run(run_id)
        until(lambda: not shown_limits(worker.server), "every slot is given back")


def stepwell(server: Server, *arguments: str) -> str:
    command = [sys.executable, "-m", "stepwell", *arguments, "--address", server.address]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment(), cwd=server.directory)
    return done.stdout


def shown_limits(server: Server, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stepwell(server, "limits", "--output", "json", *arguments).splitlines()]


def test_a_function_with_labels_waits_for_a_worker_that_has_them(database: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    with running(Server(database, tmp_path), APP, EFFECTS=str(effects)) as (client, worker):
        (run_id,) = sent(client, "limited/labelled", {})
        run = client.get_run(run_id)
        assert [one.message for one in run.waiting_for] == [
            "no connected worker with labels gpu=a100 serves limited/labelled"
        ]
        with worker.server.worker(APP, "gpu", EFFECTS=str(effects), STEPWELL_LABELS="gpu=a100, region=eu") as other:
            info = other.connected(client)
            assert info.labels == {"gpu": "a100", "region": "eu"}
            assert "limited/labelled" in info.function_ids
            assert "limited/labelled" not in worker.connected(client).function_ids
            all_completed(client, [run_id])
        assert {pid for *_, pid in noted(effects)} == {str(other.pid)}


def test_a_run_that_counts_to_its_end_keeps_others_out_while_it_sleeps(database: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    with running(Server(database, tmp_path), APP, EFFECTS=str(effects)) as (client, worker):
        runs = sent(client, "limited/whole", *({"user": n % 2} for n in range(6)))
        until(lambda: len(noted(effects)) >= 4, "the first ones sleep")
        worker.server.kill()
        worker.server.start()
        all_completed(client, runs)
        until(lambda: not shown_limits(worker.server), "every slot is given back")
    for user in (0, 1):
        bodies = [run_id for what, of, run_id, _ in noted(effects) if what == "begin" and of == f"whole {user}"]
        assert bodies == [run_id for run_id in dict.fromkeys(bodies) for _ in range(2)]
        assert len(bodies) == 6


def test_h29_a_child_that_could_never_start_is_a_typed_error_of_its_step(database: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    with running(Server(database, tmp_path), APP, EFFECTS=str(effects)) as (client, _):
        (stuck,) = sent(client, "limited/parent", {"user": 1, "child": 1})
        (free,) = sent(client, "limited/parent", {"user": 2, "child": 3})
        assert ended(client, stuck).output == "LIMIT_DEADLOCK"
        assert ended(client, free).output == "whole 3"
