"""New runs: with a place where one is free and nothing older waits, else queued."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from stepwell_server.engine import claims, dispatch, limits, timeouts
from stepwell_server.engine.lane import Callback
from stepwell_server.engine.node import Environment, Node
from stepwell_server.engine.residents import Session
from stepwell_server.model.commit import Commit, CommitResult, Verdict
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
    node: Node,
    env: Environment,
    function: FunctionSpec,
    run_id: str,
    event: EventRow,
    now: int,
    metadata: bytes = b"",
    *,
    at_once: bool = True,
) -> Start:
    """A new run for an event: with a place where one is free and nothing older waits."""
    run = new_run(env, function, run_id, event, now, metadata)
    if function.flow is None:
        return placed(node, env, function, run, event, at_once=at_once)
    return begin(node, env, function, run, event, at_once=at_once)


def new_run(
    env: Environment, function: FunctionSpec, run_id: str, event: EventRow, now: int, metadata: bytes = b""
) -> RunRow:
    """The row of a run that an event starts."""
    return RunRow(
        env.name, run_id, function.id, function.app, _QUEUED, 0, 0, None, event.id, None, None, False, 0, "", 0, 0, 0,
        now, None, None, None, "", None, "", None, metadata,
    )  # fmt: skip


def begin(
    node: Node, env: Environment, function: FunctionSpec, run: RunRow, event: EventRow | None, *, at_once: bool = True
) -> Start:
    """Gives a new run a place in a session, in the queue, or at the gate of its function. The caller commits it, then
    calls started().

    at_once: whether it may have a place in a session. The commit of a worker's frame must keep its order, and so cannot
    be tried again where another node has taken that session up: with other nodes, what it begins is queued.
    """
    run = in_line(env, function, run, event)
    if function.flow is not None and function.flow.singleton is not None:
        single = function.flow.singleton
        key = claims.claim_key(env.unjudged, "single", function.id, single.key, claims.invoked(run))
        wait = claims.gate_wait(run, key, run.created_ms, run.created_ms + claims.LOOK_MS)
        return Start(run._replace(status=_PARKED), None, event, (wait,))
    return placed(node, env, function, run, event, at_once=at_once)


def in_line(env: Environment, function: FunctionSpec, run: RunRow, event: EventRow | None) -> RunRow:
    """A new run with the line that its function's keys give it, from its first event."""
    return run if function.flow is None else run._replace(line=limits.line_of(env, function.flow, run, event))


def placed(
    node: Node, env: Environment, function: FunctionSpec, run: RunRow, event: EventRow | None, *, at_once: bool = True
) -> Start:
    """Gives a new run that has passed every gate a place in a session, or in the queue.

    What has limits goes through the queue: only there is it known who is next.
    """
    full = function.id in env.limited or node.queue.waiting(env.name, function.id)
    full = full or (env.paused is not None and function.id in env.paused)
    session = dispatch.pick(env, function.id) if at_once and not full else None
    if session is None:
        place = dispatch.ready_row(node, env.name, run.id, function.id, priority=NEW)
        waits = timeouts.until_started(function, env.name, run.id, run.created_ms)
        ahead_ms = limits.shift_ms(env, function.flow, run, event) if function.flow is not None else 0
        return Start(run.in_place(place.priority, place.queued_ms - ahead_ms), None, event, waits)
    dispatch.reserve(node, session)
    held = run.held(session.id, 1, session.row.deployment, run.created_ms)
    return Start(held, session, event, timeouts.from_start(function, env.name, run.id, run.created_ms))


def submit(node: Node, commit: Commit, starts: list[Start], callback: Callback, argument: Any = None) -> None:
    """Submits a commit that creates runs with places. Where another node has taken up a session meanwhile, the commit
    goes again with these runs queued, and ``starts`` says so by the time the callback learns the result."""
    if node.cluster is None:
        node.lane.submit(commit, callback, argument)
        return
    commit.fences = tuple(dict.fromkeys(one.session.fence[0] for one in starts if one.session is not None))
    node.lane.submit(commit, _submitted, (node, commit, starts, callback, argument))


async def apply(node: Node, commit: Commit, starts: list[Start]) -> CommitResult:
    """Submits as submit() does, and waits."""
    done: asyncio.Future[CommitResult] = node.loop.create_future()
    submit(node, commit, starts, _tell, done)
    return await done


def _tell(result: CommitResult, done: asyncio.Future[CommitResult]) -> None:
    if not done.done():
        done.set_result(result)


def _submitted(result: CommitResult, argument: tuple[Node, Commit, list[Start], Callback, Any]) -> None:
    node, commit, starts, callback, inner = argument
    if result.verdict is not Verdict.FENCED or not commit.fences:
        callback(result, inner)
        return
    commit.fences = ()
    starts[:] = [_queued(node, one) for one in starts]
    commit.runs = [one.run for one in starts]
    waits = opened(starts)
    if waits or commit.waits:
        commit.waits = waits
    node.lane.submit(commit, callback, inner)


def _queued(node: Node, start: Start) -> Start:
    if start.session is None:
        return start
    dispatch.not_coming(node, start.session)
    env = node.environment(start.run.env)
    run = start.run._replace(status=_QUEUED, turn=0, session_id=None, deployment="", started_ms=None)
    function = env.triggers.known.get(run.function_id)
    if function is None:
        place = dispatch.place(run._replace(priority=int(NEW), queued_ms=run.created_ms))
        return Start(run.in_place(place.priority, place.queued_ms), None, start.event, ())
    return placed(node, env, function, run, start.event, at_once=False)


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
