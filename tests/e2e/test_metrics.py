"""What Prometheus reads from a real server with a real worker: exact counts, and a refusal of everything else."""

from __future__ import annotations

import contextlib
import re
import socket
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from stepwell.values import RunStatus

from tests.e2e.conftest import APPS
from tests.support.metrics import Samples, scrape, value
from tests.support.servers import Process, Server, ended, free_port, running, until

APP = {"app": "counted"}


class Measured(Server):
    """A server whose metrics can be read on a port that it picks."""

    def __init__(self, database: str, directory: Path, profile: str = "dev") -> None:
        super().__init__(database, directory, profile=profile)
        self.command += ["--metrics", "0"]

    @property
    def metrics(self) -> str:
        """Where; of the life that began last."""
        return re.findall(r"http://(127\.0\.0\.1:\d+)/metrics", self.text())[-1]

    def scraped(self) -> Samples:
        """The samples of now."""
        return scrape(self.metrics)


def of(function: str, **more: str) -> dict[str, str]:
    """The labels of a function."""
    return {"environment": "dev", "app": "counted", "function": function, **more}


def test_runs_events_and_steps_are_counted_exactly(database: str, tmp_path: Path) -> None:
    with running(server := Measured(database, tmp_path), APPS / "counted.py") as (client, _):
        runs = [client.get_event(client.send("counted/work", {"fail": n < 2})).run_ids[0] for n in range(7)]
        statuses = [ended(client, run_id).status for run_id in runs]
        assert statuses.count(RunStatus.FAILED) == 2
        client.send("counted/work", {}, id="once")
        client.send("counted/work", {}, id="once")
        (run_id,) = client.get_event(client.send("counted/nobody", {})).run_ids or ("",)
        assert run_id == ""
        until(lambda: value(server.scraped(), "stepwell_runs_ended_total", **of("work", status="completed")) == 6, "6")
        seen = server.scraped()
        assert value(seen, "stepwell_runs_created_total", **of("work")) == 8
        assert value(seen, "stepwell_runs_ended_total", **of("work", status="failed")) == 2
        assert value(seen, "stepwell_run_queue_seconds_count", **of("work")) == 8
        assert value(seen, "stepwell_steps_total", kind="run", outcome="completed") == 8 + 6
        assert value(seen, "stepwell_steps_total", kind="run", outcome="failed") == 2
        assert value(seen, "stepwell_step_seconds_count") == 16
        assert value(seen, "stepwell_events_total", outcome="accepted") == 9
        assert value(seen, "stepwell_events_total", outcome="duplicate") == 1
        assert value(seen, "stepwell_sessions", **APP) == 1
        assert value(seen, "stepwell_executing_runs", **APP) == 0
        assert value(seen, "stepwell_capacity_runs", **APP) == client.workers()[0].capacity
        assert value(seen, "stepwell_store_up") == 1
        assert value(seen, "stepwell_commit_batch_size_count") == value(seen, "stepwell_commit_seconds_count")
        assert value(seen, "stepwell_commit_batch_size_sum") >= 7
        assert value(seen, "stepwell_store_rows_total") >= 9 + 8 + 16
        assert value(seen, "stepwell_frames_received_total") > 0
        assert value(seen, "process_resident_memory_bytes") > 0


def test_waits_and_retries_are_counted_by_what_they_wait_for(database: str, tmp_path: Path) -> None:
    with running(server := Measured(database, tmp_path), APPS / "counted.py") as (client, _):
        assert client.invoke("counted/waits", None, timeout=30) == [None, 2]
        seen = server.scraped()
        for kind, outcome in (("sleep", "completed"), ("event", "timed_out"), ("invoke", "completed")):
            assert value(seen, "stepwell_steps_total", kind=kind, outcome=outcome) == 1, kind
            assert value(seen, "stepwell_waits_opened_total", kind=kind) == 1, kind
        assert value(seen, "stepwell_waits_opened_total", kind="retry") == 1
        assert value(seen, "stepwell_steps_total", kind="run", outcome="completed") == 1
        assert value(seen, "stepwell_timers_fired_total") == 3
        assert value(seen, "stepwell_runs_ended_total", **of("child", status="completed")) == 1


