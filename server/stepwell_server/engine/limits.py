"""Runs ask for what their function's limits let them have, and give it back; who was held waits, and is woken.

A slot is asked for once a place in a worker is reserved, and before the run is taken: whichever of the three fails, the
others go back. A line of the queue that is held rests until its limit is freed, or until the time of its pace; a woken
run that its worker has in memory waits there, and goes before every start (H14c).
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from stepwell_server.engine import lines, matching
from stepwell_server.engine.expressions import Note
from stepwell_server.engine.loading import read
from stepwell_server.engine.node import Environment, Node
from stepwell_server.engine.resting import Line, Waiting
from stepwell_server.model.commit import Commit, Verdict
from stepwell_server.model.event import EventRow
from stepwell_server.model.flow import Flow
from stepwell_server.model.function import FunctionSpec
from stepwell_server.model.run import Priority, ReadyRow, Reline, RunRow
from stepwell_server.ports.limiter import Ask, Held, Slot
from stepwell_server.ports.queue import Queued
from stepwell_server.ports.store import RunState

log = logging.getLogger("stepwell.limits")
_NEW = int(Priority.NEW)
_RELINED = 256

Then = Callable[[Queued], None]


def seen_by(run: RunRow, event: EventRow | None) -> Callable[[], dict[str, Any]]:
    """What key expressions see: the event that starts a run, or the input of an invoke as an event's data."""
    if event is not None:
        return lambda: matching.event_value(event)
    return lambda: {"id": "", "name": "", "data": matching.invoked_data(run), "time_ms": run.created_ms, "metadata": {}}


def noted(
    env: Environment, function_id: str, run_id: str, what: str = "key", instead: str = "it is null"
) -> lines.Noted:
    """Keeps what could not be evaluated, for people."""
    return lambda text, why: env.unjudged.note(function_id, Note(text, run_id, why, what, instead))


def line_of(env: Environment, flow: Flow, run: RunRow, event: EventRow | None) -> str:
    """The line of a run, as its function's keys are now."""
    return lines.line_of(flow, seen_by(run, event), noted(env, run.function_id, run.id))


def shift_ms(env: Environment, flow: Flow, run: RunRow, event: EventRow | None) -> int:
    """What a run's priority is worth."""
    return lines.shift_ms(flow, seen_by(run, event), noted(env, run.function_id, run.id, "priority", "it counts as 0"))


# -- starts --------------------------------------------------------------------------------------------------------


def start(
    node: Node, env: Environment, function: FunctionSpec, items: Sequence[Queued], granted: Then, refused: Then
) -> None:
    """Asks for popped runs of one function. One that is refused is in the queue again, and its line rests."""
    flow = function.flow
    assert flow is not None, "nobody asks for a function without limits"
    asked: dict[str, Queued] = {}
    asks: list[Ask] = []
    whole: dict[str, tuple[Slot, ...]] = {}
    stale: list[Queued] = []
    for item in items:
        row = item.row
        if not lines.fits(flow, row.line):
            stale.append(item)
            continue
        need = lines.needs(env.name, function, row.line)
        asked[row.run_id] = item
        pace = need.pace if row.priority == _NEW else None
        if need.whole:
            whole[row.run_id] = need.whole
        asks.append(Ask(row.run_id, need.executing + need.whole, pace))

    def answered(ask: Ask, held: Held | None) -> None:
        item = asked[ask.run_id]
        line = (env.name, function.id, item.row.own_line)
        if held is None:
            node.resting.woken.discard(line)
            _note(node, ask, whole.get(ask.run_id, ()))
            granted(item)
        else:
            node.queue.put_back(item, rest=True)
            _rest(node, line, item.row, held)
            refused(item)

    if asks:
        node.limiter.acquire(asks, node.clock.now_ms(), answered)
    for item in stale:
        refused(item)
    if stale:
        _reline_soon(node, env, function, stale)


def _note(node: Node, ask: Ask, whole: tuple[Slot, ...]) -> None:
    """What a start was granted."""
    executing = tuple(slot.limit for slot in ask.slots if slot not in whole)
    if executing:
        node.resting.held[ask.run_id] = executing
    had = node.resting.kept.get(ask.run_id, ())
    new = tuple(slot.limit for slot in whole if slot.limit not in had)
    if new:
        node.resting.keeping[ask.run_id] = new


def started(node: Node, run_id: str) -> None:
    """A start is durable: what counts the run to its end counts it now, also after a crash."""
    resting = node.resting
    new = resting.keeping.pop(run_id, None)
    if new is not None:
        resting.kept[run_id] = resting.kept.get(run_id, ()) + new


