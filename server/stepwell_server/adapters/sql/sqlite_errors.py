"""Translates what SQLite and files raise: trouble becomes UnavailableError, damage CorruptError, bad data nothing."""

from __future__ import annotations

import errno
import sqlite3

from stepwell_server.model.errors import CorruptError, ServerError, UnavailableError

_RETRY_MS = 1_000
_DAMAGED = "the database file is damaged: restore a backup"

# Primary result codes of SQLite (low byte of the extended code).
_SQLITE: dict[int, tuple[str, str]] = {
    sqlite3.SQLITE_FULL: ("DISK_FULL", "the disk of the database is full: free some space"),
    sqlite3.SQLITE_READONLY: ("READ_ONLY", "the database cannot be written: check the permissions of its folder"),
    sqlite3.SQLITE_IOERR: ("IO_ERROR", "the disk of the database reports an error"),
    sqlite3.SQLITE_BUSY: ("DATABASE_BUSY", "another program holds the database"),
    sqlite3.SQLITE_LOCKED: ("DATABASE_BUSY", "another program holds the database"),
    sqlite3.SQLITE_CANTOPEN: ("CANNOT_OPEN", "the database file cannot be opened: check path and permissions"),
    sqlite3.SQLITE_INTERRUPT: ("READ_TOO_LONG", "the read took more than a second: ask for less, or narrow the filter"),
}
_SQLITE_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_SQLITE_BAD_DATA = {sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_RANGE}

_ERRNO = {
    errno.ENOSPC: "DISK_FULL",
    errno.EDQUOT: "DISK_FULL",
    errno.EROFS: "READ_ONLY",
    errno.EACCES: "READ_ONLY",
    errno.EPERM: "READ_ONLY",
}


def from_sqlite(error: Exception) -> ServerError | None:
    """The error to raise; None if the fault lies in the data, so that the same data can never be stored."""
    if isinstance(error, ServerError):
        return error
    if isinstance(error, OSError):
        return from_os(error)
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is None:
        # Raised while binding: a value of a wrong type, too large, or not Unicode.
        return None
    primary = code & 0xFF
    if primary in _SQLITE_BAD_DATA:
        return None
    if primary in _SQLITE_DAMAGE:
        return CorruptError("DATABASE_DAMAGED", f"{_DAMAGED} ({error})")
    reason, sentence = _SQLITE.get(primary, ("STORE_ERROR", "the database reports an error"))
    return UnavailableError(reason, f"{sentence} ({error})", retry_ms=_RETRY_MS)


def from_os(error: OSError) -> UnavailableError:
    """For trouble with files: no space, no permission."""
    reason = _ERRNO.get(error.errno or 0, "IO_ERROR")
    return UnavailableError(reason, f"the database's files cannot be used: {error}", retry_ms=_RETRY_MS)
