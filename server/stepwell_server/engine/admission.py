"""New runs: with a place where one is free and nothing older waits, else queued."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from stepwell_server.engine import dispatch
from stepwell_server.engine.node import Environment, Node
from stepwell_server.engine.residents import Session
from stepwell_server.model.event import EventRow
from stepwell_server.model.function import FunctionSpec
from stepwell_server.model.run import Priority, RunRow, RunStatus
from stepwell_server.ports.store import RunState

_QUEUED, _NEW = int(RunStatus.QUEUED), Priority.NEW


class Start(NamedTuple):
    """A run that a commit creates: with a place in a session, or in the queue."""

    run: RunRow
    session: Session | None
    event: EventRow | None


def start(
    node: Node, env: Environment, function: FunctionSpec, run_id: str, event: EventRow, now: int, metadata: bytes = b""
) -> Start:
    """A new run for an event: with a place where one is free and nothing older waits."""
    return begin(
        node,
        env,
        function.id,
        RunRow(
            env.name,
            run_id,
            function.id,
            function.app,
            _QUEUED,
            0,
            0,
            None,
            event.id,
            None,
            None,
            False,
            0,
            "",
            0,
            0,
            0,
            now,
            None,
            None,
            None,
            "",
            None,
            "",
            None,
            metadata,
        ),
        event,
    )


def begin(node: Node, env: Environment, function_id: str, run: RunRow, event: EventRow | None) -> Start:
    """Gives a new run a place in a session, or in the queue. The caller commits it, then calls started()."""
    session = None if node.queue.waiting(env.name, function_id) else dispatch.pick(env, function_id)
    if session is None:
        place = dispatch.ready_row(node, env.name, run.id, function_id, priority=_NEW)
        return Start(run.in_place(place.priority, place.queued_ms), None, event)
    dispatch.reserve(node, session)
    return Start(run.held(session.id, 1, session.row.deployment, run.created_ms), session, event)


def started(node: Node, starts: Sequence[Start], applied: bool) -> None:
    """New runs are durable, or were not wanted: assign or queue them, or give their places back."""
    for run, session, event in starts:
        if not applied:
            if session is not None:
                dispatch.not_coming(node, session)
        elif session is not None:
            dispatch.assign(node, session, RunState(run, event, (), ()))
        else:
            dispatch.queued(node, dispatch.place(run), RunState(run, event, (), ()))
