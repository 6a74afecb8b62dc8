"""Turns fetched rows into rows of the model. SQLite has no booleans, so two kinds of rows need a hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from stepwell_server.model.journal import WaitRow
from stepwell_server.model.run import RunRow

_RUN_DETACHED = RunRow._fields.index("detached")
_WAIT_DETACHED = WaitRow._fields.index("detached")


def run_row(row: tuple[Any, ...]) -> RunRow:
    """A run fetched from SQLite."""
    return RunRow._make((*row[:_RUN_DETACHED], row[_RUN_DETACHED] == 1, *row[_RUN_DETACHED + 1 :]))


def wait_row(row: tuple[Any, ...]) -> WaitRow:
    """A wait fetched from SQLite."""
    return WaitRow._make((*row[:_WAIT_DETACHED], row[_WAIT_DETACHED] == 1, *row[_WAIT_DETACHED + 1 :]))


def wait_rows(rows: Iterable[tuple[Any, ...]]) -> list[WaitRow]:
    """Waits fetched from SQLite."""
    return [wait_row(row) for row in rows]
