"""What people ask about runs: where one stands, and why it does not go on (H38)."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import NamedTuple

from stepwell_server.engine import dispatch, usage
from stepwell_server.engine.failures import cut_after, message_of
from stepwell_server.engine.node import Node
from stepwell_server.engine.residents import base_key
from stepwell_server.model import ids
from stepwell_server.model.errors import NotFoundError
from stepwell_server.model.event import EventRow
from stepwell_server.model.journal import (
    CANCEL_KEY,
    INNER,
    RUN_KEY,
    START_KEY,
    UNWINDING,
    OutcomeRow,
    StepKind,
    WaitRow,
)
from stepwell_server.model.limits import LIMITS
from stepwell_server.model.run import LIVE, RunRow, RunStatus
from stepwell_server.ports.store import RunFilter, RunState

_LIVE = frozenset(int(status) for status in LIVE)
_ID = re.compile(r"[0-9a-f]{32}\Z", re.ASCII)


class Waiting(IntEnum):
    """What a run can wait for. The numbers are those of the protocol."""

    SLEEP = 1
    EVENT = 2
    CHILD = 3
    RETRY = 4
    NO_WORKER = 5
    CAPACITY = 6
    EXECUTING = 7
    LEASE = 8
    PAUSED = 9
    LIMIT = 10
    GATHERING = 11
    FUNCTION_PAUSED = 12


class Reason(NamedTuple):
    """One thing that a run waits for. until_ms: 0 if there is no time. cut_after: where a look-back was cut."""

    kind: Waiting
    key: str
    message: str
    event: str = ""
    match: str = ""
    until_ms: int = 0
    run_id: str = ""
    cut_after: str = ""


def check_run_id(run_id: str) -> None:
    """Raises NotFoundError where no run can have such an id: a store need not be asked."""
    if not run_id.startswith(ids.RUN_PREFIX) or not _ID.match(run_id, len(ids.RUN_PREFIX)):
        raise NotFoundError("RUN_NOT_FOUND", f"there is no run {run_id[:64]!r}")


async def run_state(node: Node, env: str, run_id: str) -> RunState:
    """A run with its journal; raises NotFoundError."""
    check_run_id(run_id)
    state = (await node.store.load(env, [run_id])).get(run_id)
    if state is None:
        raise NotFoundError("RUN_NOT_FOUND", f"there is no run {run_id[:64]!r}")
    return state


async def changes(node: Node, env: str, run_id: str, after_number: int) -> RunState:
    """A run with what of its journal is behind a number; raises NotFoundError."""
    check_run_id(run_id)
    state = await node.history.changes(env, run_id, after_number)
    if state is None:
        raise NotFoundError("RUN_NOT_FOUND", f"there is no run {run_id[:64]!r}")
    return state


def shown_status(node: Node, state: RunState) -> RunStatus:
    """The store's status, but a parked run that a live session was just woken for executes (see architecture.md)."""
    run = state.run
    if run.status == RunStatus.PARKED and run.session_id is not None:
        resident = node.residents.get(run.id)
        if resident is not None and resident.executing:
            return RunStatus.RUNNING
        if resident is None and any(outcome.number is None for outcome in state.outcomes):
            return RunStatus.RUNNING
    return RunStatus(run.status)


def reasons(node: Node, state: RunState) -> list[Reason]:
    """Why a live run has not ended: never empty for one, always empty for one that has."""
    run = state.run
    status = shown_status(node, state)
    if status not in _LIVE:
        return []
    if status is RunStatus.PAUSED:
        return [Reason(Waiting.PAUSED, "", _paused(run))]
    found = [_open(node, wait) for wait in state.waits if wait.kind not in INNER]
    if status is RunStatus.PARKED:
        if gate := next((wait for wait in state.waits if wait.kind == StepKind.GATE), None):
            return [_at_gate(node, gate, run)]
        came = any(outcome.number is None for outcome in state.outcomes)
        resident = node.residents.get(run.id)
        if came and (resident is None or resident.may_go_on()):
            return [_place(node, run), *found]
        return found or [_place(node, run)]
    if status is RunStatus.QUEUED:
        return [_place(node, run)]
    session = node.sessions.get(run.session_id or "")
    if session is None and node.cluster is not None:
        return [Reason(Waiting.EXECUTING, "", "a worker of another node executes it, or its lease has to end"), *found]
    if session is None or session.link is None:
        until = session.until_ms if session is not None else node.awaited_until_ms
        message = "its worker is not connected: another gets it once the lease is over"
        return [Reason(Waiting.LEASE, "", message, until_ms=until if until > node.clock.now_ms() else 0)]
    request = unwinding(state)
    what = "executes it" if request is None else f"unwinds it: {message_of(request.failure)}"
    return [Reason(Waiting.EXECUTING, "", f"worker {session.row.instance or session.id} {what}"), *found]


def unwinding(state: RunState) -> OutcomeRow | None:
    """Why a run is being unwound, or was: somebody asked for its end, or its time was over."""
    return next((outcome for outcome in state.outcomes if outcome.kind in UNWINDING), None)


