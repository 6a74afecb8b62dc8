"""Workers die, freeze, change their code and leave: their runs go on elsewhere, or say why they do not."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

from stepwell.client import Client
from stepwell.event import NewEvent
from stepwell.values import RunStatus

from tests.e2e.conftest import APPS, World
from tests.support.servers import Server, Worker, ended, reached, running, until


def kept_alive(worker: Worker, enough: threading.Event) -> None:
    """Starts a worker again whenever it has ended, as a supervisor would."""
    while not enough.is_set():
        if not worker.running:
            worker.start()
        enough.wait(0.05)


def test_h13_a_body_that_kills_its_process_is_paused_and_innocents_finish(database: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    effects.touch()
    with Server(database, tmp_path) as server:
        client = server.client()
        enough, workers = (
            threading.Event(),
            [server.worker(APPS / "losing.py", name, EFFECTS=str(effects)) for name in ("a", "b")],
        )
        supervisors = [threading.Thread(target=kept_alive, args=(worker, enough)) for worker in workers]
        try:
            for supervisor in supervisors:
                supervisor.start()
            until(lambda: len([one for one in client.workers() if one.connected]) == 2, "both workers are connected")
            sent = client.send_many([NewEvent("losing/deadly"), *[NewEvent("losing/innocent") for _ in range(6)]])
            (deadly,) = client.get_event(sent[0].event_id).run_ids
            runs = [run_id for status in sent[1:] for run_id in client.get_event(status.event_id).run_ids]
            for run_id in runs:
                assert ended(client, run_id, 60).output == [0, 1, 2]
            run = reached(client, deadly, lambda run: run.status is RunStatus.PAUSED, 60)
            assert run.paused_reason == "WORKER_LOST"
            assert run.failure is not None
            assert run.failure.reason == "WORKER_LOST"
            assert [one.kind for one in run.waiting_for] == ["PAUSED"]
            begun = [line for line in effects.read_text().splitlines() if line.startswith(f"{deadly}\tdeadly\t")]
            assert len(begun) == 5
            assert client.cancel_run(deadly).status is RunStatus.CANCELLED
        finally:
            enough.set()
            for supervisor in supervisors:
                supervisor.join()
            for worker in workers:
                worker.kill()


def test_h15_a_run_that_no_longer_fits_is_paused_and_goes_on_with_a_fitting_worker(
    database: str, tmp_path: Path
) -> None:
    effects = tmp_path / "effects"
    app = APPS / "changing.py"
    with running(Server(database, tmp_path), app, "old", EFFECTS=str(effects), BUILD="one") as (client, old):
        handle = client.start("changing/changing", {"u": 1})
        reached(client, handle.run_id, lambda run: any(one.event == "changing/go" for one in run.waiting_for))
        old.kill()
        with old.server.worker(app, "new", EFFECTS=str(effects), BUILD="two") as new:
            new.connected(client)
            client.send("changing/go", {"u": 1})
            run = reached(client, handle.run_id, lambda run: run.status is RunStatus.PAUSED)
            assert run.paused_reason == "NONDETERMINISTIC"
            assert run.failure is not None
            assert "second" in run.failure.message
            assert "SLEEP" in run.failure.message.upper(), "what the journal holds"
            assert "RUN" in run.failure.message.upper(), "what the code asks for"
            assert "changing.py:" in run.failure.message, "where"
            with old.server.worker(app, "third", EFFECTS=str(effects), BUILD="three") as third:
                third.connected(client)
                assert ended(client, handle.run_id).output == ["first by one", "third by three"]


def test_h12_the_runs_of_a_killed_worker_move_in_about_a_second(database: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    effects.touch()
    with running(Server(database, tmp_path), APPS / "losing.py", "a", EFFECTS=str(effects)) as (client, first):
        runs = [run_id for n in range(10) for run_id in started(client, n)]
        until(lambda: len(effects.read_text().splitlines()) >= 10, "bodies execute")
        with first.server.worker(APPS / "losing.py", "b", EFFECTS=str(effects)) as second:
            second.connected(client)
            first.kill()
            before = len(effects.read_text().splitlines())
            began = time.monotonic()
            until(lambda: len(effects.read_text().splitlines()) > before, "the runs execute elsewhere")
            assert time.monotonic() - began < 3
            assert all(ended(client, run_id).output == [0, 1, 2] for run_id in runs)


def started(client: Client, n: int) -> tuple[str, ...]:
    return client.get_event(client.send("losing/innocent", {"n": n})).run_ids


def test_h12_a_frozen_worker_loses_its_runs_after_its_lease_and_cannot_write_them(
    database: str, tmp_path: Path
) -> None:
    effects = tmp_path / "effects"
    effects.touch()
    server = Server(database, tmp_path).tuned(lease_ms=1_500, heartbeat_ms=400)
    with running(server, APPS / "losing.py", "a", EFFECTS=str(effects)) as (client, frozen):
        (run_id,) = started(client, 0)
        until(effects.read_text, "a body executes")
        frozen.signal(signal.SIGSTOP)
        try:
            with server.worker(APPS / "losing.py", "b", EFFECTS=str(effects)) as other:
                other.connected(client)
                assert ended(client, run_id).output == [0, 1, 2]
                run = client.get_run(run_id)
                assert run.turn == 2
                before = [(one.key, one.number, one.ended) for one in client.journal(run_id)]
                frozen.signal(signal.SIGCONT)
                frozen.connected(client)
                assert client.get_run(run_id).turn == 2
                assert [(one.key, one.number, one.ended) for one in client.journal(run_id)] == before
        finally:
            frozen.signal(signal.SIGCONT)


def test_h12c_a_thawed_worker_begins_nothing_that_lay_in_its_socket(database: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    effects.touch()
    server = Server(database, tmp_path).tuned(lease_ms=1_500, heartbeat_ms=400)
    with running(server, APPS / "losing.py", "a", EFFECTS=str(effects)) as (client, frozen):
        frozen.connected(client)
        frozen.signal(signal.SIGSTOP)
        try:
            (run_id,) = started(client, 0)
            reached(client, run_id, lambda run: run.turn == 1)
            with server.worker(APPS / "losing.py", "b", EFFECTS=str(effects)):
                assert ended(client, run_id).output == [0, 1, 2]
                frozen.signal(signal.SIGCONT)
                frozen.connected(client)
                done = [line.split("\t")[1] for line in effects.read_text().splitlines()]
                assert done == ["slow", "slow:2", "slow:3"], "all by the other one"
        finally:
            frozen.signal(signal.SIGCONT)


def test_a_worker_that_drains_gives_everything_back_and_no_loss_is_counted(database: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    effects.touch()
    with running(Server(database, tmp_path), APPS / "losing.py", "0", EFFECTS=str(effects)) as (client, worker):
        runs = [run_id for n in range(20) for run_id in started(client, n)]
        until(effects.read_text, "bodies execute")
        for n in range(1, 7):  # a loss each time would pause them
            if all(client.get_run(run_id).status.ended for run_id in runs):
                break
            following = worker.server.worker(APPS / "losing.py", str(n), EFFECTS=str(effects)).start()
            following.connected(client)
            assert worker.stop() == 0, worker.text()
            worker = following
        try:
            assert all(ended(client, run_id).output == [0, 1, 2] for run_id in runs)
        finally:
            worker.kill()
        lines = [tuple(line.split("\t")[:2]) for line in effects.read_text().splitlines()]
        assert len(lines) == len(set(lines)) == 60, "bodies that execute at a drain finish there"


def test_h16_a_parked_run_is_woken_though_no_worker_was_there_when_its_event_came(world: World) -> None:
    client = world.client
    event_id = client.send("w/start", {"u": "late", "waits": [{"event": "w/late", "timeout": "30s"}]})
    (run_id,) = client.get_event(event_id).run_ids
    reached(client, run_id, lambda run: run.status is RunStatus.PARKED)
    world.worker.kill()
    client.send("w/late", {"n": 1})
    reached(client, run_id, lambda run: any(one.kind == "NO_WORKER" for one in run.waiting_for))
    world.worker.start()
    assert ended(client, run_id).output == [1]
    world.worker.connected(client)