def _rest(node: Node, line: Line, row: ReadyRow, held: Held) -> None:
    resting = node.resting
    if line not in resting.lines:
        resting.lines[line] = held.limit
        if held.until_ms:
            heapq.heappush(resting.due, (held.until_ms, line))
            _arm(node)
        else:
            names = _waiting(node, held.limit).lines.setdefault(line[:2], OrderedDict())
            names[line[2]] = None
            # Whoever was woken in vain keeps the turn; what has begun goes before what is new.
            if row.priority < _NEW or line in resting.woken:
                names.move_to_end(line[2], last=False)
    resting.woken.discard(line)
    for limit in held.spare:
        freed(node, limit)


def _waiting(node: Node, limit: str) -> Waiting:
    waiting = node.resting.waiting.get(limit)
    if waiting is None:
        waiting = node.resting.waiting[limit] = Waiting()
    return waiting


def pushed(node: Node, row: ReadyRow) -> None:
    """A run that has begun is queued: where its line rests for new runs it asks all the same (H14c)."""
    line = (row.env, row.function_id, row.own_line)
    if line in node.resting.lines:
        _wake(node, line)


# -- runs in a worker's memory -------------------------------------------------------------------------------------


def enter(
    node: Node, env: Environment, function: FunctionSpec, run: RunRow, then: Callable[[Held | None], None]
) -> bool:
    """Asks for a woken run; False where it needs nothing. Its line must fit."""
    slots = lines.needs(env.name, function, run.line).executing
    if not slots:
        return False

    def answered(ask: Ask, held: Held | None) -> None:
        if held is None:
            node.resting.held[run.id] = tuple(slot.limit for slot in slots)
        else:
            for limit in held.spare:
                freed(node, limit)
        then(held)

    node.limiter.acquire((Ask(run.id, slots, None),), node.clock.now_ms(), answered)
    return True


async def granted(node: Node, run: RunRow) -> bool:
    """Asks for a run that no queue holds."""
    env = node.environment(run.env)
    function = env.limited.get(run.function_id)
    if function is None or function.flow is None:
        return True
    if not lines.fits(function.flow, run.line):
        run = await relined(node, env, function.flow, run)
    answer: asyncio.Future[bool] = node.loop.create_future()
    needed = enter(node, env, function, run, lambda held: answer.set_result(held is None))
    return not needed or await answer


def wait(node: Node, held: Held, again: Callable[[], bool]) -> None:
    """A woken run was held: it is asked for again when the limit is freed, before every start."""
    _waiting(node, held.limit).again.append(again)


def count(node: Node, run: RunRow) -> None:
    """A run executes without having asked: its worker came back with it, or knew better than the server."""
    function = node.environment(run.env).limited.get(run.function_id)
    if function is None or function.flow is None or not lines.fits(function.flow, run.line):
        return
    slots = lines.needs(run.env, function, run.line).executing
    if slots:
        node.resting.held[run.id] = tuple(slot.limit for slot in slots)
        node.limiter.count(run.id, slots)


def keep(node: Node, function: FunctionSpec, run: RunRow) -> None:
    """A run has started and not ended: it counts to its end."""
    if function.flow is not None and lines.fits(function.flow, run.line):
        whole = lines.needs(run.env, function, run.line).whole
        node.resting.kept[run.id] = tuple(slot.limit for slot in whole)
        node.limiter.count(run.id, whole)


def release(node: Node, run_id: str) -> None:
    """A run executes no more, or is not taken after all."""
    resting = node.resting
    limits = resting.held.pop(run_id, ()) + resting.keeping.pop(run_id, ())
    if limits:
        node.limiter.release(run_id, limits)


def ended(node: Node, run_id: str) -> None:
    """A run has ended: it counts no more."""
    limits = node.resting.kept.pop(run_id, None)
    if limits is not None:
        node.limiter.release(run_id, limits)


def deadlock(node: Node, env: Environment, function: FunctionSpec, child: RunRow, parent: RunRow) -> str:
    """Why a run that its parent waits for could never start: the parent, and who waits for that one, hold every slot of
    a limit to their ends (H29). Empty where it could."""
    flow, kept = function.flow, node.resting.kept
    if flow is None or not kept or function.id not in env.limited:
        return ""
    waiting = {parent.id}
    above = node.residents.get(parent.parent_id or "")
    while above is not None and above.run_id not in waiting:
        waiting.add(above.run_id)
        above = node.residents.get(above.run.parent_id or "")
    for slot in lines.needs(env.name, function, line_of(env, flow, child, None)).whole:
        if sum(slot.limit in kept.get(run_id, ()) for run_id in waiting) >= slot.bound:
            name = lines.parse(slot.limit)
            label = lines.shown(name, lines.key_of(flow, name))
            held = f"limit {label}: all {slot.bound} are held by this run, or by those that wait for it"
            return f"{held}, to their end: {function.id} could never start"
    return ""


