"""Claims: what the gates of functions remember by key, and which run an event joined."""

from __future__ import annotations

from typing import NamedTuple


class ClaimRow(NamedTuple):
    """A row of ``claims``: what a gate knows of one key; as an operation: the next version of it.

    It is written where there is no row, or one of the version before. run_id: the run that holds the claim, or gathers
    for it; empty if none does. value: JSON, the gate's own. until_ms: after that it means nothing and may be deleted.
    """

    env: str
    key: str
    version: int
    run_id: str
    value: str
    until_ms: int


class ClaimEnd(NamedTuple):
    """A run lets go of its claim, if it still holds it: a new version without a run, and a new end."""

    env: str
    key: str
    run_id: str
    until_ms: int


class MemberRow(NamedTuple):
    """A row of ``members``: the run that an event joined at a function; empty while it has only passed the first gate.
    Insert; where the event is only past that gate the run is written, and where it joined one nothing."""

    env: str
    event_id: str
    function_id: str
    run_id: str
