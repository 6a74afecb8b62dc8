"""Child processes of the harness: started with a log, awaited by a line, stopped by their own id."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STOP_DEADLINE_S = 5.0
LINE_DEADLINE_S = 60.0
LINE_BYTES = 16 << 20


class ChildError(RuntimeError):
    """A child ended, or said nothing in time; the text holds the end of its log."""


class Child:
    """A Python module, or another program, that runs in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, name: str, log: Path) -> None:
        self._process = process
        self._name = name
        self._log = log
        self.pid = process.pid

    @classmethod
    async def start(
        cls, name: str, arguments: list[str], logs: Path, environment: dict[str, str],
        program: tuple[str, ...] = (sys.executable, "-m"),
    ) -> Child:  # fmt: skip
        """Runs `python -m …`, with the repository's packages on the path, or another program.

        Its stdout is ours, stderr goes to the log.
        """
        log = logs / f"{name}.log"
        packages = [str(ROOT), str(ROOT / "sdk_python"), str(ROOT / "server")]
        with log.open("ab") as stderr:
            process = await asyncio.create_subprocess_exec(
                *program, *arguments,
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=stderr, limit=LINE_BYTES,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(packages), "PYTHONUNBUFFERED": "1", **environment},
            )  # fmt: skip
        return cls(process, name, log)

    async def line(self, deadline_s: float = LINE_DEADLINE_S) -> str:
        """The next line of its stdout."""
        assert self._process.stdout
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), deadline_s)
        except TimeoutError:
            raise self.failed(f"said nothing for {deadline_s:.0f} s") from None
        if not line:
            raise self.failed("ended")
        return line.decode().rstrip("\n")

    async def expect(self, text: str, deadline_s: float = LINE_DEADLINE_S) -> None:
        """Reads lines until one is `text`."""
        while await self.line(deadline_s) != text:
            pass

    def send(self, text: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(text.encode() + b"\n")

    def failed(self, what: str) -> ChildError:
        tail = self._log.read_text(errors="replace")[-3000:] if self._log.exists() else ""
        return ChildError(f"{self._name} {what}\n{tail}")

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    def signal(self, number: signal.Signals) -> None:
        if self.alive:
            self._process.send_signal(number)

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL if that is not enough. Safe to call twice."""
        if not self.alive:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), STOP_DEADLINE_S)
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        if self.alive:
            self._process.kill()
        await self._process.wait()


def free_address() -> str:
    """A loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"