# -- waking --------------------------------------------------------------------------------------------------------


def freed(node: Node, limit: str) -> None:
    """A limit may have room for one more."""
    resting = node.resting
    if limit in resting.waiting:
        if not resting.freed:
            node.loop.call_soon(_wake_freed, node)
        resting.freed[limit] = resting.freed.get(limit, 0) + 1


def _wake_freed(node: Node) -> None:
    limits, node.resting.freed = node.resting.freed, {}
    for limit, times in limits.items():
        for _ in range(times):
            _wake_next(node, limit)


def _wake_next(node: Node, limit: str) -> None:
    """One woken run, or else one line of each function: only a worker's places tell whose start it will be."""
    waiting = node.resting.waiting.get(limit)
    if waiting is None:
        return
    while waiting.again:
        if waiting.again.popleft()():
            return
    for function, names in list(waiting.lines.items()):
        while names:
            name, _ = names.popitem(last=False)
            if _wake(node, (*function, name)):
                break
        if not names:
            del waiting.lines[function]
    if not waiting.lines and not waiting.again:
        node.resting.waiting.pop(limit, None)


def _wake(node: Node, line: Line) -> bool:
    node.resting.lines.pop(line, None)
    if not node.queue.wake(*line):
        return False
    node.resting.woken.add(line)
    node.look_again(node.environment(line[0]))
    return True


def _arm(node: Node) -> None:
    """One timer for all lines that rest until a time."""
    resting = node.resting
    if resting.timer is not None:
        resting.timer.cancel()
        resting.timer = None
    if resting.due and not node.stopping:
        delay_ms = max(resting.due[0][0] - node.clock.now_ms(), 1)
        resting.timer = node.loop.call_later(delay_ms / 1000, wake_due, node)


def due_ms(node: Node) -> int | None:
    """When the next of those may ask again."""
    return node.resting.due[0][0] if node.resting.due else None


def wake_due(node: Node) -> None:
    """Lines whose time has come ask again."""
    due, now = node.resting.due, node.clock.now_ms()
    while due and due[0][0] <= now:
        _wake(node, heapq.heappop(due)[1])
    _arm(node)


def reconsider(node: Node, env: str) -> None:
    """The functions of an environment have changed: whoever rests asks again."""
    resting = node.resting
    resting.due = [(at, line) for at, line in resting.due if line[0] != env]
    heapq.heapify(resting.due)
    for limit, waiting in list(resting.waiting.items()):
        for function in [function for function in waiting.lines if function[0] == env]:
            del waiting.lines[function]
        if limit.startswith(f"{env}|"):
            again, waiting.again = list(waiting.again), type(waiting.again)()
            for ask in again:
                ask()
        if not waiting.lines and not waiting.again:
            resting.waiting.pop(limit, None)
    for line in [line for line in resting.lines if line[0] == env]:
        _wake(node, line)


# -- lines that no longer fit --------------------------------------------------------------------------------------


def _reline_soon(node: Node, env: Environment, function: FunctionSpec, stale: list[Queued]) -> None:
    """Other keys than when these were queued: they wait in another line now, and so do those right behind them."""
    flow = function.flow
    assert flow is not None, "only the lines of a function with a flow can be stale"
    for item in node.queue.pop(env.name, function.id, _RELINED - len(stale)):
        if lines.fits(flow, item.row.line):
            node.queue.put_back(item)
        else:
            stale.append(item)
    node.spawn(_reline(node, env, flow, stale))


async def _reline(node: Node, env: Environment, flow: Flow, items: list[Queued]) -> None:
    node.busy += 1
    try:
        states = await read(node, env.name, [item.row.run_id for item in items])
        moved: list[Reline] = []
        for item in items:
            state = states.get(item.row.run_id)
            if state is not None:
                moved.append(Reline(env.name, item.row.run_id, line_of(env, flow, state.run, state.event)))
        touches = tuple(row.run_id for row in moved)
        result = await node.lane.apply(Commit(env.name, touches=touches, relines=moved))
        found = {row.run_id: row.line for row in moved}
        for item in items:
            node.queue.settled(item.row)
            if result.verdict is Verdict.APPLIED and item.row.run_id in found:
                node.queue.push(item.row._replace(line=found[item.row.run_id]), None)
        node.look_again(env)
    finally:
        node.busy -= 1


async def relined(node: Node, env: Environment, flow: Flow, run: RunRow) -> RunRow:
    """A run whose line no longer fits, with the one that it has now."""
    state: RunState | None = (await read(node, env.name, [run.id])).get(run.id)
    return run._replace(line=line_of(env, flow, run, state.event if state is not None else None))