def test_a_queue_without_a_worker_shows_its_depth_and_age_also_after_a_restart(database: str, tmp_path: Path) -> None:
    server = Measured(database, tmp_path)
    with running(server, APPS / "counted.py") as (client, worker):
        assert worker.stop() == 0
        until(lambda: value(server.scraped(), "stepwell_sessions", **APP) == 0, "the worker has left")
        client.send("counted/work", {})
        client.send("counted/work", {})
        for _ in range(2):
            seen = server.scraped()
            assert value(seen, "stepwell_queue_runs", **of("work")) == 2
            assert value(seen, "stepwell_queue_more", **of("work")) == 0
            assert value(seen, "stepwell_queue_oldest_seconds", **of("work")) > 0
            assert server.stop() == 0
            server.start()
            until(lambda: value(server.scraped(), "stepwell_queue_runs", **of("work")) == 2, "the queue is read")


def test_a_lost_run_is_counted_once(database: str, tmp_path: Path) -> None:
    effects = tmp_path / "effects"
    effects.touch()
    with running(server := Measured(database, tmp_path), APPS / "losing.py", EFFECTS=str(effects)) as (client, worker):
        client.send("losing/deadly", {})
        worker.wait()
        until(lambda: value(server.scraped(), "stepwell_runs_lost_total") == 1, "the run is lost")
        until(lambda: value(server.scraped(), "stepwell_queue_runs", **of("killer", app="losing")) == 1, "it queues")
        assert value(server.scraped(), "stepwell_runs_lost_total") == 1


@contextlib.contextmanager
def asked(address: str, request: bytes) -> Generator[bytes]:
    """What comes back for some bytes."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as answer:
            yield answer.read()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"200 OK"),
        (b"HEAD /metrics?x=1 HTTP/1.0\r\n\r\n", b"200 OK"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", b"405 Method Not Allowed"),
        (b"GET / HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"GET /metrics/../etc HTTP/1.1\r\n\r\n", b"404 Not Found"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400 Bad Request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400 Bad Request"),
        (b"GET /metrics\r\n\r\n", b"400 Bad Request"),
        (b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 5_000 + b"\r\n", b"400 Bad Request"),
        (b"", b"400 Bad Request"),
    ],
)
def test_only_a_read_of_metrics_is_answered(idle: Measured, request_: bytes, status: bytes) -> None:
    with asked(idle.metrics, request_) as answer:
        assert answer.startswith(b"HTTP/1.1 " + status + b"\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"Connection: close" in head
        assert bool(body) == (not request_.startswith(b"HEAD"))
    assert value(idle.scraped(), "stepwell_store_up") == 1


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Generator[Measured]:
    """A server that nobody uses otherwise."""
    folder = tmp_path_factory.mktemp("idle")
    with Measured(f"sqlite:///{folder}/idle.db", folder) as server:
        yield server


def test_an_address_that_is_in_use_is_refused_by_name_and_nothing_is_opened(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-m", "stepwell", "serve", "--database", f"sqlite:///{tmp_path}/x.db"]
        command += ["--listen", f"127.0.0.1:{free_port()}", "--metrics", place]
        with Process(command, tmp_path / "log", cwd=tmp_path) as process:
            assert process.wait() == 4
        assert place in process.text()
        assert "PORT_IN_USE" in process.text()
        assert not (tmp_path / "x.db").exists()


@pytest.mark.parametrize("place", ["nowhere", "127.0.0.1:99999", "::1:9000", "127.0.0.1:"])
def test_what_is_no_address_is_refused(tmp_path: Path, place: str) -> None:
    command = [
        sys.executable,
        "-m",
        "stepwell",
        "serve",
        "--database",
        f"sqlite:///{tmp_path}/x.db",
        "--metrics",
        place,
    ]
    with Process(command, tmp_path / "log", cwd=tmp_path) as process:
        assert process.wait() == 2
    assert "--metrics" in process.text()
