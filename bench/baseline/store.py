"""The toy's two stores: a batch of rows goes in, one durable transaction comes out."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import asyncpg

MAX_BATCH_ROWS = 512
WIDTH = 2  # batches in flight: two connections on Postgres, one running and one waiting on SQLite

TABLES = {
    "events": ("id", "name", "data", "accepted_ms"),
    "runs": ("id", "event_id", "function_id", "created_ms"),
    "steps": ("run_id", "number", "key", "output", "started_ms", "ended_ms"),
    "ends": ("run_id", "output", "ended_ms"),
}
KEYS = {"events": "id", "runs": "id", "steps": "run_id, number", "ends": "run_id"}
BYTES = {"data", "output"}
NUMBERS = {"accepted_ms", "created_ms", "number", "started_ms", "ended_ms"}
# A cached generic plan with a sequential scan made a ten-row update 45 times slower; plans are pinned.
PINNED_PLANS = {"jit": "off", "enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off"}


class Batch:
    """Rows that are committed together, as columns, and what to call once they are durable."""

    __slots__ = ("columns", "done", "ends", "events", "rows", "runs", "steps")

    def __init__(self) -> None:
        self.rows = 0
        self.events: tuple[list[Any], ...] = ([], [], [], [])
        self.runs: tuple[list[Any], ...] = ([], [], [], [])
        self.steps: tuple[list[Any], ...] = ([], [], [], [], [], [])
        self.ends: tuple[list[Any], ...] = ([], [], [])
        self.columns = (self.events, self.runs, self.steps, self.ends)
        self.done: list[tuple[Callable[[Any], None], Any]] = []


class Store(Protocol):
    """Writes a batch in one transaction; returns when it is on the disk."""

    async def write(self, batch: Batch) -> None: ...

    async def close(self) -> None: ...


class Lane:
    """Group commit: all that waits goes in one batch of at most 512 rows, two batches at a time, no lingering."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open = Batch()
        self._sealed: deque[Batch] = deque()
        self._idle = WIDTH
        self._starting = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.commits = 0
        self.rows = 0

    def batch(self, rows: int) -> Batch:
        """The batch that takes the next `rows` rows; they count as added."""
        if self._open.rows and self._open.rows + rows > MAX_BATCH_ROWS:
            self._sealed.append(self._open)
            self._open = Batch()
        self._open.rows += rows
        if self._idle and not self._starting:
            self._start()
        return self._open

    def _start(self) -> None:
        self._starting = True
        self._idle -= 1
        task = asyncio.get_running_loop().create_task(self._flush())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _flush(self) -> None:
        self._starting = False
        while self._sealed or self._open.rows:
            if self._sealed:
                batch = self._sealed.popleft()
            else:
                batch, self._open = self._open, Batch()
            if self._idle and not self._starting and (self._sealed or self._open.rows):
                self._start()
            await self._store.write(batch)
            self.commits += 1
            self.rows += batch.rows
            for call, argument in batch.done:
                call(argument)
        self._idle += 1

    async def close(self) -> None:
        await asyncio.gather(*self._tasks)
        await self._store.close()


class PostgresStore:
    """One data-modifying statement a batch, on one of two connections."""

    def __init__(self, connections: list[asyncpg.Connection]) -> None:
        self._free = connections
        self._all = list(connections)

    @classmethod
    async def open(cls, url: str) -> PostgresStore:
        first = await asyncpg.connect(url, server_settings=PINNED_PLANS)
        for table, columns in TABLES.items():
            body = ", ".join(f"{c} {_postgres_type(c)} not null" for c in columns)
            await first.execute(f"create table if not exists {table} ({body}, primary key ({KEYS[table]}))")
        more = [await asyncpg.connect(url, server_settings=PINNED_PLANS) for _ in range(WIDTH - 1)]
        return cls([first, *more])

    async def write(self, batch: Batch) -> None:
        connection = self._free.pop()
        try:
            await connection.execute(_POSTGRES_INSERT, *(column for columns in batch.columns for column in columns))
        finally:
            self._free.append(connection)

    async def close(self) -> None:
        for connection in self._all:
            await connection.close()


def _postgres_type(column: str) -> str:
    return "bytea" if column in BYTES else "bigint" if column in NUMBERS else 'text collate "C"'


def _postgres_insert() -> str:
    parts: list[str] = []
    n = 0
    for table, columns in TABLES.items():
        arrays: list[str] = []
        for column in columns:
            n += 1
            arrays.append(f"${n}::{_postgres_type(column).split()[0]}[]")
        parts.append(f"insert into {table} ({', '.join(columns)}) select * from unnest({', '.join(arrays)})")
    *first, last = parts
    return "with " + ", ".join(f"w{i} as ({part})" for i, part in enumerate(first)) + " " + last


_POSTGRES_INSERT = _postgres_insert()
_SQLITE_INSERTS = tuple(
    f"insert into {table} ({', '.join(columns)}) values ({', '.join('?' * len(columns))})"
    for table, columns in TABLES.items()
)


class SqliteStore:
    """One thread owns the connection and writes batches in the order they come. WAL, synchronous=FULL."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._inbox: queue.SimpleQueue[tuple[Batch, asyncio.Future[None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="sqlite-writer", daemon=True)
        self._ready: asyncio.Future[None] = self._loop.create_future()

    @classmethod
    async def open(cls, path: str) -> SqliteStore:
        store = cls(path)
        store._thread.start()
        await store._ready
        return store

    async def write(self, batch: Batch) -> None:
        done: asyncio.Future[None] = self._loop.create_future()
        self._inbox.put((batch, done))
        await done

    async def close(self) -> None:
        self._inbox.put(None)
        await asyncio.to_thread(self._thread.join)

    def _serve(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None)
        connection.execute("pragma journal_mode=wal")
        connection.execute("pragma synchronous=full")
        for table, columns in TABLES.items():
            body = ", ".join(f"{c} {_sqlite_type(c)} not null" for c in columns)
            connection.execute(f"create table if not exists {table} ({body}, primary key ({KEYS[table]}))")
        self._call(self._ready, None)
        while (item := self._inbox.get()) is not None:
            batch, done = item
            try:
                connection.execute("begin immediate")
                for sql, columns in zip(_SQLITE_INSERTS, batch.columns, strict=True):
                    if columns[0]:
                        connection.executemany(sql, zip(*columns, strict=True))
                connection.execute("commit")
            except sqlite3.Error as error:
                self._call(done, error)
                break
            self._call(done, None)
        connection.close()

    def _call(self, future: asyncio.Future[None], error: Exception | None) -> None:
        call = future.set_exception if error else future.set_result
        self._loop.call_soon_threadsafe(call, error)  # pyright: ignore[reportArgumentType]


def _sqlite_type(column: str) -> str:
    return "blob" if column in BYTES else "integer" if column in NUMBERS else "text"


async def open_store(url: str) -> Store:
    """A store by its URL: sqlite:///path or postgresql://…"""
    if url.startswith("sqlite:///"):
        return await SqliteStore.open(url.removeprefix("sqlite:///"))
    return await PostgresStore.open(url)
