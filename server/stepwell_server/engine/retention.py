"""How long ended runs and events are kept, and the service that removes what is not (H35).

It goes through the primary keys, whose ids begin with a time: no index is paid for by each run. What an event served
again could start twice is kept, and so are events as old as the oldest run, which may look back at them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from functools import partial

from stepwell_server.engine.node import Node
from stepwell_server.engine.rounds import go_round
from stepwell_server.model import ids
from stepwell_server.model.commit import Commit
from stepwell_server.model.errors import InvalidError
from stepwell_server.model.limits import DAY_MS
from stepwell_server.model.run import RunStatus
from stepwell_server.model.session import SettingRow
from stepwell_server.ports.retention import Expiry, Page, Retention

log = logging.getLogger("stepwell.retention")
EVENTS = "events"
STATUSES = {
    status.name.lower(): status
    for status in (
        RunStatus.COMPLETED,
        RunStatus.FAILED,
        RunStatus.CANCELLED,
        RunStatus.TIMED_OUT,
        RunStatus.SKIPPED,
    )
}
KINDS = (*STATUSES, EVENTS)
LEAST_MS, MOST_MS = 3_600_000, 36_600 * DAY_MS
_PAGE = 500
_BUSY_S, _IDLE_S = 0.02, 1.0


def setting(env: str, kind: str) -> str:
    """Name of the setting."""
    return f"retention/{env}/{kind}"


async def rules(node: Node, env: str) -> dict[str, int]:
    """How long each kind is kept; 0: for ever."""
    return {kind: int(await node.history.setting(setting(env, kind)) or 0) for kind in KINDS}


async def keep(node: Node, env: str, changes: Mapping[str, int]) -> dict[str, int]:
    """Changes rules, and returns all. Raises InvalidError."""
    fields = tuple(
        (f"rules.{kind}", "shorter than 1 h" if keep_ms < LEAST_MS else "longer than 100 years")
        for kind, keep_ms in changes.items()
        if keep_ms and not LEAST_MS <= keep_ms <= MOST_MS
    )
    if fields:
        raise InvalidError("BAD_RETENTION", "what is kept is kept for at least an hour", fields=fields)
    rows = tuple(SettingRow(setting(env, kind), str(keep_ms)) for kind, keep_ms in changes.items())
    if rows:
        await node.lane.apply(Commit("", touches=("settings",), settings=rows))
    return await rules(node, env)


class Forgetting:
    """Goes through what is stored, page by page, again and again; more slowly where there is little to remove."""

    def __init__(self, node: Node, store: Retention) -> None:
        self._node = node
        self._store = store
        self._task: asyncio.Task[None] | None = None

    def start(self, env: str) -> None:
        """From now on."""
        self._task = self._node.loop.create_task(
            go_round(
                "removing what is no longer kept", self._node.tuning.retention_ms / 1000, partial(self._round, env)
            )
        )

    def stop(self) -> None:
        """Ends the service."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _round(self, env: str) -> None:
        if self._node.cluster is not None and self._node.cluster.rank > 0:
            return  # of many nodes the first does it
        removed = await self.run_once(env)
        if removed:
            log.info("%d runs and events of %s were no longer kept", removed, env)

    async def run_once(self, env: str) -> int:
        """One pass over runs, then events; how many went."""
        kept = await rules(self._node, env)
        return await self._runs(env, kept) + await self._events(env, kept[EVENTS])

    async def _runs(self, env: str, kept: Mapping[str, int]) -> int:
        now = self._node.clock.now_ms()
        # An event that is served again must find the run that it started or joined, which ended after it came.
        cursor = (await self._store.oldest(env)).cursor
        unserved_ms = ids.time_of(cursor) if cursor else now
        expiries = [
            Expiry(status, min(now - kept[kind], unserved_ms)) for kind, status in STATUSES.items() if kept[kind]
        ]
        if not expiries:
            return 0
        before = ids.RUN_PREFIX + ids.time_part(max(expiry.before_ms for expiry in expiries))
        removed, page = 0, Page(ids.RUN_PREFIX, 0)
        while page.last:
            page = await self._store.forget_runs(env, page.last, before, expiries, _PAGE)
            removed += page.removed
            await self._pause(page)
        return removed

    async def _events(self, env: str, kept_ms: int) -> int:
        if not kept_ms:
            return 0
        oldest = await self._store.oldest(env)
        until = [ids.time_part(self._node.clock.now_ms() - kept_ms)]
        until += [id_[4:16] for id_ in oldest if id_]
        removed, page = 0, Page(ids.EVENT_PREFIX, 0)
        while page.last:
            page = await self._store.forget_events(env, page.last, ids.EVENT_PREFIX + min(until), _PAGE)
            removed += page.removed
            await self._pause(page)
        return removed

    async def _pause(self, page: Page) -> None:
        if page.last:
            await asyncio.sleep(_BUSY_S if page.removed > _PAGE // 10 else _IDLE_S)
