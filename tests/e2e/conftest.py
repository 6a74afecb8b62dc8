"""Databases for the processes of a test: each store once, Postgres started once for the session."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

import pytest
from stepwell.client import Client

from tests.support.databases import Databases, databases
from tests.support.servers import Server, Worker, running

__all__ = ["databases"]

STORES = ("sqlite", "postgres")
APPS = Path(__file__).parent / "apps"


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
