"""What nodes tell each other: hints that may be lost, late or repeated. Whoever hears one reads the store."""

from __future__ import annotations

from typing import NamedTuple


class Room(NamedTuple):
    """How many more runs a node has places for, by environment and app. asks: whether the others shall say theirs."""

    places: tuple[tuple[str, str, int], ...]
    asks: bool


class Left(NamedTuple):
    """The node that says so serves no more."""


class Ready(NamedTuple):
    """Runs of a function are queued. passed: it was passed on once, and is not again."""

    env: str
    function_id: str
    passed: bool


class Came(NamedTuple):
    """A run that a worker of the node has in memory has an outcome that somebody else inserted (H16)."""

    env: str
    run_id: str
    key: str


class Adopted(NamedTuple):
    """A worker's session was taken up by the node that says so."""

    session_id: str
    epoch: int


class Registered(NamedTuple):
    """The registry of an environment has changed (H22)."""

    env: str


class Mismatched(NamedTuple):
    """A run was paused because its code no longer fits: a worker of another deployment may try it (H15)."""

    env: str


class Watched(NamedTuple):
    """Somebody watches a run at the node that says so."""

    run_id: str


class Changed(NamedTuple):
    """A run that is watched has changed, or ended."""

    run_id: str


Note = Room | Left | Ready | Came | Adopted | Registered | Mismatched | Watched | Changed
KINDS: tuple[type[Note], ...] = (Room, Left, Ready, Came, Adopted, Registered, Mismatched, Watched, Changed)
