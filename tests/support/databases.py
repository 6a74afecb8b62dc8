"""Databases for the processes of a test: each store once, Postgres started once for the session."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.postgres import PostgresNotFoundError, PostgresServer

Databases = Callable[[str, Path], str]
_numbers = itertools.count(1)


@contextmanager
def postgres_or_skip(**options: Any) -> Generator[PostgresServer]:
    """A server of a test's own. Where none can be had the test is skipped with the reason; in CI it fails.

    Its folder is not below that of pytest, which shuts out the account of Postgres.
    """
    folder = Path(tempfile.mkdtemp(prefix="stepwell-databases-"))
    folder.chmod(0o755)
    try:
        server = PostgresServer(folder, **options)
    except PostgresNotFoundError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    with server:
        yield server
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def databases() -> Generator[Databases]:
    """A new database of a store by name, in a folder: its URL."""
    with ExitStack() as stack:
        servers: list[PostgresServer] = []

        def create(store: str, directory: Path) -> str:
            number = next(_numbers)
            if store == "sqlite":
                return f"sqlite:///{directory}/stepwell-{number}.db"
            if not servers:
                servers.append(stack.enter_context(postgres_or_skip()))
            return servers[0].create_database(f"test_{number}")

        yield create