def deadline_ms(state: RunState) -> int:
    """When the time-out that runs now will be over; 0 if there is none."""
    key = CANCEL_KEY if state.run.turn else START_KEY
    return next((wait.due_ms or 0 for wait in state.waits if (wait.key, wait.kind) == (key, StepKind.TIMEOUT)), 0)


def _paused(run: RunRow) -> str:
    names = {1: "its code no longer fits its journal", 2: "it was lost with its worker too often", 3: "its function is "
             "paused", 4: "an operator paused it"}  # fmt: skip
    return f"paused: {names.get(run.reason, 'unknown reason')}"


def _place(node: Node, run: RunRow) -> Reason:
    if dispatch.holds_back(node.environment(run.env), run.function_id, begun=run.turn > 0):
        return Reason(Waiting.FUNCTION_PAUSED, "", f"{run.function_id} is paused")
    serving = node.environment(run.env).serving.get(run.function_id) or []
    connected = [session for session in serving if session.link is not None and not session.draining]
    others = node.cluster.serving(run.env, run.app) if node.cluster is not None else {}
    if others and not any(session.free > 0 for session in connected):
        free = sum(others.values())
        message = f"the workers of {len(others)} other nodes serve {run.app}, with {free} places between them"
        return Reason(Waiting.CAPACITY, "", message)
    if not connected:
        function = node.environment(run.env).triggers.known.get(run.function_id)
        asked = " ".join(f"{name}={value}" for name, value in function.labels) if function is not None else ""
        which = f"no connected worker with labels {asked}" if asked else "no connected worker"
        return Reason(Waiting.NO_WORKER, "", f"{which} serves {run.function_id}")
    if (held := usage.held(node, run)) is not None:
        return Reason(Waiting.LIMIT, "", held.message, until_ms=held.until_ms)
    alone = sum(session.suspect is not None for session in connected)
    message = f"all {len(connected)} workers that serve {run.function_id} are full"
    if alone:
        message += f", or ({alone}) kept for a run alone that was lost with its worker before"
    return Reason(Waiting.CAPACITY, "", message)


def _at_gate(node: Node, wait: WaitRow, run: RunRow) -> Reason:
    if wait.target.startswith("single:"):
        message = f"another run of {run.function_id} with the same key lives"
        return Reason(Waiting.LIMIT, "", message)
    until = node.gates.until_ms(wait)
    what = "a batch" if run.gathers else "the last of a flurry"
    return Reason(Waiting.GATHERING, "", f"gathers events for {what}", until_ms=until)


def _open(node: Node, wait: WaitRow) -> Reason:
    until = wait.due_ms or 0
    if wait.kind == StepKind.SLEEP:
        return Reason(Waiting.SLEEP, wait.key, f"sleeps ({wait.key})", until_ms=until)
    if wait.kind == StepKind.EVENT:
        match = wait.match_key or ""
        where = " and ".join(filter(None, (match, wait.condition)))
        message = f"waits for event {wait.target}" + (f" with {where}" if where else "")
        cut = cut_after(wait.failure)
        unjudged = node.environment(wait.env).unjudged.of(f"{wait.run_id}/{wait.key}")
        message = "; ".join(filter(None, (message, message_of(wait.failure), unjudged)))
        return Reason(Waiting.EVENT, wait.key, message, event=wait.target, match=where, until_ms=until, cut_after=cut)
    if wait.kind == StepKind.INVOKE:
        message = f"waits for {wait.target}, run {wait.child_id}"
        return Reason(Waiting.CHILD, wait.key, message, until_ms=until, run_id=wait.child_id or "")
    step = base_key(wait.key)
    what = "the function" if step == RUN_KEY else f"step {step}"
    return Reason(Waiting.RETRY, wait.key, f"tries {what} again (attempt {wait.attempt})", until_ms=until)


class Entry(NamedTuple):
    """One line of a journal: an outcome, or something open (wait is set)."""

    outcome: OutcomeRow | None
    wait: WaitRow | None


def journal(state: RunState) -> list[Entry]:
    """First what the code saw, in its order; then what is on its way; then what is open."""
    entries = [Entry(outcome, None) for outcome in state.outcomes]
    entries.extend(Entry(None, wait) for wait in state.waits if wait.kind not in INNER)
    return entries


async def event_with_runs(node: Node, env: str, event_id: str) -> tuple[EventRow, list[str]]:
    """An event and the runs that it started or joined; raises NotFoundError."""
    known = event_id.startswith(ids.EVENT_PREFIX) and _ID.match(event_id, len(ids.EVENT_PREFIX))
    events = await node.history.events(env, [event_id]) if known else ()
    if not events:
        raise NotFoundError("EVENT_NOT_FOUND", f"there is no event {event_id[:64]!r}")
    run_ids: list[str] = []
    before = ""
    while True:
        page = await node.history.list_runs(env, RunFilter(event_id=event_id, before=before, limit=LIMITS.page_size))
        run_ids.extend(row.id for row in page)
        if len(page) < LIMITS.page_size:
            joined = await node.claims.joined(env, [event_id])
            run_ids.extend(row.run_id for row in joined if row.run_id and row.run_id not in run_ids)
            return events[0], run_ids
        before = page[-1].id
