"""Databases for the processes of a test: each store once, Postgres started once for the session."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from tests.support.postgres import PostgresNotFoundError, PostgresServer

Databases = Callable[[str, Path], str]
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def databases() -> Generator[Databases]:
    """A new database of a store by name, in a folder: its URL."""
    servers: list[PostgresServer] = []
    folder = Path(tempfile.mkdtemp(prefix="stepwell-databases-"))
    folder.chmod(0o755)

    def postgres() -> PostgresServer:
        if not servers:
            try:
                servers.append(PostgresServer(folder).__enter__())
            except PostgresNotFoundError as error:
                if os.environ.get("CI") == "true":
                    raise
                pytest.skip(str(error))
        return servers[0]

    def create(store: str, directory: Path) -> str:
        number = next(_numbers)
        if store == "sqlite":
            return f"sqlite:///{directory}/stepwell-{number}.db"
        return postgres().create_database(f"test_{number}")

    yield create
    for server in servers:
        server.__exit__(None, None, None)
