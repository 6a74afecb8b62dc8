"""Store and History on SQLite and Postgres, from one schema."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepwell_server.model.errors import InvalidError

if TYPE_CHECKING:
    from stepwell_server.adapters.sql.postgres import PostgresStore
    from stepwell_server.adapters.sql.sqlite import SqliteStore

_SQLITE = "sqlite:///"
_POSTGRES = ("postgresql://", "postgres://")


__all__ = ["PostgresStore", "SqliteStore", "migrate", "open_store", "sqlite_path"]


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


async def migrate(url: str) -> None:
    """Brings the schema of a database up, and lets it go again. Raises as ``open_store``."""
    store = await open_store(url)
    await store.close()


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
