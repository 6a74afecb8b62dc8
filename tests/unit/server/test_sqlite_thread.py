"""The thread that holds a SQLite connection answers everything that it was given, also while it is being stopped."""

from __future__ import annotations

import asyncio
import sqlite3
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

import pytest
from stepwell_server.adapters.sql.sqlite_thread import SqliteThread
from stepwell_server.model.errors import UnavailableError


def memory() -> sqlite3.Connection:
    return sqlite3.connect(":memory:")


def one(db: sqlite3.Connection) -> int:
    return db.execute("SELECT 1").fetchone()[0]


class StoppedMeanwhile(SimpleQueue[Any]):
    """While work is being put, somebody else stops the thread, and gets as far as he can."""

    thread: SqliteThread
    stopper: Thread | None = None

    def __init__(self) -> None:
        self.last_word = Event()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        if item is None:
            super().put(item)
            self.last_word.set()
            return
        self.stopper = Thread(target=self.thread.stop)
        self.stopper.start()
        self.last_word.wait(0.2)  # it must not come: then this is how long one waits in vain
        super().put(item)


async def test_work_that_comes_while_the_thread_is_being_stopped_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = StoppedMeanwhile()
    monkeypatch.setattr("stepwell_server.adapters.sql.sqlite_thread.SimpleQueue", lambda: queue)
    queue.thread = thread = SqliteThread("test", memory)
    thread.start()
    assert await asyncio.wait_for(thread.run(one), 10) == 1
    assert queue.stopper is not None
    await asyncio.to_thread(queue.stopper.join)


async def test_what_comes_after_the_stop_is_refused_and_what_came_before_is_done() -> None:
    thread = SqliteThread("test", memory)
    thread.start()
    before = [thread.run(one) for _ in range(100)]
    await asyncio.to_thread(thread.stop)
    thread.stop()
    assert await asyncio.gather(*before) == [1] * 100
    with pytest.raises(UnavailableError, match="closed"):
        await thread.run(one)
