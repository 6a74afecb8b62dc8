"""A function is paused and resumed: durably, and in the background what that does to its runs, until it is done.

What is to be done is what its last switch says: a server that dies in the middle of it is followed by one that begins
anew, and finds less to do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from stepwell_server.engine import dispatch, ending, fence, patience, recover, unwind, wake
from stepwell_server.engine.claims import skipped
from stepwell_server.engine.node import Environment, Node
from stepwell_server.engine.register import refresh
from stepwell_server.model.commit import Commit, Verdict
from stepwell_server.model.errors import NotFoundError, UnavailableError
from stepwell_server.model.function import Standing, SwitchRow
from stepwell_server.model.notes import Registered
from stepwell_server.model.run import RunRow, RunStatus
from stepwell_server.ports.store import RunFilter

log = logging.getLogger("stepwell.pauses")
_PAGE = 200
_TRIES = 5
Do = Callable[[Node, RunRow], Coroutine[Any, Any, None]]
_BEGUN = (int(RunStatus.QUEUED), int(RunStatus.RUNNING), int(RunStatus.PARKED), int(RunStatus.PAUSED))


async def pause(node: Node, env_name: str, function_id: str, standing: Standing) -> None:
    """Holds new runs of a function back. standing: KEEP, HOLD or CANCEL: what becomes of those that have begun.

    Raises NotFoundError, UnavailableError. Durable when this returns; what follows for runs goes on behind it.
    """
    env = await _environment(node, env_name, function_id)
    now = (env.paused or {}).get(function_id)
    if now is None or now.standing != standing:
        await patience.within(node, _switch(node, env, function_id, standing))


async def resume(node: Node, env_name: str, function_id: str, *, skip: bool) -> None:
    """Hands out runs of a function again; skip: those that wait and have never started end as skipped before.

    Raises NotFoundError, UnavailableError. One that is not paused stays as it is.
    """
    env = await _environment(node, env_name, function_id)
    now = (env.paused or {}).get(function_id)
    standing = Standing.SKIPPING if skip else Standing.RUNNING
    if now is not None and now.standing != standing:
        await patience.within(node, _switch(node, env, function_id, standing))


async def _environment(node: Node, env_name: str, function_id: str) -> Environment:
    node.check_accepting()
    env = node.environment(env_name)
    await refresh(node, env)
    if function_id not in env.triggers.known:
        raise NotFoundError("FUNCTION_NOT_FOUND", f"no app has registered function {function_id[:256]!r}")
    return env


async def _switch(node: Node, env: Environment, function_id: str, standing: Standing) -> None:
    """Where another node switches in the same millisecond one of the two is written: the other comes behind it."""
    for _ in range(_TRIES):
        now = (env.paused or {}).get(function_id)
        at_ms = max(node.clock.now_ms(), 0 if now is None else now.at_ms + 1)
        row = SwitchRow(env.name, function_id, at_ms, int(standing))
        commit = Commit(env.name, touches=(f"registry:{env.name}",), switches=(row,))
        if (await node.lane.apply(commit)).verdict is Verdict.FENCED:
            raise fence.taken_over()
        registry = await node.store.registry(env.name)
        if row in registry.switches:
            await refresh(node, env)
            if node.cluster is not None:
                node.cluster.tell(Registered(env.name))
            node.spawn(carry_out(node, env))
            return
    raise UnavailableError("BUSY", "somebody else keeps switching this function; try again", retry_ms=200)


async def carry_out(node: Node, env: Environment) -> None:
    """Does to runs what the switches say and is not done; called after a switch, at the start, and at every sweep."""
    if env.carrying:
        return
    env.carrying = True
    node.busy += 1
    try:
        while todo := [row for row in (env.paused or {}).values() if row not in env.carried]:
            for switch in todo:
                await _carry_out(node, env, switch)
                env.carried.add(switch)
        env.carried.intersection_update((env.paused or {}).values())
        for switch in (env.paused or {}).values():
            if switch.standing == Standing.HOLD:
                _take_away(node, env, switch.function_id)  # what was on its way to a worker then
        dispatch.pump(node, env)
    except UnavailableError as error:
        log.warning("what a pause does to runs has to wait: %s", error)
    finally:
        env.carrying = False
        node.busy -= 1


async def _carry_out(node: Node, env: Environment, switch: SwitchRow) -> None:
    if switch.standing == Standing.HOLD:
        _take_away(node, env, switch.function_id)
    elif switch.standing == Standing.CANCEL:
        await _each(node, env, switch, _BEGUN, _cancel)
    elif switch.standing == Standing.SKIPPING:
        await _each(node, env, switch, (int(RunStatus.QUEUED),), _skip)
        await refresh(node, env)  # another node may have done it, and somebody have paused it again
        if (env.paused or {}).get(switch.function_id) == switch:
            await _switch(node, env, switch.function_id, Standing.RUNNING)


def _take_away(node: Node, env: Environment, function_id: str) -> None:
    """Workers give runs of a function back: executing ones queue, which is no loss; parked ones wait on."""
    for resident in [one for one in node.residents.values() if one.env == env.name and one.function_id == function_id]:
        if resident.ended:
            continue
        if resident.executing:
            resident.session.evict(resident)
            recover.requeue(node, resident.session, resident, lost=False)
        else:
            wake.release(node, resident, evict=True)


async def _each(node: Node, env: Environment, switch: SwitchRow, statuses: tuple[int, ...], do: Do) -> None:
    """All runs of the function, in pages, that were there when it was switched."""
    before = ""
    while True:
        wanted = RunFilter(function_id=switch.function_id, statuses=statuses, before=before, limit=_PAGE)
        page = await node.history.list_runs(env.name, wanted)
        await asyncio.gather(*(do(node, row) for row in page if row.created_ms <= switch.at_ms))
        if len(page) < _PAGE:
            return
        before = page[-1].id


async def _cancel(node: Node, row: RunRow) -> None:
    if row.turn == 0:
        return
    try:
        await unwind.cancel(node, row.env, row.id, "its function was paused")
    except NotFoundError:
        return


async def _skip(node: Node, row: RunRow) -> None:
    """A run that never started ends; one that starts meanwhile, or ends, stays."""
    while row.turn == 0 and row.status == RunStatus.QUEUED:
        state = (await node.store.load(row.env, [row.id])).get(row.id)
        if state is None or state.run.turn or state.run.status != RunStatus.QUEUED:
            return
        failure = skipped("FUNCTION_PAUSED", f"{row.function_id} was paused, and resumed without what waited for it")
        if await ending.end_unowned(node, state, RunStatus.SKIPPED, failure):
            return
