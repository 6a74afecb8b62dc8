"""What a node knows of the other nodes of its database, and what it tells them. It holds no truth: see docs/decisions.

A node alone has none of this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple
from zlib import crc32

from stepwell_server.model.notes import Changed, Note, Ready, Room, Watched
from stepwell_server.model.run import ReadyRow
from stepwell_server.ports.clock import Clock
from stepwell_server.ports.peers import EVERYBODY, Peers

ROOM_MS = 1_000
"""A node says at least this often how much room it has."""
_STALE_MS = 3 * ROOM_MS
_WATCHED_MS = 15_000
_WATCHED = 50_000
_ENDED = 4_096


class Stray(NamedTuple):
    """An outcome of a run that this node does not hold: whoever does has to be told (H16)."""

    env: str
    run_id: str
    key: str


class _Heard:
    """What was last heard of a node."""

    __slots__ = ("at_ms", "places")

    def __init__(self, at_ms: int, places: dict[tuple[str, str], int]) -> None:
        self.at_ms = at_ms
        self.places = places


class Cluster:
    """One node among others.

    living: the nodes that hold a lease, this one too. strays: see Stray; they are looked up together.
    """

    def __init__(self, node_id: str, peers: Peers, clock: Clock) -> None:
        self.node_id = node_id
        self.peers = peers
        self.living: frozenset[str] = frozenset({node_id})
        self.strays: list[Stray] = []
        self.look_up: Callable[[], None] = lambda: None
        """Called soon after the first stray: see engine/wake.py."""
        self.say_room: Callable[[], None] = lambda: None
        """Called when a worker has come: see engine/hearing.py."""
        self._clock = clock
        self._heard: dict[str, _Heard] = {}
        self._offers: set[tuple[str, str]] = set()
        self._interest: dict[str, dict[str, int]] = {}
        self._ended: dict[str, None] = {}

    # -- who there is --------------------------------------------------------------------------------------------

    @property
    def rank(self) -> int:
        """This node's place among the living; 0: it leads, and does what one node has to do."""
        return sum(other < self.node_id for other in self.living)

    @property
    def trouble(self) -> str:
        """Why some of the others cannot be told anything at present: work is then looked for in the store."""
        if trouble := self.peers.trouble:
            return trouble
        now = self._clock.monotonic_ms()
        silent = [other for other in self.living if other != self.node_id and not self._fresh(other, now)]
        return f"node {silent[0]} is not heard: does it use the same Redis?" if silent else ""

    def _fresh(self, other: str, now: int) -> bool:
        heard = self._heard.get(other)
        return heard is not None and now - heard.at_ms <= _STALE_MS

    def heard_room(self, other: str, room: Room) -> bool:
        """Notes how much room a node has; whether it was not known."""
        new = other not in self._heard
        places = {(env, app): free for env, app, free in room.places}
        self._heard[other] = _Heard(self._clock.monotonic_ms(), places)
        return new

    def forget(self, other: str) -> None:
        """A node has left, or its lease is over."""
        self._heard.pop(other, None)

    def serving(self, env: str, app: str) -> dict[str, int]:
        """The other nodes whose workers serve an app, with their free places."""
        now = self._clock.monotonic_ms()
        at = (env, app)
        return {
            other: heard.places[at]
            for other, heard in self._heard.items()
            if at in heard.places and self._fresh(other, now)
        }

    # -- the queue -----------------------------------------------------------------------------------------------

    def offer(self, env: str, function_id: str) -> None:
        """Runs of a function are queued that have no place here: a node with room looks for them in the store."""
        if not self._offers:
            asyncio.get_running_loop().call_soon(self._send_offers)
        self._offers.add((env, function_id))

    def _send_offers(self) -> None:
        offers, self._offers = self._offers, set()
        for env, function_id in offers:
            self.pass_on(env, function_id, passed=False, but="")

    def pass_on(self, env: str, function_id: str, *, passed: bool, but: str) -> None:
        """Tells the node with the most room, or all that serve the function if none has any; not the one named."""
        at = (env, function_id.partition("/")[0])
        serving = {other: free for other, free in self.serving(*at).items() if other != but}
        if not serving:
            return
        best = max(serving, key=lambda other: (serving[other], other))
        if serving[best] > 0:
            self._heard[best].places[at] -= 1  # until it says so itself
            self.peers.tell(best, Ready(env, function_id, passed))
            return
        for other in serving:
            self.peers.tell(other, Ready(env, function_id, True))

    def share(self, rows: Sequence[ReadyRow]) -> Sequence[ReadyRow]:
        """Of queued runs of a function, those that this node takes first, so that two nodes seldom go for the same one.

        A node that finds none of its own helps the others out, from the end of the line.
        """
        if not rows:
            return rows
        others = self.serving(rows[0].env, rows[0].function_id.partition("/")[0])
        if not others:
            return rows
        names = sorted([*others, self.node_id])
        mine = names.index(self.node_id)
        return [row for row in rows if crc32(row.run_id.encode()) % len(names) == mine] or rows[len(rows) // 2 :]

    def strayed(self, env: str, run_id: str, key: str) -> None:
        """A run that is not here has an outcome, which is durable."""
        if not self.strays:
            asyncio.get_running_loop().call_soon(lambda: self.look_up())
        self.strays.append(Stray(env, run_id, key))

    # -- who watches ---------------------------------------------------------------------------------------------

    def watch(self, run_id: str) -> None:
        """Somebody watches a run here: whoever changes it says so."""
        self.peers.tell(EVERYBODY, Watched(run_id))

    def watched(self, other: str, run_id: str) -> None:
        """Another node wants to know what becomes of a run."""
        if run_id in self._ended:
            self.peers.tell(other, Changed(run_id))
            return
        now = self._clock.monotonic_ms()
        if len(self._interest) >= _WATCHED:
            self._interest = {
                id_: nodes for id_, nodes in self._interest.items() if any(until > now for until in nodes.values())
            }
        if len(self._interest) < _WATCHED:
            self._interest.setdefault(run_id, {})[other] = now + _WATCHED_MS

    def changed(self, run_id: str, *, ended: bool = False) -> None:
        """A run has changed in the hands of this node."""
        if ended:
            self._ended[run_id] = None
            if len(self._ended) > _ENDED:
                del self._ended[next(iter(self._ended))]
        watchers = self._interest.get(run_id)
        if watchers is None:
            return
        now = self._clock.monotonic_ms()
        for other, until in watchers.items():
            if until > now:
                self.peers.tell(other, Changed(run_id))
        if ended:
            del self._interest[run_id]

    def tell(self, note: Note, to: str = EVERYBODY) -> None:
        """Tells a note to a node, or to all."""
        self.peers.tell(to, note)
