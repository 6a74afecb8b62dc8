"""What carries notes between the nodes of a cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from stepwell_server.model.notes import Note

EVERYBODY = ""
"""All nodes, oneself too."""


class Peers(Protocol):
    """Carries notes: batched, in no order, and perhaps not at all.

    No call blocks or fails for trouble of the carrier: what is told meanwhile is lost. Nothing durable depends on it.
    """

    async def start(self, cluster: str, node_id: str, heard: Callable[[str, Note], None]) -> None:
        """Listens from now on as a node of a cluster; heard is called with who told a note, and the note."""
        ...

    def tell(self, to: str, note: Note) -> None:
        """Sends a note soon, with all others of this turn of the loop, to a node or EVERYBODY."""
        ...

    @property
    def trouble(self) -> str:
        """Why notes do not get through at present; empty while they do."""
        ...

    async def stop(self) -> None:
        """Sends what was told, if that goes quickly, and listens no more. Safe to call twice."""
        ...
