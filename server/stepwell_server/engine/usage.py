"""What people ask of limits: which are used and how far, who waits for them, and which one holds a run up."""

from __future__ import annotations

import time
from typing import NamedTuple

from stepwell_server.engine import lines
from stepwell_server.engine.node import Environment, Node
from stepwell_server.engine.resting import Line
from stepwell_server.model.flow import Flow, Scope
from stepwell_server.model.run import RunRow
from stepwell_server.ports.limiter import Use

_LOOKED_AT = 1_000
_COUNTED = 1_000


class Reason(NamedTuple):
    """Why a run is held. until_ms: 0 if nobody knows how long."""

    message: str
    until_ms: int


class Used(NamedTuple):
    """A limit that is used or waited for. label: as people call it. more: more runs than that may wait."""

    use: Use
    name: lines.LimitName
    label: str
    waiting: int
    more: bool


def held(node: Node, run: RunRow) -> Reason | None:
    """The limit that a run waits for, if that is what it waits for."""
    function = node.environment(run.env).limited.get(run.function_id)
    if function is None or function.flow is None or not lines.fits(function.flow, run.line):
        return None
    need = lines.needs(run.env, function, run.line)
    slots = need.executing + need.whole
    has = node.resting.held.get(run.id, ()) + node.resting.kept.get(run.id, ())
    for slot, use in zip(slots, node.limiter.use([slot.limit for slot in slots]), strict=True):
        if use.used >= slot.bound and use.limit not in has:
            return Reason(f"limit {_label(function.flow, use.limit)}: {use.used} of {slot.bound} in use", 0)
    if need.pace is not None and not run.turn:
        (use,) = node.limiter.use([need.pace.limit])
        if use.free_ms > node.clock.now_ms():
            at = time.strftime("%H:%M:%S", time.gmtime(use.free_ms / 1000))
            label = _label(function.flow, use.limit) if lines.parse(use.limit).value else ""
            return Reason(f"throttle{' ' if label else ''}{label}: starts at {at}", use.free_ms)
    return None


def _label(flow: Flow | None, limit: str) -> str:
    name = lines.parse(limit)
    return lines.shown(name, lines.key_of(flow, name))


def page(node: Node, env: Environment, function_id: str, app: str, after: str, limit: int) -> tuple[list[Used], str]:
    """Limits in use, by id, behind one; and behind which one to go on, empty after the last."""
    waiting = _waiting(node, env.name)
    now = node.clock.now_ms()
    found: list[Used] = []
    while True:
        uses = node.limiter.page(f"{env.name}|", after, _LOOKED_AT)
        for use in uses:
            after = use.limit
            name = lines.parse(use.limit)
            if not _fits(name, function_id, app) or not (use.used or use.free_ms > now or use.limit in waiting):
                continue
            function = env.triggers.known.get(name.owner)
            label = lines.shown(name, lines.key_of(function.flow if function is not None else None, name))
            count, more = _counted(node, waiting.get(use.limit, ()), use.limit)
            found.append(Used(use, name, label, count, more))
            if len(found) == limit:
                return found, after
        if len(uses) < _LOOKED_AT:
            return found, ""


def _fits(name: lines.LimitName, function_id: str, app: str) -> bool:
    owner = name.owner.partition("/")[0]
    if function_id and (name.scope is not Scope.FUNCTION or name.owner != function_id):
        return False
    return not app or (name.scope is not Scope.ENVIRONMENT and owner == app)


def _waiting(node: Node, env: str) -> dict[str, list[Line]]:
    """The lines that rest, by the limit that they rest on."""
    found: dict[str, list[Line]] = {}
    for line, limit in node.resting.lines.items():
        if line[0] == env:
            found.setdefault(limit, []).append(line)
    return found


def _counted(node: Node, waiting: list[Line] | tuple[()], limit: str) -> tuple[int, bool]:
    there = node.resting.waiting.get(limit)
    count, more = (len(there.again) if there is not None else 0), len(waiting) > _COUNTED
    for line in waiting[:_COUNTED]:
        runs, unread = node.queue.backlog(*line)
        count += runs
        more = more or unread
    return count, more
