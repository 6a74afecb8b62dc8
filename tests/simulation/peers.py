"""What the nodes of a simulated cluster tell each other by: notes take their time, come in any order, and get lost."""

from __future__ import annotations

from collections.abc import Callable

from stepwell_server.model.notes import Note
from stepwell_server.ports.peers import EVERYBODY

from tests.simulation.loop import Process
from tests.simulation.network import Network


class Board:
    """Redis: who listens. lost: whether a note gets lost. away: nothing gets through."""

    def __init__(self, network: Network, lost: Callable[[], bool]) -> None:
        self.network = network
        self.lost = lost
        self.away = False
        self.nodes: dict[str, SimPeers] = {}


class SimPeers:
    """Implements ports/peers.py: what arrives is heard in the process that it is for."""

    def __init__(self, board: Board, process: Process) -> None:
        self._board = board
        self._process = process
        self._me = ""
        self._heard: Callable[[str, Note], None] = lambda other, note: None

    async def start(self, cluster: str, node_id: str, heard: Callable[[str, Note], None]) -> None:
        self._me = node_id
        self._heard = heard
        self._board.nodes[node_id] = self

    @property
    def trouble(self) -> str:
        return "simulated: Redis is away" if self._board.away else ""

    def tell(self, to: str, note: Note) -> None:
        board = self._board
        for name in list(board.nodes) if to == EVERYBODY else [to]:
            if not board.away and not board.lost():
                board.network.later(board.network.latency(), self._arrive, name, note)

    def _arrive(self, name: str, note: Note) -> None:
        other = self._board.nodes.get(name)
        if other is not None and other._process.alive:
            self._board.network.loop.call_soon(other._heard, self._me, note, context=other._process.context)

    async def stop(self) -> None:
        self._board.nodes.pop(self._me, None)
