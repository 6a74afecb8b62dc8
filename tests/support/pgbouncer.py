"""A PgBouncer of our own in transaction mode before a Postgres server, on a free port, stopped by its pid."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from tests.support.postgres import as_account, free_port

START_DEADLINE_S = 20.0
PROGRAM = "/usr/sbin/pgbouncer"


class PgBouncerNotFoundError(RuntimeError):
    """It is not on this machine."""


def find_program() -> str:
    """Where PgBouncer is; on CI it is installed where it is not. Raises PgBouncerNotFoundError."""
    found = shutil.which("pgbouncer") or shutil.which(PROGRAM)
    if not found and os.environ.get("CI") == "true" and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "-y", "-q", "--no-install-recommends", "pgbouncer"], check=True)
        found = shutil.which(PROGRAM)
    if not found:
        raise PgBouncerNotFoundError("LEFT OUT: no PgBouncer here; install it (Debian: apt-get install pgbouncer)")
    return found


class PgBouncer:
    """Pools the connections to the server of a URL; use it as a context manager. options: more of its settings."""

    def __init__(self, server_url: str, **options: str) -> None:
        self._program = find_program()
        self._directory = Path(tempfile.mkdtemp(prefix="stepwell-pgbouncer-"))
        self._server = urlsplit(server_url)
        self._port = free_port()
        self._process: subprocess.Popen[Any] | None = None
        self._options = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(self._port),
            "unix_socket_dir": "",
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": "3",
            **options,
        }

    def url(self, database: str) -> str:
        """The URL of a database through the pool."""
        return f"postgresql://postgres@127.0.0.1:{self._port}/{database}"

    def __enter__(self) -> PgBouncer:
        server = self._server
        lines = ["[databases]", f"* = host={server.hostname} port={server.port} user={server.username}", "[pgbouncer]"]
        lines += [f"{name} = {value}" for name, value in self._options.items()]
        file = self._directory / "pgbouncer.ini"
        file.write_text("\n".join(lines) + "\n")
        self._directory.chmod(0o755)
        with (self._directory / "pgbouncer.log").open("ab") as log:
            self._process = subprocess.Popen(
                as_account([self._program, file]), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/"
            )
        self._wait_until_ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        if process and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(START_DEADLINE_S)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _wait_until_ready(self) -> None:
        assert self._process
        deadline = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._port)) == 0:
                    return
            time.sleep(0.02)
        raise RuntimeError("PgBouncer did not start:\n" + (self._directory / "pgbouncer.log").read_text()[-2000:])
