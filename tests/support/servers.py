"""Real processes for tests: a server, its workers, and clients of them; each is ended by its process id."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from stepwell.api_errors import ApiError
from stepwell.client import Client
from stepwell.values import Run, WorkerInfo

ROOT = Path(__file__).resolve().parents[2]
START_S = 30.0
STOP_S = 20.0
LOOK_S = 0.02

T = TypeVar("T")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(look: Callable[[], T], what: str, timeout_s: float = START_S) -> T:
    """The first true thing that `look` answers; for signals that no call can wait for. Fails after the time-out."""
    end = time.monotonic() + timeout_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, f"{what}: not within {timeout_s:g} s"
        time.sleep(LOOK_S)


def environment(**given: str) -> dict[str, str]:
    """Variables of a child process: ours without those of Stepwell, and those given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STEPWELL_")}
    path = os.pathsep.join(filter(None, (str(ROOT), kept.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **given}


class Process:
    """A child process whose output goes to a file. It is killed when the block ends."""

    def __init__(self, command: Iterable[str | Path], log: Path, *, cwd: Path, **options: Any) -> None:
        self.command = [str(part) for part in command]
        self.log = log
        self._options = {"cwd": cwd, "env": environment(), **options}
        self.popen: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> Self:
        """Starts it; again, if it has ended."""
        assert self.popen is None or self.popen.poll() is not None, "it runs already"
        with self.log.open("ab") as out:
            self.popen = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, **self._options
            )
        return self

    @property
    def pid(self) -> int:
        """Of the process started last."""
        assert self.popen is not None, "start it first"
        return self.popen.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.popen is not None and self.popen.poll() is None

    def kill(self) -> None:
        """kill -9, and waits for the end."""
        if self.popen is not None and self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait(STOP_S)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal."""
        assert self.popen is not None, "start it first"
        self.popen.send_signal(number)

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self, timeout_s: float = STOP_S) -> int:
        """Its exit code, once it ends by itself."""
        assert self.popen is not None, "start it first"
        return self.popen.wait(timeout_s)

    def text(self) -> str:
        """All it has written, over all its lives."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Server(Process):
    """`stepwell dev` (or serve) on a free port, which it keeps over restarts."""

    def __init__(self, database: str, directory: Path, *, profile: str = "dev", **options: Any) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.database = database
        self.directory = directory
        command = [sys.executable, "-m", "stepwell", profile, "--database", database, "--listen", self.address]
        super().__init__(command, directory / "server.log", cwd=directory, **options)
        self._clients: list[Client] = []

    def tuned(self, **tuning: int) -> Self:
        """The same, with other times of the engine."""
        self.command[2:3] = ["tests.support.tuned_server", json.dumps(tuning)]
        return self

    def start(self) -> Self:
        """Starts it and returns once it listens."""
        before = self.text().count("listens on")
        super().start()
        until(lambda: self.text().count("listens on") > before or not self.running, "the server listens")
        assert self.running, self.text()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients:
            client.close()
        self._clients.clear()
        super().__exit__(kind, error, trace)

    def client(self) -> Client:
        """A client that is closed with the server."""
        client = Client(self.address, environment="")
        self._clients.append(client)
        return client

    def worker(self, app: Path, instance: str, **variables: str) -> Worker:
        """A worker of this server, not started yet."""
        return Worker(self, app, instance, variables)


class Worker(Process):
    """A process that serves an app."""

    def __init__(self, server: Server, app: Path, instance: str, variables: dict[str, str]) -> None:
        self.server = server
        self.instance = instance
        env = environment(**{"STEPWELL_ADDRESS": server.address, "WORKER_INSTANCE": instance, **variables})
        super().__init__(
            [sys.executable, app], server.directory / f"worker-{instance}.log", cwd=server.directory, env=env
        )

    def connected(self, client: Client) -> WorkerInfo:
        """Waits until the server has this very process's session."""

        def look() -> WorkerInfo | None:
            assert self.running, self.text()
            with contextlib.suppress(ApiError):
                for info in client.workers():
                    if info.connected and info.instance == f"{self.instance}:{self.pid}":
                        return info
            return None

        found = until(look, f"worker {self.instance} is connected")
        assert found is not None
        return found


def reached(client: Client, run_id: str, fits: Callable[[Run], bool], timeout_s: float = START_S) -> Run:
    """The run as soon as it fits; fails with what it does instead if it ends or stays."""
    run: list[Run] = []

    def look() -> bool:
        run[:] = [client.get_run(run_id)]
        return fits(run[0]) or run[0].status.ended

    with contextlib.suppress(AssertionError):
        until(look, "", timeout_s)
    assert fits(run[0]), f"it is not reached: {run[0]}\n{client.journal(run_id)}"
    return run[0]


def ended(client: Client, run_id: str, timeout: float = 30.0) -> Run:
    """The run once it has ended; fails with what it waits for if it does not."""
    run = client.wait_run(run_id, timeout)
    if not run.status.ended:
        raise AssertionError(f"the run did not end: {client.get_run(run_id)}\n{client.journal(run_id)}")
    return run


@contextlib.contextmanager
def running(server: Server, app: Path, instance: str = "one", **variables: str) -> Generator[tuple[Client, Worker]]:
    """A server with one worker that is connected, and a client."""
    with server:
        client = server.client()
        with server.worker(app, instance, **variables) as worker:
            worker.connected(client)
            yield client, worker
