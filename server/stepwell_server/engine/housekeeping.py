"""Duties that come round: silent workers, the sweep, expired rows. Each look is one run_once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from stepwell_server.engine import dispatch, pauses, recover, sessions
from stepwell_server.engine.node import Node
from stepwell_server.engine.residents import Session
from stepwell_server.engine.rounds import go_round
from stepwell_server.model.errors import UnavailableError
from stepwell_server.model.session import SessionRow

log = logging.getLogger("stepwell.housekeeping")
_PURGE = 1_000
_SETTLE_LOOKS = 1_000
_PURGE_EVERY = 60
_LEARN_EVERY = 12


class Housekeeping:
    """The service that watches streams while there are any, and sweeps now and then.

    gone: whether a worker's instance ("host:pid") was a process of this host that has ended; its runs need not wait
    for a lease (H12e).
    """

    def __init__(self, node: Node, gone: Callable[[str], bool]) -> None:
        self._node = node
        self._gone = gone
        self._tasks: list[asyncio.Task[None]] = []
        self._rounds = 0
        self._awaited: set[tuple[str, int]] = set()  # sessions of nodes that are gone, with their epochs
        self._env = ""

    async def start(self, env: str) -> None:
        """Heals what the last server left, and gives its workers one lease to come back."""
        self._env = env
        node = self._node
        others = node.cluster is not None and len(node.cluster.living) > 1
        await recover.count_held(node, env)
        await recover.sweep(node, older_than_ms=node.tuning.sweep_ms * 2 if others else 0)
        # Events come before the time-outs that fell due meanwhile (H17).
        for _ in range(_SETTLE_LOOKS):
            if not (node.unserved or node.busy):
                break
            await asyncio.sleep(0.01)
        if node.cluster is None:
            for function_id in await node.history.known_functions(env):
                node.queue.learn(env, function_id)
        await self.look_for_orphans(env)
        looks = go_round("looking at the workers' streams", node.tuning.heartbeat_ms / 1000, self._look_at_streams)
        sweeps = go_round("the sweep", node.tuning.sweep_ms / 1000, self.run_once)
        self._tasks = [node.loop.create_task(looks), node.loop.create_task(sweeps)]

    async def look_for_orphans(self, env: str) -> None:
        """Sessions that no living node holds: those of workers that have ended are closed, the others are awaited."""
        node = self._node
        living = node.cluster.living if node.cluster is not None else frozenset[str]()
        left = [
            row
            for row in await node.store.sessions(env)
            if row.id not in node.sessions and row.node not in living and (row.id, row.epoch) not in self._awaited
        ]
        for row in [row for row in left if self._gone(row.instance)]:
            left.remove(row)
            await sessions.close(node, row, lost=True)
        if left:
            self._await(left)

    async def others_changed(self, env: str) -> None:
        """A node has come or gone: of its workers the first of the others takes care."""
        cluster = self._node.cluster
        if self._tasks and cluster is not None and cluster.rank == 0:
            await self.look_for_orphans(env)

    def stop(self) -> None:
        """Ends the service."""
        for task in self._tasks:
            task.cancel()
        self._tasks = []

    def _await(self, rows: list[SessionRow]) -> None:
        """Their workers have one lease to come back."""
        node = self._node
        node.awaited_until_ms = node.clock.now_ms() + node.tuning.lease_ms
        self._awaited.update((row.id, row.epoch) for row in rows)
        node.loop.call_later(node.tuning.lease_ms / 1000, self._give_up, rows)

    def _give_up(self, rows: list[SessionRow]) -> None:
        node = self._node
        for row in rows:
            if row.id not in node.sessions and not node.stopping:
                node.spawn(self._close_or_wait(row))

    async def _close_or_wait(self, row: SessionRow) -> None:
        """Closes a session that nobody took up; one that another server touched meanwhile gets one more lease."""
        node = self._node
        await sessions.close(node, row, lost=True)
        self._awaited.discard((row.id, row.epoch))
        if node.cluster is not None:
            return  # whoever took it up holds it, or is an orphan's node himself by the next look
        try:
            rows = await node.store.sessions(row.env)
        except UnavailableError:
            rows = [row]
        left = [now for now in rows if now.id == row.id and now.id not in node.sessions]
        if left:
            self._await(left)

    async def _look_at_streams(self) -> None:
        self.look_at_streams()

    def look_at_streams(self) -> None:
        """A silent worker gets no new work; after its lease its runs move (H12b). Every worker hears from us."""
        node = self._node
        now = node.clock.monotonic_ms()
        for session in list(node.sessions.values()):
            link = session.link
            if link is None:
                continue
            link.pulse()
            silent = now - session.heard_ms
            late, session.late = session.late, silent > 2 * node.tuning.heartbeat_ms
            if late and not session.late:
                dispatch.freed(node, session)
            if silent > node.tuning.lease_ms:
                self._silence(session)

    def _silence(self, session: Session) -> None:
        known = {"environment": session.row.env, "session": session.id}
        log.warning("worker %s is silent: its runs move", session.row.instance or session.id, extra=known)
        link, session.link = session.link, None
        if link is not None:
            lease_s = self._node.tuning.lease_ms / 1000
            link.close("LEASE_OVER", f"nothing was heard from the worker for a whole lease ({lease_s:g} s)")
        self._node.spawn(sessions.expire(self._node, session, lost=True))

    async def run_once(self) -> None:
        """One sweep; every so often also a purge of what has expired."""
        node = self._node
        for env in list(node.environments.values()):
            if env.paused is not None:
                await pauses.carry_out(node, env)
        healed = await recover.sweep(node, older_than_ms=node.tuning.sweep_ms * 2)
        if healed:
            log.info("the sweep took up %d things", healed)
            if node.tally is not None:
                node.tally.healed += healed
        self._rounds += 1
        if self._rounds % _LEARN_EVERY == 0:
            # Ready rows that another server wrote, before it knew that it was none any more, are in no window.
            for env in node.environments.values():
                for function_id, sessions in env.serving.items():
                    if sessions:
                        node.queue.learn(env.name, function_id)
                dispatch.pump(node, env)
        if node.cluster is not None and node.cluster.rank > 0:
            return
        if node.cluster is not None:
            await self.look_for_orphans(self._env)
        if self._rounds % _PURGE_EVERY == 0:
            await node.history.purge(node.clock.now_ms(), _PURGE)
