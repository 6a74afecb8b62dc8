"""Workers' sessions and the leases of nodes."""

from __future__ import annotations

from typing import NamedTuple


class SessionRow(NamedTuple):
    """A row of ``sessions``: one worker process. epoch: the fence. closed_ms: None while it may hold runs.

    node: incarnation of the server process that holds its stream. function_ids: joined by commas.
    """

    env: str
    id: str
    epoch: int
    node: str
    app: str
    deployment: str
    instance: str
    sdk: str
    capacity: int
    function_ids: str
    opened_ms: int
    closed_ms: int | None


class SessionWrite(NamedTuple):
    """Opens (expect_epoch 0: insert), adopts or closes a session, if its epoch is still ``expect_epoch``."""

    expect_epoch: int
    row: SessionRow


class Fence(NamedTuple):
    """The session must be open with this epoch, and stay so until the commit is done."""

    env: str
    session_id: str
    epoch: int


class LeaseRow(NamedTuple):
    """A row of ``leases``: who serves (H31). beat: raised at each renewal; an observer times it by its own clock."""

    name: str
    holder: str
    beat: int
    info: str


class LeaseWrite(NamedTuple):
    """Takes or renews a lease, if holder and beat are still the expected ones ("" and 0: there is no row)."""

    expect_holder: str
    expect_beat: int
    row: LeaseRow


NODE_LEASE = "node:"
"""How the name of a lease begins that a node of a cluster holds."""


class SettingRow(NamedTuple):
    """A row of ``settings``: upsert."""

    name: str
    value: str
