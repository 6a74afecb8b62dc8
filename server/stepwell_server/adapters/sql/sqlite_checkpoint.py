"""Copies the write-ahead log back into the database file, off the path of commits (H36)."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread

PASSIVE_BYTES = 8 * 1024 * 1024
"""Written since the last checkpoint before the next one begins."""
TAIL_PAGES = 16_384
"""Length of the log from which the writer itself copies the last few pages, so that the log starts over."""
KEPT_PAGES = 4_096
"""Length of a log that an idle database gives back to the file system."""
IDLE_S = 1.0
_ROW_BYTES = 1_500  # pages of the table and its indexes that a row dirties, shared with its neighbours


class Checkpointer:
    """A thread that sleeps until enough was written, or until the database was idle for a second after writes."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._wake = Event()
        self._thread = Thread(target=self._run, name="stepwell-checkpoint", daemon=True)
        self._written = 0
        self._last_write = 0.0
        self._dirty = False
        self._stopped = False
        self.tail_due = False

    def start(self) -> None:
        self._thread.start()

    def wrote(self, rows: int, payload: int) -> None:
        """Called by the writer after each commit."""
        self._written += rows * _ROW_BYTES + payload
        self._last_write = time.monotonic()
        if not self._dirty:
            self._dirty = True
            self._wake.set()
        elif self._written >= PASSIVE_BYTES:
            self._wake.set()

    def finish_tail(self, db: sqlite3.Connection) -> None:
        """Called by the writer between two commits: the log is nearly all copied, copy the rest."""
        self.tail_due = False
        with suppress(sqlite3.DatabaseError):
            db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    def stop(self) -> None:
        self._stopped = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        db = self._connect()
        while not self._stopped:
            self._wake.wait(IDLE_S if self._dirty else None)
            self._wake.clear()
            if not self._stopped:
                # Busy, or a full disk, or damage, which the next commit will report.
                with suppress(sqlite3.DatabaseError):
                    self.run_once(db)
        db.close()

    def run_once(self, db: sqlite3.Connection) -> None:
        """A checkpoint, if one is due."""
        if self._written >= PASSIVE_BYTES:
            self._written = 0
            _, log, copied = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            self.tail_due = log >= TAIL_PAGES and copied >= log // 2
        elif self._dirty and time.monotonic() - self._last_write >= IDLE_S:
            self._dirty = False
            self._written = 0
            _, log, _ = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            # A short log is kept as a file: writing into space that is there is a cheaper fsync than growing.
            if log >= KEPT_PAGES:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
