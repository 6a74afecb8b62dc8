"""What follows from the notes of other nodes, and what this one says of itself; while notes do not arrive, it reads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from stepwell_server.engine import dispatch, fence, recover, wake
from stepwell_server.engine.cluster import ROOM_MS, Cluster
from stepwell_server.engine.node import Node
from stepwell_server.engine.rounds import go_round
from stepwell_server.model.errors import UnavailableError
from stepwell_server.model.notes import (
    Adopted,
    Came,
    Changed,
    Left,
    Mismatched,
    Note,
    Ready,
    Registered,
    Room,
    Watched,
)

log = logging.getLogger("stepwell.hearing")
_TICK_S = 0.25


class Hearing:
    """The service that keeps a node in touch with the others.

    others_changed: called when a node has come or gone. health: told why notes do not arrive, empty once they do.
    """

    def __init__(
        self,
        node: Node,
        cluster: Cluster,
        others_changed: Callable[[], Coroutine[Any, Any, None]],
        health: Callable[[str], Coroutine[Any, Any, None]],
    ) -> None:
        self._node = node
        self._cluster = cluster
        self._others_changed = others_changed
        self._health = health
        self._task: asyncio.Task[None] | None = None
        self._said: dict[tuple[str, str], int] = {}
        self._said_ms = 0
        self._read_ms = 0
        self._trouble = ""
        self._living: frozenset[str] = frozenset()
        self._came: dict[str, dict[str, set[str]]] = {}
        self._new: set[tuple[str, str]] = set()  # apps that are served here since the last look
        cluster.look_up = lambda: wake.look_up(node)
        cluster.say_room = lambda: self._say(asks=False)

    async def start(self, cluster_id: str) -> None:
        """Listens from now on, and asks the others how much room they have."""
        await self._cluster.peers.start(cluster_id, self._node.id, self.heard)
        self._say(asks=True)
        self._task = self._node.loop.create_task(
            go_round("keeping in touch with the other nodes", _TICK_S, self.run_once)
        )

    async def stop(self) -> None:
        """Says that this node leaves. Safe to call twice."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
            self._cluster.tell(Left())
        await self._cluster.peers.stop()

    # -- of itself -----------------------------------------------------------------------------------------------

    async def run_once(self) -> None:
        """Says what has changed, and reads what was not heard."""
        node, cluster = self._node, self._cluster
        now = node.clock.monotonic_ms()
        room = self._room()
        self._look_again()
        crossed = any((free > 0) != (self._said.get(at, -1) > 0) for at, free in room.items())
        if crossed or room.keys() != self._said.keys() or now - self._said_ms >= ROOM_MS:
            self._say(asks=False)
        if cluster.living != self._living:
            self._living = cluster.living
            await self._others_changed()
        trouble, before = cluster.trouble, self._trouble
        self._trouble = trouble
        if bool(trouble) != bool(before):
            log.warning("nodes %s", f"do not hear each other: {trouble}" if trouble else "hear each other again")
            await self._health(trouble)
        pause_ms = node.tuning.degraded_ms if trouble else ROOM_MS
        if before and not trouble:
            self._say(asks=True)
            await recover.catch_up(node)
        elif now - self._read_ms >= pause_ms:
            self._read_ms = now
            dispatch.offer_waiting(node)
            if trouble:
                await recover.catch_up(node)
            for env in list(node.environments.values()):
                await recover.renew(node, env)

    def _look_again(self) -> None:
        """What was queued elsewhere before the others heard that an app is served here was offered to nobody."""
        new, self._new = self._new, set()
        for env_name, app in new:
            env = self._node.environment(env_name)
            for function_id in env.serving:
                if function_id.startswith(f"{app}/"):
                    self._node.queue.learn(env_name, function_id, sure=True)
            dispatch.pump(self._node, env)

    def _say(self, *, asks: bool) -> None:
        before, self._said = self._said.keys(), self._room()
        self._new.update(self._said.keys() - before)
        self._said_ms = self._node.clock.monotonic_ms()
        places = tuple((env, app, free) for (env, app), free in self._said.items())
        self._cluster.tell(Room(places, asks))

    def _room(self) -> dict[tuple[str, str], int]:
        room: dict[tuple[str, str], int] = {}
        for session in self._node.sessions.values():
            if session.link is not None and not session.draining:
                at = (session.row.env, session.row.app)
                room[at] = room.get(at, 0) + max(session.free, 0)
        return room

    # -- of the others -------------------------------------------------------------------------------------------

    def heard(self, other: str, note: Note) -> None:
        """Another node told something. What is told to everybody comes back, and is nothing new."""
        node, cluster = self._node, self._cluster
        if other == node.id:
            return
        match note:
            case Room(asks=asks):
                new = cluster.heard_room(other, note)
                if (asks or new) and not node.stopping:
                    self._say(asks=False)
            case Left():
                cluster.forget(other)
            case Ready():
                self._ready(other, note)
            case Came(env, run_id, key):
                if not self._came:
                    node.loop.call_soon(self._find)
                self._came.setdefault(env, {}).setdefault(run_id, set()).add(key)
            case Adopted(session_id, epoch):
                session = node.sessions.get(session_id)
                if session is not None and session.row.epoch < epoch:
                    fence.fenced(node, session)
            case Registered(env):
                node.spawn(self._renew(env))
            case Mismatched(env):
                for session in list(node.sessions.values()):
                    if session.row.env == env and session.link is not None:
                        recover.fitting_worker(node, session)
            case Watched(run_id):
                cluster.watched(other, run_id)
            case Changed(run_id):
                for watcher in tuple(node.run_watchers.get(run_id, ())):
                    watcher(None)

    def _ready(self, other: str, note: Ready) -> None:
        node = self._node
        env = node.environment(note.env)
        serving = env.serving.get(note.function_id)
        if serving:
            node.queue.learn(note.env, note.function_id, sure=True)
            dispatch.pump(node, env)
        if not note.passed and not any(session.free > 0 for session in serving or ()):
            self._cluster.pass_on(note.env, note.function_id, passed=True, but=other)

    def _find(self) -> None:
        came, self._came = self._came, {}
        for env, keys in came.items():
            self._node.spawn(wake.find(self._node, env, keys))

    async def _renew(self, env: str) -> None:
        try:
            await recover.renew(self._node, self._node.environment(env))
        except UnavailableError:
            return  # it is read again within a second
