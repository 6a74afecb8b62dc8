"""One thread with one SQLite connection: work goes in through a queue, answers come back to the event loop."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeVar

from stepwell_server.adapters.sql.sqlite_errors import from_sqlite
from stepwell_server.model.errors import UnavailableError

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], Any]


class SqliteThread:
    """Runs pieces of work in order. The connection is opened, used and closed in the thread.

    An exception of the work is raised where it was awaited; what from_sqlite knows, as it translates it.
    """

    def __init__(self, name: str, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._work: SimpleQueue[tuple[Work, asyncio.Future[Any], asyncio.AbstractEventLoop] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._closed = False
        self._order = Lock()
        """Whoever puts something looks first whether the thread still takes it: nothing comes after the last word."""

    def start(self) -> None:
        """Starts the thread; the connection is opened by the first piece of work."""
        self._thread.start()

    def run(self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """What one piece of work comes to. If the caller is cancelled the work is done all the same."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        with self._order:
            if not self._closed:
                self._work.put((work, done, loop))
                return done
        done.set_exception(UnavailableError("STORE_CLOSED", "the store is closed"))
        return done

    def stop(self) -> None:
        """Finishes what is queued, then closes the connection. Safe to call twice."""
        with self._order:
            if not self._closed:
                self._closed = True
                self._work.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        db: sqlite3.Connection | None = None
        while (item := self._work.get()) is not None:
            work, done, loop = item
            result, error = None, None
            try:
                if db is None:
                    db = self._connect()
                result = work(db)
            except BaseException as caught:  # it belongs to whoever awaits
                error = _translated(caught)
            with suppress(RuntimeError):  # the loop is closed: nobody awaits any more
                loop.call_soon_threadsafe(_settle, done, result, error)
            del item, work, done, loop, result, error
        if db is not None:
            db.close()


def _translated(error: BaseException) -> BaseException:
    translated = from_sqlite(error) if isinstance(error, Exception) else None
    if translated is None or translated is error:
        return error
    translated.__cause__ = error
    return translated


def _settle(done: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if done.done():
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(result)
