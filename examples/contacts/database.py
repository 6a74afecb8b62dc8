"""The example's own database: what it does to the world outside Stepwell, each thing once by the step's token."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from contact_file import Contact

# contacts has no unique e-mail on purpose: a batch inserted twice would show, and the demo counts.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS done (token TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS contacts (
  id INTEGER PRIMARY KEY, upload TEXT NOT NULL, name TEXT NOT NULL, email TEXT NOT NULL,
  phone TEXT NOT NULL, street TEXT NOT NULL, postcode TEXT NOT NULL, city TEXT NOT NULL, region TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS notifications (id INTEGER PRIMARY KEY, upload TEXT NOT NULL, message TEXT NOT NULL);
"""


@contextmanager
def _transaction() -> Generator[sqlite3.Connection]:
    path = Path(os.environ.get("CONTACTS_DB", ".stepwell/contacts.db"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.executescript(_SCHEMA)
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")


def insert_contacts(token: str, upload: str, contacts: Sequence[Contact]) -> int:
    """Inserts them, unless a step with this token has done so before."""
    with _transaction() as db:
        if not _first_time(db, token):
            return 0
        columns = "upload, name, email, phone, street, postcode, city, region"
        rows = [(upload, c.name, c.email, c.phone, c.street, c.postcode, c.city, c.region) for c in contacts]
        db.executemany(f"INSERT INTO contacts ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        return len(rows)


def insert_notification(token: str, upload: str, message: str) -> None:
    """Notifies, unless a step with this token has done so before."""
    with _transaction() as db:
        if _first_time(db, token):
            db.execute("INSERT INTO notifications (upload, message) VALUES (?, ?)", (upload, message))


def _first_time(db: sqlite3.Connection, token: str) -> bool:
    return db.execute("INSERT OR IGNORE INTO done (token) VALUES (?)", (token,)).rowcount == 1
