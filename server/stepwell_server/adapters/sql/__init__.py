"""Store and History on SQLite and Postgres, from one schema."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepwell_server.adapters.sql.schema import Migration, upgrade_sql
from stepwell_server.model.errors import InvalidError

if TYPE_CHECKING:
    from stepwell_server.adapters.sql.postgres import PostgresStore
    from stepwell_server.adapters.sql.sqlite import SqliteStore

_SQLITE = "sqlite:///"
_POSTGRES = ("postgresql://", "postgres://")


__all__ = [
    "Migration",
    "PostgresStore",
    "SqliteStore",
    "look",
    "migrate",
    "migration_sql",
    "open_store",
    "sqlite_path",
]


def __getattr__(name: str) -> Any:
    # Each driver is imported by those who use it only.
    if name == "SqliteStore":
        from stepwell_server.adapters.sql.sqlite import SqliteStore

        return SqliteStore
    if name == "PostgresStore":
        from stepwell_server.adapters.sql.postgres import PostgresStore

        return PostgresStore
    raise AttributeError(name)


async def open_store(url: str) -> SqliteStore | PostgresStore:
    """Opens the store that a URL names, and brings its schema up.

    url: ``postgresql://user@host/database``, ``sqlite:///relative/path``, ``sqlite:////absolute/path``,
    or a plain path.
    Raises InvalidError, StateError (DATABASE_IN_USE), CorruptError, UnavailableError.
    """
    if url.startswith(_POSTGRES):
        from stepwell_server.adapters.sql.postgres import PostgresStore

        return await PostgresStore.open(url)
    from stepwell_server.adapters.sql.sqlite import SqliteStore

    return await SqliteStore.open(sqlite_path(url))


async def migrate(url: str) -> Migration:
    """Brings the schema of a database up; what was done. Raises as ``open_store``."""
    if url.startswith(_POSTGRES):
        from stepwell_server.adapters.sql.postgres import on_database
        from stepwell_server.adapters.sql.postgres_schema import prepare

        return await on_database(url, prepare)
    from stepwell_server.adapters.sql import sqlite_open

    return await asyncio.to_thread(sqlite_open.migrate, sqlite_path(url))


async def look(url: str) -> Migration:
    """What ``migrate`` would do; changes nothing. Raises as ``open_store``."""
    if url.startswith(_POSTGRES):
        from stepwell_server.adapters.sql import postgres_schema
        from stepwell_server.adapters.sql.postgres import on_database

        return await on_database(url, postgres_schema.look)
    from stepwell_server.adapters.sql import sqlite_open

    return await asyncio.to_thread(sqlite_open.look, sqlite_path(url))


def migration_sql(url: str, version: str | None) -> str:
    """The statements of a migration of this database from a version."""
    return upgrade_sql("postgresql" if url.startswith(_POSTGRES) else "sqlite", version)


def sqlite_path(url: str) -> Path:
    """The file of a SQLite URL or of a plain path. Raises InvalidError."""
    if url.startswith(_SQLITE):
        url = url.removeprefix(_SQLITE)
    elif "://" in url or url.startswith("sqlite:"):
        raise InvalidError(
            "DATABASE_URL", f"{url.split(':')[0]} is not a database we know: use postgresql:// or sqlite:///"
        )
    if not url or url == ":memory:":
        raise InvalidError("DATABASE_URL", "the database URL names no file")
    return Path(url).expanduser()
