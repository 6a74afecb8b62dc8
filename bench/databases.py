"""Fresh databases for the harness, and a connection of its own to look into them."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Protocol

import asyncpg

from tests.support.postgres import PostgresServer


class Database(Protocol):
    """One database. Queries use $1, $2 … and return rows as tuples."""

    url: str

    async def query(self, sql: str, *arguments: Any) -> list[tuple[Any, ...]]: ...

    async def columns(self, table: str) -> list[str]: ...

    async def transactions(self) -> int | None:
        """All transactions but ours, reads too; exact once the server has stopped. None: not counted."""
        ...

    async def settle(self) -> None:
        """After a large change: what the database's own housekeeping would do sooner or later."""
        ...

    async def delay_commits(self, delay_ms: int) -> None:
        """Connections made from now on commit as on a disk that takes so much longer."""
        ...

    async def close(self) -> None:
        """Closes the connection and removes the database."""
        ...

    @property
    def postmaster(self) -> int | None:
        """Process to which the database's CPU belongs; none if it lives in the server."""
        ...


class SqliteDatabase:
    """A file, read over a connection of ours while the server writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.url = f"sqlite:///{path}"
        self._connection: sqlite3.Connection | None = None

    @property
    def postmaster(self) -> int | None:
        return None

    async def query(self, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
        if self._connection is None:
            self._connection = sqlite3.connect(self._path, isolation_level=None, timeout=30)
        named = {str(i): argument for i, argument in enumerate(arguments, 1)}
        return self._connection.execute(sql, named).fetchall()

    async def columns(self, table: str) -> list[str]:
        return [row[1] for row in await self.query(f"pragma table_info({table})")]

    async def transactions(self) -> int | None:
        return None

    async def settle(self) -> None:
        await self.query("pragma wal_checkpoint(truncate)")

    async def delay_commits(self, delay_ms: int) -> None:
        raise NotImplementedError("a workload on a slow disk is for Postgres")

    async def close(self) -> None:
        if self._connection:
            self._connection.close()
        for path in self._path.parent.glob(self._path.name + "*"):
            path.unlink()


class PostgresDatabase:
    """A database of the harness's server."""

    def __init__(self, server: PostgresServer, name: str) -> None:
        self._server = server
        self._name = name
        self.url = server.create_database(name)
        self._connection: asyncpg.Connection | None = None
        self._queries = 0

    @property
    def postmaster(self) -> int | None:
        return self._server.pid

    async def query(self, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
        connection = self._connection
        if connection is None:
            connection = self._connection = await asyncpg.connect(self.url, statement_cache_size=0)
        self._queries += 1
        return [tuple(row) for row in await connection.fetch(sql, *arguments)]

    async def columns(self, table: str) -> list[str]:
        rows = await self.query(
            "select column_name from information_schema.columns where table_name = $1 order by ordinal_position", table
        )
        return [row[0] for row in rows]

    async def transactions(self) -> int | None:
        # Sessions report what they counted when they end, so ours ends too.
        if self._connection:
            await self._connection.close()
            self._connection = None
        ours = self._queries
        rows = await self.query("select xact_commit from pg_stat_database where datname = current_database()")
        return rows[0][0] - ours

    async def settle(self) -> None:
        await self.query("vacuum analyze")
        await self.query("checkpoint")

    async def delay_commits(self, delay_ms: int) -> None:
        await self.query(f"alter database {self._name} set commit_delay = {delay_ms * 1000}")
        await self.query(f"alter database {self._name} set commit_siblings = 0")

    async def close(self) -> None:
        if self._connection:
            await self._connection.close()
        self._server.drop_database(self._name)
