"""Accepted events and the rows that keep their acceptance whole."""

from __future__ import annotations

from typing import NamedTuple

INVOKED = "stepwell/function.invoked"
RESERVED_PREFIX = "stepwell/"


class EventRow(NamedTuple):
    """A row of ``events``; as an operation: insert, or nothing if the id is there.

    data: bytes in ``encoding`` ("" = JSON). metadata: JSON object or empty. sender_id: "" if none.
    """

    env: str
    id: str
    name: str
    data: bytes
    encoding: str
    sender_id: str
    time_ms: int
    accepted_ms: int
    metadata: bytes


class CursorRow(NamedTuple):
    """Events of one commit whose runs and waits are not all served yet (H21b). event_ids: joined by commas."""

    env: str
    id: str
    event_ids: str


class CursorDelete(NamedTuple):
    """The events of a cursor are served."""

    env: str
    id: str


class DedupRow(NamedTuple):
    """First wins by (env, key). value: what the first one was given: ids joined by commas.

    Keys: "r:" + request id of SendEvents, "e:" + sender's event id, "i:" + request id of Invoke.
    """

    env: str
    key: str
    value: str
    expires_ms: int
