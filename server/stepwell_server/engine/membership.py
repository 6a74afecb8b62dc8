"""A node of a cluster comes, sees who else lives, and goes; the dead are closed before their work moves (H31)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from stepwell_server.engine.lease import CLUSTER, NAME, Holding, Observer, close_node, write, write_session
from stepwell_server.engine.node import Node
from stepwell_server.engine.rounds import go_round
from stepwell_server.model.errors import StateError
from stepwell_server.model.session import NODE_LEASE, LeaseRow

log = logging.getLogger("stepwell.membership")


class Membership(Holding):
    """This node's lease among those of the others. info, dead: as in lease.py. cluster_id: the same for all nodes."""

    def __init__(self, node: Node, info: str, dead: Callable[[str], bool], lost: Callable[[], None]) -> None:
        super().__init__(node, NODE_LEASE + node.id, info, lost)
        self._observer = Observer(node, dead)
        self._watch: asyncio.Task[None] | None = None
        self.cluster_id = ""

    async def acquire(self, *, wait: bool) -> None:
        """Is a member afterwards. Raises StateError (DATABASE_IN_USE) where a server without --redis serves the
        database, and wait is off.

        The lease of the database is the cluster's: each member raises its beat when it comes. So whoever has read that
        nobody lives, and takes the database for itself, loses against a member that came meanwhile.
        """
        node, observer = self._node, self._observer
        await self.take(None)
        told = False
        while True:
            row = await node.store.lease(NAME)
            moved = row is not None and observer.has_moved(row)
            if row is None or row.holder == CLUSTER or observer.is_over(row):
                if await self._join(row):
                    return
                continue
            if moved and not wait:
                await self.stop()
                message = (
                    f"another server ({row.info}) serves this database alone: start it with --redis too, or stop it"
                )
                raise StateError("DATABASE_IN_USE", message)
            if not told:
                doing = "standing by" if wait else "looking whether it still lives"
                log.warning("a server without --redis (%s) holds this database: %s", row.info, doing)
                told = True
            await asyncio.sleep(observer.pause_s)

    async def _join(self, row: LeaseRow | None) -> bool:
        if row is not None and row.holder not in ("", CLUSTER):
            await write_session(self._node, row.holder, 1, row.info, closed=True)
        ours = row is not None and row.holder == CLUSTER
        self.cluster_id = row.info if row is not None and ours else self._node.entropy(8).hex()
        joined = LeaseRow(NAME, CLUSTER, (row.beat if row else 0) + 1, self.cluster_id)
        return await write(self._node, row, joined)

    async def start(self) -> None:
        """As Holding.start(); from now on this node knows who else lives."""
        await super().start()
        await self.look()
        looks = go_round("looking at the other nodes", self._observer.pause_s, self.look)
        self._watch = asyncio.get_running_loop().create_task(looks)

    async def look(self) -> None:
        """Sees who lives; those whose lease is over are closed."""
        node, cluster = self._node, self._node.cluster
        assert cluster is not None, "a member is in a cluster"
        living = {node.id}
        for row in await node.homes.leases(NODE_LEASE):
            if not row.holder or row.holder == node.id:
                continue
            if self._observer.is_over(row):
                log.warning("node %s (%s) is gone: its workers have a lease to come to another", row.holder, row.info)
                await close_node(node, row)
            else:
                living.add(row.holder)
        for other in cluster.living - living:
            cluster.forget(other)
        cluster.living = frozenset(living)

    async def stop(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        await super().stop()
