"""New runs: with a place where one is free and nothing older waits, else queued."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from stepwell_server.engine import claims, dispatch, limits, timeouts
from stepwell_server.engine.node import Environment, Node
from stepwell_server.engine.residents import Session
from stepwell_server.model.event import EventRow
from stepwell_server.model.function import FunctionSpec
from stepwell_server.model.journal import WaitRow
from stepwell_server.model.run import Priority, RunRow, RunStatus
from stepwell_server.ports.store import RunState

_QUEUED, _PARKED, NEW = int(RunStatus.QUEUED), int(RunStatus.PARKED), Priority.NEW


class Start(NamedTuple):
    """A run that a commit creates: with a place in a session, in the queue, or at a gate. waits: its time-outs, and
    what it has to do with a claim."""

    run: RunRow
    session: Session | None
    event: EventRow | None
    waits: timeouts.Waits


def start(
    node: Node, env: Environment, function: FunctionSpec, run_id: str, event: EventRow, now: int, metadata: bytes = b""
) -> Start:
    """A new run for an event: with a place where one is free and nothing older waits."""
    return begin(node, env, function, new_run(env, function, run_id, event, now, metadata), event)


def new_run(
    env: Environment, function: FunctionSpec, run_id: str, event: EventRow, now: int, metadata: bytes = b""
) -> RunRow:
    """The row of a run that an event starts."""
    return RunRow(
        env.name, run_id, function.id, function.app, _QUEUED, 0, 0, None, event.id, None, None, False, 0, "", 0, 0, 0,
        now, None, None, None, "", None, "", None, metadata,
    )  # fmt: skip


def begin(node: Node, env: Environment, function: FunctionSpec, run: RunRow, event: EventRow | None) -> Start:
    """Gives a new run a place in a session, in the queue, or at the gate of its function. The caller commits it, then
    calls started()."""
    run = in_line(env, function, run, event)
    if function.flow is not None and function.flow.singleton is not None:
        single = function.flow.singleton
        key = claims.claim_key(env.unjudged, "single", function.id, single.key, claims.invoked(run))
        wait = claims.gate_wait(run, key, run.created_ms, run.created_ms + claims.LOOK_MS)
        return Start(run._replace(status=_PARKED), None, event, (wait,))
    return placed(node, env, function, run, event)


def in_line(env: Environment, function: FunctionSpec, run: RunRow, event: EventRow | None) -> RunRow:
    """A new run with the line that its function's keys give it, from its first event."""
    return run if function.flow is None else run._replace(line=limits.line_of(env, function.flow, run, event))


def placed(node: Node, env: Environment, function: FunctionSpec, run: RunRow, event: EventRow | None) -> Start:
    """Gives a new run that has passed every gate a place in a session, or in the queue.

    What has limits goes through the queue: only there is it known who is next.
    """
    full = function.id in env.limited or node.queue.head(env.name, function.id) is not None
    if env.paused is not None and function.id in env.paused:
        full = True
    session = None if full else dispatch.pick(env, function.id)
    if session is None:
        place = dispatch.ready_row(node, env.name, run.id, function.id, priority=NEW)
        waits = timeouts.until_started(function, env.name, run.id, run.created_ms)
        ahead_ms = limits.shift_ms(env, function.flow, run, event) if function.flow is not None else 0
        return Start(run.in_place(place.priority, place.queued_ms - ahead_ms), None, event, waits)
    dispatch.reserve(node, session)
    held = run.held(session.id, 1, session.row.deployment, run.created_ms)
    return Start(held, session, event, timeouts.from_start(function, env.name, run.id, run.created_ms))


def opened(starts: Sequence[Start]) -> list[WaitRow]:
    """The time-outs of new runs: they open in the commit that creates the runs."""
    return [wait for start in starts if start.waits for wait in start.waits]


def started(node: Node, starts: Sequence[Start], applied: bool) -> None:
    """New runs are durable, or were not wanted: assign or queue them, or give their places back."""
    for run, session, event, waits in starts:
        if not applied:
            if session is not None:
                dispatch.not_coming(node, session)
            continue
        if waits:
            dispatch.ring(node, waits)
        state = RunState(run, event, (), waits)
        if session is not None:
            dispatch.assign(node, session, state)
        elif run.status == _PARKED:
            node.gates.waiting(state)
        else:
            dispatch.queued(node, dispatch.place(run), state)
