"""Opens a SQLite file as ours: the lock against a second server, what the file is, its schema, its connections."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from pathlib import Path

from stepwell_server.adapters.sql.schema import (
    READ_LEAST_BUILD,
    READ_VERSION,
    VERSION_TABLE,
    Migration,
    Standing,
    foreign,
    plan,
    upgrade_sql,
)
from stepwell_server.adapters.sql.sqlite_errors import from_os, from_sqlite
from stepwell_server.model.errors import StateError, UnavailableError

MIN_VERSION = (3, 35, 0)
READ_DEADLINE_S = 1.0
SWEEP_DEADLINE_S = 5.0
_HEADER = b"SQLite format 3\0"
_BUSY_MS = 5_000
_PROGRESS_STEPS = 20_000

# Python looks for an adapter of every NULL and every blob that it binds, and raises and drops two AttributeErrors where
# there is none; these return what they are given.
sqlite3.register_adapter(bytes, bytes)
sqlite3.register_adapter(type(None), {None: None}.get)


class FileLock:
    """Held for the life of a store: one process serves a file. The lock dies with its process."""

    def __init__(self, database: Path) -> None:
        self._path = Path(f"{database}.lock")
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise from_os(error) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._file, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            raise StateError(
                "DATABASE_IN_USE",
                f"process {holder} serves {database} already: stop it, or choose another file",
            ) from None
        try:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            os.close(self._file)
            raise from_os(error) from error

    def release(self) -> None:
        """Lets the file go. The lock file stays: removing it would let two processes hold two files of one name."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def prepare(path: Path) -> Migration:
    """Creates the file, or checks that it is ours and brings its schema up. The lock is held.

    Raises CorruptError, UnavailableError.
    """
    try:
        _check_file(path)
        db = _connect(path)  # plain: a file of somebody else is not changed, not even its journal mode
        try:
            return _migrate(db, path)
        finally:
            db.close()
    except (sqlite3.Error, OSError) as error:
        raise from_sqlite(error) or error from error


def migrate(path: Path) -> Migration:
    """``prepare`` under the lock of the file. Raises as it does, and StateError (DATABASE_IN_USE)."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise from_os(error) from error
    lock = FileLock(path)
    try:
        return prepare(path)
    finally:
        lock.release()


def look(path: Path) -> Migration:
    """What ``prepare`` would do; without a lock, and without making a file. Raises as it does."""
    try:
        _check_file(path)
        if not path.exists():
            return plan(Standing(None), str(path))
        db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        try:
            return plan(_standing(db, path), str(path))
        finally:
            db.close()
    except (sqlite3.Error, OSError) as error:
        raise from_sqlite(error) or error from error


def writer(path: Path, synchronous: str) -> sqlite3.Connection:
    """A connection that writes. It never checkpoints by itself."""
    db = _connect(path)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"PRAGMA synchronous = {synchronous}")
    db.execute("PRAGMA wal_autocheckpoint = 0")
    db.execute("PRAGMA journal_size_limit = 67108864")
    db.execute("PRAGMA cache_size = -16384")
    return db


def checkpointer(path: Path) -> sqlite3.Connection:
    """A connection for checkpoints: it gives way to everybody."""
    db = _connect(path)
    db.execute("PRAGMA busy_timeout = 50")
    db.execute("PRAGMA wal_autocheckpoint = 0")
    return db


def reader(path: Path) -> sqlite3.Connection:
    """A connection that only reads."""
    db = _connect(path)
    db.execute("PRAGMA query_only = ON")
    db.execute("PRAGMA cache_size = -8192")
    return db


def bound(db: sqlite3.Connection, seconds: float) -> None:
    """Ends the read that the connection does next after so long (H36). Every read of the connection must call this."""
    deadline = time.monotonic() + seconds
    db.set_progress_handler(lambda: time.monotonic() > deadline, _PROGRESS_STEPS)


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=512)
    db.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    db.execute("PRAGMA temp_store = MEMORY")
    return db


def _check_file(path: Path) -> None:
    if sqlite3.sqlite_version_info < MIN_VERSION:
        raise UnavailableError("SQLITE_TOO_OLD", f"SQLite {sqlite3.sqlite_version} is older than 3.35")
    if path.is_dir():
        raise foreign(str(path), "it is a folder")
    if path.exists() and path.stat().st_size:
        with path.open("rb") as file:
            if file.read(len(_HEADER)) != _HEADER:
                raise foreign(str(path), "it is not a SQLite database")


def _migrate(db: sqlite3.Connection, path: Path) -> Migration:
    standing = _standing(db, path)
    done = plan(standing, str(path))
    if done.pending:
        db.executescript(f"BEGIN IMMEDIATE; {upgrade_sql('sqlite', standing.version)} COMMIT;")
    return done


def _standing(db: sqlite3.Connection, path: Path) -> Standing:
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if VERSION_TABLE in tables:
        version, least = db.execute(READ_VERSION).fetchone(), db.execute(READ_LEAST_BUILD).fetchone()
        return Standing(version[0] if version else None, least[0] if least else None)
    if tables:
        raise foreign(str(path), "it holds other tables")
    return Standing(None)
