"""What the demo stands on: the processes it starts and kills, its connection to the server, and the screen."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from stepwell import Client

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0


class DemoError(Exception):
    """Something is not as it must be."""


class Screen:
    """A live view on a terminal; plain lines elsewhere."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)

    def title(self, text: str) -> None:
        """A chapter."""
        self.console.print(f"\n[bold]{text}[/bold]")

    def said(self, text: str) -> None:
        """What happens."""
        self.console.print(f"  {text}", markup=False)

    def proved(self, claim: str) -> None:
        """A claim that holds."""
        self.console.print("  [green]✓[/green]", end=" ")
        self.console.print(claim, markup=False)

    def wrong(self, text: str) -> None:
        """What failed."""
        self.console.print("[red]✗[/red]", end=" ")
        self.console.print(text, markup=False)

    def plain(self, text: str) -> None:
        """Output of a command, as it is."""
        self.console.print(
            "\n" + "\n".join(f"    {line}" for line in text.rstrip().splitlines()) + "\n", markup=False, soft_wrap=True
        )

    @contextmanager
    def progress(self, what: str, total: int) -> Generator[Callable[[int], None]]:
        """A bar to be moved; without a terminal, a line each time a tenth more is done."""
        columns = TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn()
        last = -1

        def show(done: int) -> None:
            nonlocal last
            view.update(task, completed=done)
            if not self.console.is_terminal and done * 10 // total > last:
                last = done * 10 // total
                self.said(f"{what}: {done:,} of {total:,}")

        with Progress(*columns, console=self.console, disable=not self.console.is_terminal) as view:
            task = view.add_task(what, total=total)
            yield show


class Stage:
    """A folder of its own with a server and workers in processes of their own; all of them end with it."""

    def __init__(self) -> None:
        base = Path(".stepwell").resolve()
        for old in base.glob("demo-*"):
            if not _alive(old.name.rpartition("-")[2]):
                shutil.rmtree(old, ignore_errors=True)
        self.folder = base / f"demo-{os.getpid()}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.database = self.folder / "stepwell.db"
        self.contacts_db = self.folder / "contacts.db"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._client: Client | None = None

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._client is not None:
            self._client.close()
        # Workers first: they give their runs back to a server that still listens.
        for name in sorted(self._processes, key=lambda name: name == "server"):
            process = self._processes[name]
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(STOP_TIMEOUT_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def start_server(self) -> None:
        """`stepwell dev` on a SQLite file."""
        url = f"sqlite:///{self.database}"
        options = ("--no-reload", "--listen", self.address, "--database", url)
        self._start("server", sys.executable, "-m", "stepwell", "dev", *options)

    def start_worker(self, name: str, *command: str | Path) -> None:
        """A worker by its command."""
        self._start(name, *command)

    def kill(self, name: str) -> int:
        """kill -9 of a process started here; its pid."""
        process = self._processes[name]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return process.pid

    def connect(self) -> None:
        """Waits until the server listens."""
        if self._client is not None:
            self._client.close()
        deadline = time.monotonic() + START_TIMEOUT_S
        host, _, port = self.address.rpartition(":")
        while True:
            self.check_processes()
            try:
                socket.create_connection((host, int(port)), timeout=1).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise DemoError(f"the server does not listen\n{self.log_tails()}") from None
                time.sleep(0.03)
        self._client = Client(self.address)

    def check_processes(self) -> None:
        """Raises DemoError if one has ended by itself."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise DemoError(f"{name} ended with {process.returncode}\n{self.log_tails(name)}")

    def log_tails(self, *names: str) -> str:
        """The last lines of each log."""
        parts: list[str] = []
        for name in names or self._processes:
            lines = (self.folder / f"{name}.log").read_text(errors="replace").splitlines()[-15:]
            parts.append("\n".join([f"── {name}", *lines]))
        return "\n".join(parts)

    @property
    def client(self) -> Client:
        """The connection to the server that runs now."""
        if self._client is None:
            raise DemoError("there is no server yet")
        return self._client

    def cli(self, *arguments: str) -> str:
        """What the command `stepwell` prints."""
        command = [sys.executable, "-m", "stepwell", *arguments]
        done = subprocess.run(command, env=self._env(), capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise DemoError(f"stepwell {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def where_to_look(self) -> str:
        """Commands for the curious."""
        url = f"sqlite:///{os.path.relpath(self.database)}"
        return f"stepwell dev examples/contacts/app.py examples/signup/app.py --database {url}\nstepwell runs list"

    def _start(self, name: str, *command: str | Path) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command, env=self._env(), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    def _env(self) -> dict[str, str]:
        return {
            **os.environ,
            "STEPWELL_ADDRESS": self.address,
            "STEPWELL_ENVIRONMENT": "",
            "CONTACTS_DB": str(self.contacts_db),
            "PYTHONUNBUFFERED": "1",
        }


def _alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
