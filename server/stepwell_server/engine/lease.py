"""Who serves a database (H31): a lease that says so and is renewed, and a fence that keeps all others from writing.

The lease says who should serve. That nobody else can is the work of the fence: a node has a session of its own, in no
environment, which every transaction of it checks, and which others close before they take its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from stepwell_server.engine.node import Node
from stepwell_server.model.commit import Commit, Verdict
from stepwell_server.model.errors import StateError, UnavailableError
from stepwell_server.model.session import NODE_LEASE, Fence, LeaseRow, LeaseWrite, SessionRow, SessionWrite

log = logging.getLogger("stepwell.lease")
NAME = "node"
CLUSTER = "cluster"
"""Who holds that lease while many nodes serve the database; each of them has one of its own."""


class Observer:
    """Times the beats of leases by this node's own clock (H12e). dead: whether a process of this host has ended."""

    def __init__(self, node: Node, dead: Callable[[str], bool]) -> None:
        self._node = node
        self._dead = dead
        self._seen: dict[str, tuple[LeaseRow, int]] = {}

    def is_over(self, row: LeaseRow) -> bool:
        """Whether nobody holds a lease any more: given up, its process dead, or without a beat for a whole lease."""
        if not row.holder or self._dead(row.info):
            return True
        now = self._node.clock.monotonic_ms()
        seen = self._seen.get(row.name)
        if seen is None or seen[0] != row:
            self._seen[row.name] = (row, now)
            return False
        return now - seen[1] >= self._node.tuning.lease_ms

    def has_moved(self, row: LeaseRow) -> bool:
        """Whether its holder was heard since this node began to look."""
        seen = self._seen.get(row.name)
        return seen is not None and seen[0] != row

    @property
    def pause_s(self) -> float:
        """Until the next look."""
        return min(self._node.tuning.lease_ms / 10, 500) / 1000


class Holding:
    """A lease in this node's hands: renewed for as long as it serves, and told if it was lost."""

    def __init__(self, node: Node, name: str, info: str, lost: Callable[[], None]) -> None:
        self._node = node
        self._name = name
        self._info = info
        self._lost = lost
        self._row: LeaseRow | None = None
        self._task: asyncio.Task[None] | None = None
        self._doubt = asyncio.Event()

    async def take(self, old: LeaseRow | None) -> bool:
        """Takes the lease, or renews it, if it still stands as it was read."""
        row = LeaseRow(self._name, self._node.id, (old.beat if old else 0) + 1, self._info)
        if await write(self._node, old, row):
            self._row = row
            return True
        return False

    async def start(self) -> None:
        """Renews from now on. From now on, too, this node writes only while no other has closed its session.

        Raises StateError (DATABASE_IN_USE) where one has taken the lease since this node did.
        """
        await write_session(self._node, self._node.id, 0, self._info, closed=False)
        self._node.lane.owner = Fence("", self._node.id, 1)
        self._node.lane.doubted = self._doubt.set
        if not await self.run_once():
            # Whoever came in between found no session of this node to close: the fence would hold.
            raise StateError("DATABASE_IN_USE", "another server has taken this database over")
        self._task = asyncio.get_running_loop().create_task(self._keep())

    async def _keep(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._doubt.wait(), self._node.tuning.lease_ms / 3000)
            self._doubt.clear()
            try:
                held = await self.run_once()
            except UnavailableError:
                continue
            except Exception:
                log.exception("renewing the lease failed")
                continue
            if not held:
                log.critical("the lease on the database was lost: this server stops")
                self._lost()
                return

    async def run_once(self) -> bool:
        """Renews; False where somebody else holds it now."""
        return self._row is not None and await self.take(self._row)

    async def stop(self) -> None:
        """Gives the lease up, so that others need not wait."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self._row is not None:
            row, self._row = self._row, None
            await write(self._node, row, row._replace(holder="", beat=row.beat + 1))
            await write_session(self._node, self._node.id, 1, self._info, closed=True)


class Lease(Holding):
    """The lease of a node that serves alone. info: names its process. dead: see Observer."""

    def __init__(self, node: Node, info: str, dead: Callable[[str], bool], lost: Callable[[], None]) -> None:
        super().__init__(node, NAME, info, lost)
        self._observer = Observer(node, dead)

    async def acquire(self, *, wait: bool) -> None:
        """Holds the lease afterwards. Raises StateError (DATABASE_IN_USE) where another holds it and wait is off."""
        node, observer = self._node, self._observer
        told = False
        while True:
            row = await node.store.lease(NAME)
            who = f"another server ({row.info})" if row is not None else "another server"
            if row is None:
                moved, over = False, True
            elif row.holder == CLUSTER:
                who = "a cluster of servers (--redis)"
                moved, over = await close_cluster(node, observer)
            else:
                moved, over = observer.has_moved(row), observer.is_over(row)
            if over and await self._succeed(row):
                return
            if moved and not over and not wait:
                raise StateError("DATABASE_IN_USE", f"{who} serves this database")
            if not told:
                log.warning(
                    "%s holds this database: %s", who, "standing by" if wait else "looking whether it still lives"
                )
                told = True
            await asyncio.sleep(observer.pause_s)

    async def _succeed(self, row: LeaseRow | None) -> bool:
        if row is not None and row.holder not in ("", CLUSTER, self._node.id):
            await write_session(self._node, row.holder, 1, self._info, closed=True)
        return await self.take(row)


async def close_cluster(node: Node, observer: Observer) -> tuple[bool, bool]:
    """Whether a node of a cluster was heard since this one looks, and whether none lives; then they are all closed."""
    rows = [row for row in await node.homes.leases(NODE_LEASE) if row.holder]
    moved = any(observer.has_moved(row) for row in rows)
    over = [observer.is_over(row) for row in rows]  # each is timed, whatever the others do
    if not all(over):
        return moved, False
    for row in rows:
        await close_node(node, row)
    return moved, True


async def close_node(node: Node, row: LeaseRow) -> None:
    """A node of the cluster writes nothing from now on, and has no lease."""
    await write_session(node, row.holder, 1, row.info, closed=True)
    await write(node, row, row._replace(holder="", beat=row.beat + 1))


async def write(node: Node, old: LeaseRow | None, row: LeaseRow) -> bool:
    """Writes a lease, if it still stands as it was read."""
    decider = LeaseWrite(old.holder if old else "", old.beat if old else 0, row)
    result = await node.lane.apply(Commit("", touches=(f"lease:{row.name}",), decider=decider))
    return result.verdict is Verdict.APPLIED


async def write_session(node: Node, node_id: str, expect_epoch: int, info: str, *, closed: bool) -> None:
    """Opens this node's own session, or closes a node's, if it is open."""
    now = node.clock.now_ms()
    row = SessionRow("", node_id, expect_epoch + 1, node.id, "", "", info, "", 0, "", now, now if closed else None)
    await node.lane.apply(Commit("", touches=(node_id,), decider=SessionWrite(expect_epoch, row)))
