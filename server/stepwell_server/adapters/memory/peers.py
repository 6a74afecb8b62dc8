"""Notes between nodes of one process: for tests of the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from stepwell_server.model.notes import Note
from stepwell_server.ports.peers import EVERYBODY


class Switchboard:
    """What the nodes of a test are connected by. lost: whether a note gets lost; delay_s: how long it takes."""

    def __init__(self) -> None:
        self.nodes: dict[str, Callable[[str, Note], None]] = {}
        self.lost: Callable[[Note], bool] = lambda note: False
        self.delay_s: Callable[[], float] = lambda: 0.0
        self.trouble = ""


class MemoryPeers:
    """Implements ports/peers.py over a switchboard."""

    def __init__(self, board: Switchboard) -> None:
        self._board = board
        self._me = ""

    async def start(self, cluster: str, node_id: str, heard: Callable[[str, Note], None]) -> None:
        self._me = node_id
        self._board.nodes[node_id] = heard

    def tell(self, to: str, note: Note) -> None:
        if self._board.trouble or self._board.lost(note):
            return
        for name in [to] if to != EVERYBODY else list(self._board.nodes):
            asyncio.get_running_loop().call_later(self._board.delay_s(), self._arrive, name, note)

    def _arrive(self, name: str, note: Note) -> None:
        heard = self._board.nodes.get(name)
        if heard is not None:
            heard(self._me, note)

    @property
    def trouble(self) -> str:
        return self._board.trouble

    async def stop(self) -> None:
        self._board.nodes.pop(self._me, None)
