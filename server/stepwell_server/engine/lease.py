"""One node serves a database that has no Redis beside it (H31): it holds a lease, and renews it.

The lease says who should serve. That nobody else can is the work of a fence: a node has a session of its own, in no
environment, which every transaction of it checks, and which the next node closes before it takes the lease over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from stepwell_server.engine.node import Node
from stepwell_server.model.commit import Commit, Verdict
from stepwell_server.model.errors import StateError, UnavailableError
from stepwell_server.model.session import Fence, LeaseRow, LeaseWrite, SessionRow, SessionWrite

log = logging.getLogger("stepwell.lease")
NAME = "node"


class Lease:
    """Takes the lease at the start, renews it, and tells if it was lost.

    info: names the process of the holder. dead: says whether such a process of this host has ended (H12e).
    """

    def __init__(self, node: Node, info: str, dead: Callable[[str], bool], lost: Callable[[], None]) -> None:
        self._node = node
        self._info = info
        self._dead = dead
        self._lost = lost
        self._row: LeaseRow | None = None
        self._task: asyncio.Task[None] | None = None
        self._doubt = asyncio.Event()

    async def acquire(self, *, wait: bool) -> None:
        """Holds the lease afterwards. Raises StateError (DATABASE_IN_USE) where another holds it and wait is off.

        A holder counts as gone once its beat stood still for a whole lease by this node's own clock.
        """
        seen: LeaseRow | None = None
        since = self._node.clock.monotonic_ms()
        told = False
        while True:
            row = await self._node.store.lease(NAME)
            now = self._node.clock.monotonic_ms()
            stood_still = row == seen and now - since >= self._node.tuning.lease_ms
            if row is None or not row.holder or self._dead(row.info) or stood_still:
                if await self._take(row):
                    return
            elif row != seen:
                if seen is not None and not wait:
                    message = f"another server ({row.info}) serves this database"
                    raise StateError("DATABASE_IN_USE", message)
                seen, since = row, now
            if not told:
                doing = "standing by" if wait else "looking whether it still lives"
                log.warning("another server (%s) holds this database: %s", row.info if row else "", doing)
                told = True
            await asyncio.sleep(min(self._node.tuning.lease_ms / 10, 500) / 1000)

    async def _take(self, old: LeaseRow | None) -> bool:
        if old is not None and old.holder not in ("", self._node.id):
            await self._write_session(old.holder, 1, closed=True)
        row = LeaseRow(NAME, self._node.id, (old.beat if old else 0) + 1, self._info)
        write = LeaseWrite(old.holder if old else "", old.beat if old else 0, row)
        result = await self._node.lane.apply(Commit("", touches=("lease",), decider=write))
        if result.verdict is Verdict.APPLIED:
            self._row = row
            return True
        return False

    async def _write_session(self, node_id: str, expect_epoch: int, *, closed: bool) -> None:
        """Opens this node's own session, or closes a node's, if it is open."""
        now = self._node.clock.now_ms()
        row = SessionRow(
            "", node_id, expect_epoch + 1, self._node.id, "", "", self._info, "", 0, "", now, now if closed else None
        )
        await self._node.lane.apply(Commit("", touches=(node_id,), decider=SessionWrite(expect_epoch, row)))

    async def start(self) -> None:
        """Renews from now on. From now on, too, this node writes only while no other has taken over.

        Raises StateError (DATABASE_IN_USE) where one has since acquire().
        """
        await self._write_session(self._node.id, 0, closed=False)
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
        return self._row is not None and await self._take(self._row)

    async def stop(self) -> None:
        """Gives the lease up, so that the next server need not wait."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self._row is not None:
            row = self._row._replace(holder="", beat=self._row.beat + 1)
            write = LeaseWrite(self._row.holder, self._row.beat, row)
            self._row = None
            await self._node.lane.apply(Commit("", touches=("lease",), decider=write))
            await self._write_session(self._node.id, 1, closed=True)
