"""Values that no store can take, found before anything is written, so that all stores refuse the same Commits (H32)."""

from __future__ import annotations

from typing import Any

from stepwell_server.model.commit import Commit, Rows
from stepwell_server.model.session import LeaseWrite, SessionWrite

_ROWS = tuple(Rows.__annotations__)
_INT_LIMIT = 1 << 63


def refusal(commit: Commit) -> str:
    """Why a Commit can never be stored; "" if it can."""
    why = _check_all(commit.fences)
    decider = commit.decider
    if decider is not None and not why:
        row = decider.row if isinstance(decider, SessionWrite | LeaseWrite) else decider
        why = _check(row)
    for name in _ROWS:
        if why:
            break
        rows = getattr(commit, name)
        if rows:
            why = _check_all(rows)
    return why


def _check_all(rows: Any) -> str:
    for row in rows:
        why = _check(row)
        if why:
            return why
    return ""


def _check(row: tuple[Any, ...]) -> str:
    for value in row:
        if isinstance(value, str):
            if "\0" in value:
                return f"{type(row).__name__}: text with a NUL character"
            if not value.isascii() and not _encodes(value):
                return f"{type(row).__name__}: text that is not valid Unicode"
        elif isinstance(value, int) and not -_INT_LIMIT <= value < _INT_LIMIT:
            return f"{type(row).__name__}: a number of more than 64 bits"
    return ""


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
