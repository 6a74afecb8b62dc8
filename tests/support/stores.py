"""Every store behind one door: opened empty for a test, with a dump of its tables beside it."""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import pytest
from stepwell_server.adapters.memory import MemoryStore
from stepwell_server.adapters.sql.schema import LEAST_BUILD
from stepwell_server.model.claim import ClaimRow, MemberRow
from stepwell_server.model.event import CursorRow, DedupRow, EventRow
from stepwell_server.model.function import DeploymentRow, ShapeRow, SwitchRow
from stepwell_server.model.journal import OutcomeRow, WaitRow
from stepwell_server.model.run import RunRow
from stepwell_server.model.session import LeaseRow, SessionRow, SettingRow
from stepwell_server.ports.retention import Retention
from stepwell_server.ports.store import Claims, History, Homes, Store

NAMES = ("memory", "sqlite", "postgres")

# What a dump reads: the columns are the fields of the model's rows.
COLUMNS: dict[str, tuple[str, ...]] = {
    "events": EventRow._fields,
    "dedup": DedupRow._fields,
    "cursors": CursorRow._fields,
    "runs": RunRow._fields,
    "outcomes": OutcomeRow._fields,
    "waits": WaitRow._fields,
    "sessions": SessionRow._fields,
    "deployments": DeploymentRow._fields,
    "shapes": ShapeRow._fields,
    "switches": SwitchRow._fields,
    "claims": ClaimRow._fields,
    "members": MemberRow._fields,
    "leases": LeaseRow._fields,
    "settings": SettingRow._fields,
}
FLAGS = frozenset({"detached"})
_SELECTS = {
    table: "select " + ", ".join(f'"{column}"' for column in columns) + f" from {table}"
    for table, columns in COLUMNS.items()
}  # What older builds read of the schema is no row of the model.
_SELECTS["settings"] += f" where name <> '{LEAST_BUILD}'"

Dump = dict[str, list[tuple[Any, ...]]]


class FullStore(Store, History, Claims, Homes, Protocol):
    """What every adapter offers."""

    flushers: int
    retention: Retention

    async def close(self) -> None: ...


class StoreMissingError(RuntimeError):
    """A store cannot be had on this machine."""


@dataclass(frozen=True, slots=True)
class OpenStore:
    """A store with nothing in it. dump: its tables, canonical. url: of the database, for Postgres only."""

    name: str
    store: FullStore
    dump: Callable[[], Awaitable[Dump]]
    url: str = ""


@asynccontextmanager
async def open_store(name: str, directory: Path) -> AsyncIterator[OpenStore]:
    """Opens an empty store by name. Raises StoreMissingError."""
    async with _OPENERS[name](directory) as opened:
        try:
            yield opened
        finally:
            await opened.store.close()


@asynccontextmanager
async def store_or_skip(name: str, directory: Path) -> AsyncIterator[OpenStore]:
    """Opens an empty store for a test. One that cannot be had skips the test with the reason; in CI it fails it."""
    try:
        context = open_store(name, directory)
        opened = await context.__aenter__()
    except StoreMissingError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    try:
        yield opened
    finally:
        await context.__aexit__(None, None, None)


@asynccontextmanager
async def _memory(_directory: Path) -> AsyncIterator[OpenStore]:
    store = MemoryStore()

    async def dump() -> Dump:
        return canonical({table: rows for table, rows in store.snapshot().items() if table in COLUMNS})

    yield OpenStore("memory", store, dump)


@asynccontextmanager
async def _sqlite(directory: Path) -> AsyncIterator[OpenStore]:
    try:
        from stepwell_server.adapters.sql import SqliteStore
    except ImportError as error:
        raise StoreMissingError(f"no SQLite store here: {error}") from error
    path = Path(tempfile.mkdtemp(prefix="sqlite-", dir=directory)) / "stepwell.db"
    store = await SqliteStore.open(path)

    async def dump() -> Dump:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            return canonical({table: connection.execute(select).fetchall() for table, select in _SELECTS.items()})
        finally:
            connection.close()

    yield OpenStore("sqlite", store, dump)


@asynccontextmanager
async def _postgres(_directory: Path) -> AsyncIterator[OpenStore]:
    try:
        import asyncpg
        from stepwell_server.adapters.sql import PostgresStore
    except ImportError as error:
        raise StoreMissingError(f"no Postgres store here: {error}") from error
    server = _postgres_server()
    database = _emptied.pop() if _emptied else server.create_database(f"test_{next(_numbers)}").rpartition("/")[2]
    url = server.url(database)
    store = await PostgresStore.open(url)
    reader = await asyncpg.connect(url)

    async def dump() -> Dump:
        async with reader.transaction(isolation="repeatable_read", readonly=True):
            return canonical({table: await reader.fetch(select) for table, select in _SELECTS.items()})

    try:
        yield OpenStore("postgres", store, dump, url)
        # Nobody else is connected any more, or the database is not given out again.
        if not await reader.fetchval(_OTHERS):
            await reader.execute(await reader.fetchval(_EMPTY))
            _emptied.append(database)
    finally:
        await reader.close()


# Making and dropping a database costs ten times as much as emptying one; the server's data go with the process.
_emptied: list[str] = []
_numbers = itertools.count(1)
_OTHERS = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
_EMPTY = (
    "select string_agg(format('delete from %I', tablename), ';') from pg_tables "
    "where schemaname = 'public' and tablename <> 'stepwell_version'"
)
_OPENERS = {"memory": _memory, "sqlite": _sqlite, "postgres": _postgres}


@cache
def _postgres_server() -> Any:
    """One server for this process; it goes with it. Raises StoreMissingError."""
    from tests.support.postgres import PostgresNotFoundError, PostgresServer

    directory = Path(tempfile.mkdtemp(prefix="stepwell-pg-"))
    directory.chmod(0o755)
    try:
        server = PostgresServer(directory).__enter__()
    except PostgresNotFoundError as error:
        shutil.rmtree(directory, ignore_errors=True)
        raise StoreMissingError(str(error)) from error
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    atexit.register(server.__exit__, None, None, None)
    return server


def canonical(tables: dict[str, Any]) -> Dump:
    """Sorted rows of plain values: what SQLite keeps as 0 and 1 is a flag again, and enums are numbers."""
    return {table: sorted((_plain(COLUMNS[table], row) for row in rows), key=repr) for table, rows in tables.items()}


def _plain(columns: tuple[str, ...], row: Any) -> tuple[Any, ...]:
    return tuple(
        bool(value) if column in FLAGS else int(value) if isinstance(value, int) else value
        for column, value in zip(columns, row, strict=True)
    )
