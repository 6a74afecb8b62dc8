"""A server leaves by SIGTERM: workers are told, keep their runs, and go on with the next; nothing is tried twice."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest
from stepwell.client import Client
from stepwell.event import NewEvent
from stepwell.values import RunStatus

from tests.e2e.conftest import APPS
from tests.support.servers import Process, Server, ended, reached, running, until

SURPRISES = ("the stream ended", "stopping all bodies", "Traceback")
"""What a worker logs where nobody told it, or where it had to wait for too long."""


class Load:
    """Sends events until it is stopped; the ids of those that were acknowledged."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.sent: list[str] = []

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            batch = [NewEvent("losing/innocent", {"n": number + n}, id=f"e{number + n}") for n in range(3)]
            # Refused while the server stops, and sent again by the client until the next one answers.
            self.sent += [status.event_id for status in self._client.send_many(batch)]
            number += len(batch)
            self._stop.wait(0.05)


def check(client: Client, sent: list[str], effects: Path) -> None:
    """All runs have ended where they began, and no body began twice."""
    runs = [run_id for event_id in sent for run_id in client.get_event(event_id).run_ids]
    assert len(runs) == len(sent)
    for run_id in runs:
        assert ended(client, run_id).output == [0, 1, 2]
    assert {client.get_run(run_id).turn for run_id in runs} == {1}, "the worker kept them all"
    begun = Counter(tuple(line.split("\t")[:2]) for line in effects.read_text().splitlines())
    assert [key for key, count in begun.items() if count > 1] == []
    assert sum(begun.values()) == 3 * len(runs)


def test_a_restart_by_sigterm_under_load_costs_no_run_anything(database: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    effects.touch()
    server = Server(database, tmp_path, profile="serve")
    with running(server, APPS / "losing.py", EFFECTS=str(effects)) as (client, worker):
        with Load(client) as load:
            for _ in range(3):
                before = len(load.sent)
                until(lambda: len(load.sent) > before + 30, "events are accepted")  # noqa: B023
                assert server.stop() == 0
                server.start()
                worker.connected(client)
        check(client, load.sent, effects)
        assert [surprise for surprise in SURPRISES if surprise in server.text() + worker.text()] == []


def test_a_server_that_stops_says_so_to_clients_and_they_try_again(database: str, tmp_path: Path) -> None:
    """A call that waits for the end of a run goes on with the next server."""
    effects = tmp_path / "effects"
    server = Server(database, tmp_path, profile="serve")
    with running(server, APPS / "features.py", EFFECTS=str(effects)) as (client, worker):
        handle = client.start("features/sleeper", {"for": "4s"})
        reached(client, handle.run_id, lambda run: run.status is RunStatus.PARKED)
        answers: list[object] = []
        waiting = threading.Thread(target=lambda: answers.append(handle.result(40)))
        waiting.start()
        assert server.stop() == 0
        server.start()
        waiting.join()
        assert len(answers) == 1
        assert client.get_run(handle.run_id).turn == 1
        worker.connected(client)


@pytest.mark.parametrize("addresses", ["both", "one"])
def test_a_standby_takes_over_with_the_workers(database: str, tmp_path: Path, addresses: str) -> None:
    """With both addresses the workers move over; with one they wait until a server is there again."""
    effects = tmp_path / "effects"
    effects.touch()
    other = tmp_path / "other"
    other.mkdir()
    first, second = Server(database, tmp_path, profile="serve"), Server(database, other, profile="serve")
    second.command.append("--standby")
    targets = f"ipv4:{first.address},{second.address}" if addresses == "both" else first.address
    with first:
        try:
            Process.start(second)
            until(lambda: "standing by" in second.text(), "it stands by")
            with first.worker(APPS / "losing.py", "one", EFFECTS=str(effects), STEPWELL_ADDRESS=targets) as worker:
                worker.connected(first.client())
                sent = [first.client().send("losing/innocent", {"n": n}) for n in range(20)]
                until(lambda: len(effects.read_text().splitlines()) > 20, "bodies execute")
                assert first.stop() == 0
                until(lambda: "listens on" in second.text(), "the second has taken over")
                last = second
                if addresses == "one":
                    assert second.stop() == 0
                    last = first.start()
                client = last.client()
                worker.connected(client)
                check(client, sent, effects)
                assert [surprise for surprise in SURPRISES if surprise in worker.text()] == []
        finally:
            second.__exit__(None, None, None)
