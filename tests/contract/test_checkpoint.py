"""SQLite's write-ahead log (H36): reads are short and only read, and checkpoints are nobody's commit."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from stepwell_server.adapters.sql import SqliteStore, sqlite_checkpoint
from stepwell_server.model.errors import UnavailableError

from tests.contract.rows import event
from tests.contract.saying import put

DEADLINE_S = 20.0
# Counts for about a minute: nobody waits for its end.
LONG = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000000) SELECT count(*) FROM n, events"
)


@pytest_asyncio.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(tmp_path / "stepwell.db")
    yield store
    await store.close()


def wal(store: SqliteStore) -> Path:
    return Path(f"{store._path}-wal")


async def until(fits: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not fits():  # noqa: ASYNC110 (another thread's work)
            await asyncio.sleep(0.01)


async def write(store: SqliteStore, first: int, count: int) -> None:
    """Events of 100 KB each, a commit for each."""
    for n in range(first, first + count):
        await put(store, events=[event(n, data=b'{"x":"%s"}' % (b"x" * 100_000))], size=100_000)


def checkpoint(path: Path) -> tuple[int, int]:
    """A checkpoint that waits for nobody: pages in the log, and pages copied back."""
    db = sqlite3.connect(path)
    try:
        _, log, copied = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return log, copied
    finally:
        db.close()


@pytest.mark.parametrize("connection", ["_reader", "_history"])
async def test_h36_a_connection_that_reads_cannot_write(sqlite: SqliteStore, connection: str) -> None:
    thread = getattr(sqlite, connection)
    with pytest.raises(UnavailableError) as raised:
        await thread.run(lambda db: db.execute("DELETE FROM runs"))
    assert raised.value.reason == "READ_ONLY"


async def test_h36_a_read_that_takes_too_long_is_ended_and_the_log_can_be_copied_again(sqlite: SqliteStore) -> None:
    sqlite._checkpointer.stop()
    await write(sqlite, 0, 1)
    reading = asyncio.create_task(sqlite._fetch(LONG, ()))
    await asyncio.sleep(0.2)  # it has its snapshot by now; if it has none yet, it takes a later one
    await write(sqlite, 1, 20)
    with pytest.raises(UnavailableError) as raised:
        await asyncio.wait_for(reading, DEADLINE_S)
    assert raised.value.reason == "READ_TOO_LONG"
    log, copied = checkpoint(sqlite._path)
    assert log == copied > 0


async def test_h36_commits_do_not_copy_the_log_back(sqlite: SqliteStore) -> None:
    """Left to itself SQLite has the commit that makes the log longer than 1,000 pages copy it."""
    sqlite._checkpointer.stop()
    await write(sqlite, 0, 1)
    before = sqlite._path.stat()
    await write(sqlite, 1, 60)
    after = sqlite._path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert wal(sqlite).stat().st_size > 6_000_000


async def test_h36_the_log_is_copied_beside_the_commits_and_starts_over(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_checkpoint, "PASSIVE_BYTES", 1_000_000)
    monkeypatch.setattr(sqlite_checkpoint, "TAIL_PAGES", 1_000)
    await write(sqlite, 0, 100)
    await until(lambda: sqlite._path.stat().st_size > 5_000_000)
    await write(sqlite, 100, 300)
    await until(lambda: sqlite._path.stat().st_size > 30_000_000)
    assert wal(sqlite).stat().st_size < 30_000_000, "40 MB were written"


async def test_h36_a_long_log_is_given_back_once_nobody_writes(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_checkpoint, "IDLE_S", 0.1)
    monkeypatch.setattr(sqlite_checkpoint, "KEPT_PAGES", 100)
    await write(sqlite, 0, 30)
    await until(lambda: wal(sqlite).stat().st_size == 0)
