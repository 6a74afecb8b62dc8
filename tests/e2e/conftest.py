"""Databases for the processes of a test: each store once, Postgres started once for the session."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import NamedTuple

import pytest
from stepwell.client import Client

from tests.support.postgres import PostgresNotFoundError, PostgresServer
from tests.support.servers import Server, Worker, running

STORES = ("sqlite", "postgres")
APPS = Path(__file__).parent / "apps"

Databases = Callable[[str, Path], str]
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def databases() -> Generator[Databases]:
    """A new database of a store by name, in a folder: its URL."""
    servers: list[PostgresServer] = []
    folder = Path(tempfile.mkdtemp(prefix="stepwell-e2e-"))
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
        return postgres().create_database(f"e2e_{number}")

    yield create
    for server in servers:
        server.__exit__(None, None, None)


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> str:
    """The store that a test runs on."""
    return request.param


@pytest.fixture
def database(store: str, databases: Databases, tmp_path: Path) -> str:
    """The URL of an empty database."""
    return databases(store, tmp_path)


class World(NamedTuple):
    """A dev server with the app features.py, shared by the tests of a session."""

    store: str
    server: Server
    worker: Worker
    client: Client
    effects: Path

    def executed(self, run_id: str, key: str) -> int:
        """How often the body of a step began."""
        return sum(line.split("\t")[:2] == [run_id, key] for line in self.effects.read_text().splitlines())


@pytest.fixture(scope="session", params=STORES)
def world(request: pytest.FixtureRequest, databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:  # fmt: skip  # noqa: E501
    """See World."""
    folder = tmp_path_factory.mktemp(f"world-{request.param}")
    effects = folder / "effects"
    effects.touch()
    server = Server(databases(request.param, folder), folder)
    with running(server, APPS / "features.py", EFFECTS=str(effects)) as (client, worker):
        yield World(request.param, server, worker, client, effects)
