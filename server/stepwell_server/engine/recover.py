"""Runs whose worker is gone, or whose wake was lost, find their way again (H13, H15, H16)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from stepwell_server.engine import dispatch, fence, limits, loading, lookback, serve, wake
from stepwell_server.engine.failures import failure_json, tried
from stepwell_server.engine.node import Environment, Node
from stepwell_server.engine.register import refresh
from stepwell_server.engine.residents import Resident, Session
from stepwell_server.model.commit import Commit, CommitResult, Verdict
from stepwell_server.model.errors import UnavailableError
from stepwell_server.model.flow import Hold
from stepwell_server.model.function import FunctionSpec
from stepwell_server.model.journal import INNER
from stepwell_server.model.notes import Mismatched
from stepwell_server.model.run import Move, PausedReason, ReadyRow, RunRow, RunStatus
from stepwell_server.model.session import Fence
from stepwell_server.ports.store import FIRST, RunFilter, Stranded, Unseen

log = logging.getLogger("stepwell.recover")
_CHUNK = 200
_PAGE = 1_000
_PLACE_S = 0.1
_TOLD_MS = 200
# Another build of the app can mend these.
_MENDED = (PausedReason.NONDETERMINISTIC, PausedReason.WORKER_LOST)


async def held_by(node: Node, env: str, session_id: str) -> list[RunRow]:
    """Live runs that a session holds, as the store says."""
    rows: list[RunRow] = []
    before = ""
    while True:
        try:
            page = await node.history.list_runs(env, RunFilter(session_id=session_id, before=before, limit=_PAGE))
        except UnavailableError:
            await asyncio.sleep(0.5)
            continue
        rows.extend(page)
        if len(page) < _PAGE:
            return rows
        before = page[-1].id


async def count_held(node: Node, env: str) -> None:
    """What the workers of an earlier server may still execute counts, before anything new is granted (H27).

    A status is written lazily: of a run that is parked only its worker knows, until it is back or its lease is over.
    """
    limited = node.environment(env).limited
    if not limited:
        return
    for function in limited.values():
        await _count_started(node, env, function)
    for session in await node.store.sessions(env):
        for row in await held_by(node, env, session.id):
            if row.status in (RunStatus.RUNNING, RunStatus.PARKED):
                limits.count(node, row)


async def _count_started(node: Node, env: str, function: FunctionSpec) -> None:
    """Runs that count to their end, by a limit that holds for a whole run."""
    if function.flow is None or all(limit.hold is not Hold.RUN for limit in function.flow.concurrency):
        return
    before = ""
    while True:
        wanted = RunFilter(function_id=function.id, begun=True, before=before, limit=_PAGE)
        page = await node.history.list_runs(env, wanted)
        for row in page:
            limits.keep(node, function, row)
            if row.status == RunStatus.QUEUED:
                # Others wait for what it holds: it must not stand unread behind them.
                node.queue.push(dispatch.place(row), None)
        if len(page) < _PAGE:
            return
        before = page[-1].id


async def requeue_rows(
    node: Node, env: str, rows: Sequence[RunRow], *, lost: bool, fence: tuple[Fence, ...] = ()
) -> None:
    """Runs leave a session that is closed, or that does not have them: executing ones queue, parked ones wait on."""
    for at in range(0, len(rows), _CHUNK):
        moves: list[Move] = []
        queued: list[ReadyRow] = []
        parked: list[str] = []
        chunk = rows[at : at + _CHUNK]
        states = await loading.read(node, env, [row.id for row in chunk])
        for row in chunk:
            state = states.get(row.id)
            idle = (
                row.status == RunStatus.PARKED
                and state is not None
                and any(wait.kind not in INNER for wait in state.waits)
                and all(outcome.number is not None for outcome in state.outcomes)
            )
            if idle or row.status == RunStatus.PAUSED:
                moves.append(_move(row, RunStatus(row.status), row.losses, row.reason))
                parked.append(row.id)
                continue
            losses = row.losses + 1 if lost and row.status == RunStatus.RUNNING else row.losses
            if node.tally is not None:
                node.tally.lost += losses - row.losses
            if losses >= node.tuning.max_losses:
                moves.append(
                    _move(row, RunStatus.PAUSED, losses, int(PausedReason.WORKER_LOST), _lost(losses, row.deployment))
                )
                continue
            place = dispatch.ready_row(node, env, row.id, row.function_id, losses, line=row.line)
            moves.append(
                _move(row, RunStatus.QUEUED, losses)._replace(priority=place.priority, queued_ms=place.queued_ms)
            )
            queued.append(place)
        commit = Commit(env, touches=tuple(row.id for row in chunk), fences=fence, moves=moves)
        result = await node.lane.apply(commit)
        if result.verdict is not Verdict.APPLIED:
            return
        for row in chunk:
            if row.id not in node.arriving and row.id not in node.residents:
                limits.release(node, row.id)
        for item in queued:
            dispatch.queued(node, item)
        if parked:
            await _woken_meanwhile(node, env, parked)
        for row in chunk:
            node.changed(row.id)


async def _woken_meanwhile(node: Node, env: str, run_ids: list[str]) -> None:
    """What came for parked runs while they changed hands was for nobody: look in a new snapshot (H16)."""
    states = await loading.read(node, env, run_ids)
    for state in states.values():
        if state.run.status == RunStatus.PARKED and any(outcome.number is None for outcome in state.outcomes):
            wake.unowned(node, env, state.run.id, state.run.function_id, state.run.losses)


def _move(row: RunRow, status: RunStatus, losses: int, reason: int = 0, failure: bytes | None = None) -> Move:
    return Move(
        row.env, row.id, row.turn, row.turn, int(status), reason, None, losses, None, "", failure or row.failure
    )


def _lost(losses: int, deployment: str) -> bytes:
    message = f"the run was lost {losses} times with its worker, without progress; a new deployment is tried"
    return failure_json(
        {
            "type": "WorkerLostError",
            "message": message,
            "reason": "WORKER_LOST",
            "details": {"deployments": [deployment]},
        }
    )


def requeue(node: Node, session: Session, resident: Resident, *, lost: bool) -> None:
    """A resident run is taken away from its worker and queued anew."""
    dispatch.forget(node, resident)
    losses = resident.losses + 1 if lost else resident.losses
    if node.tally is not None and lost:
        node.tally.lost += 1
    paused = losses >= node.tuning.max_losses
    status = RunStatus.PAUSED if paused else RunStatus.QUEUED
    reason = int(PausedReason.WORKER_LOST) if paused else 0
    row = dispatch.ready_row(node, resident.env, resident.run_id, resident.function_id, losses, line=resident.run.line)
    move = Move(
        resident.env,
        resident.run_id,
        resident.turn,
        resident.turn,
        int(status),
        reason,
        None,
        losses,
        None,
        "",
        _lost(losses, session.row.deployment) if paused else None,
        0 if paused else row.priority,
        0 if paused else row.queued_ms,
    )
    commit = Commit(resident.env, touches=(resident.run_id,), fences=session.fence, decider=move)
    node.lane.submit(commit, _requeued, (node, session, None if paused else row))


def _requeued(result: CommitResult, argument: tuple[Node, Session, ReadyRow | None]) -> None:
    node, session, row = argument
    if result.verdict is Verdict.FENCED:
        fence.fenced(node, session)
    elif result.verdict is Verdict.APPLIED and row is not None:
        dispatch.queued(node, row)


# -- runs that no longer fit their code ----------------------------------------------------------------------------


def mismatched(node: Node, session: Session, resident: Resident) -> None:
    """A run is paused as nondeterministic: another connected deployment may fit it."""
    log.warning(
        "run %s does not fit deployment %s: paused",
        resident.run_id,
        session.row.deployment,
        extra={"environment": resident.env, "run_id": resident.run_id, "session": session.id},
    )
    if node.cluster is not None:
        node.cluster.tell(Mismatched(resident.env))
    for other in list(node.environment(resident.env).serving.get(resident.function_id, ())):
        if other.row.deployment != session.row.deployment:
            fitting_worker(node, other)


def fitting_worker(node: Node, session: Session) -> None:
    """A worker is connected: paused runs that never met its deployment are tried there."""
    node.spawn(_try_paused(node, session))


async def _try_paused(node: Node, session: Session) -> None:
    env = session.row.env
    for function_id in session.functions:
        before = ""
        while True:
            wanted = RunFilter(function_id=function_id, statuses=(int(RunStatus.PAUSED),), before=before, limit=_PAGE)
            try:
                page = await node.history.list_runs(env, wanted)
            except UnavailableError:
                await asyncio.sleep(0.5)
                continue
            for row in page:
                if row.reason in _MENDED and session.row.deployment not in tried(row.failure):
                    await _try(node, session, row)
            if len(page) < _PAGE:
                break
            before = page[-1].id


async def _try(node: Node, session: Session, row: RunRow) -> None:
    while session.free <= 0 and session.link is not None:  # noqa: ASYNC110 (paused runs come last, one by one)
        await asyncio.sleep(_PLACE_S)
    if session.link is None or row.id in node.arriving or row.id in node.residents:
        return
    if dispatch.holds_back(node.environment(row.env), row.function_id, begun=True):
        return
    dispatch.reserve(node, session)
    node.arriving[row.id] = []
    if not await limits.granted(node, row):
        dispatch.not_taken(node, session, row.env, row.id, row.function_id)
        await asyncio.sleep(_PLACE_S)
        await _try(node, session, row)
        return
    losses = 0 if row.reason == PausedReason.WORKER_LOST else row.losses
    move = Move(
        row.env, row.id, row.turn, row.turn + 1, int(RunStatus.RUNNING), 0, session.id, losses, None, "",
        row.failure,
    )  # fmt: skip
    result = await node.lane.apply(Commit(row.env, touches=(row.id,), fences=session.fence, decider=move))
    if result.verdict is Verdict.APPLIED:
        dispatch.load_soon(node, session, row.env, row.id, row.function_id)
    else:
        dispatch.not_taken(node, session, row.env, row.id, row.function_id)


# -- the sweep -----------------------------------------------------------------------------------------------------


async def sweep(node: Node, *, older_than_ms: int) -> int:
    """Heals what a crash or a lost hint left behind, older than a while; returns how many things it took up.

    Cursors and look-backs come first, so that an event wins over a time-out that fell due meanwhile (H17). Of many
    nodes the first heals what belongs to nobody; each looks through its own inbox.
    """
    closing = set(node.closing)  # whoever closes a session moves its runs; by the end of the read that may be done
    now = node.clock.now_ms()
    found = await node.store.stranded(_PAGE, now - older_than_ms, node.inbox_read)
    count = 0
    if node.cluster is None or node.cluster.rank == 0:
        count += await _heal(node, found, older_than_ms, now)
        held = [row for row in found.held if row.session_id not in closing]
        count += await _move_held(node, held)
    count += _reread(node, found.unseen)
    # A server that lost the lease and does not know it yet may have queued a run, or a hint of another node was lost:
    # the queue looks into the store again.
    look_for_runs(node)
    return count


async def _heal(node: Node, found: Stranded, older_than_ms: int, now: int) -> int:
    count = 0
    for cursor in found.cursors:
        event_ids = cursor.event_ids.split(",")
        events = await node.history.events(cursor.env, event_ids)
        if events and now - events[0].accepted_ms < older_than_ms:
            continue
        count += 1
        await serve.serve_again(node, cursor, events)
    for wait in found.lookbacks:
        if now - wait.opened_ms >= older_than_ms:
            count += 1
            lookback.look_back(node, wait)
    for outcome in found.inbox:
        if now - outcome.ended_ms >= older_than_ms and outcome.run_id not in node.arriving:
            count += 1
            node.spawn(_wake_lost(node, outcome.env, outcome.run_id))
    return count


async def _move_held(node: Node, rows: Sequence[RunRow]) -> int:
    """Runs whose session is over and that nobody moved. With other nodes one of them may be at it just now: those that
    the next sweep finds again are left behind."""
    by_env: dict[str, list[RunRow]] = {}
    before, node.seen_held = node.seen_held, {(row.id, row.turn) for row in rows}
    for row in rows:
        new = node.cluster is not None and (row.id, row.turn) not in before
        if not new and row.id not in node.residents and row.id not in node.arriving:
            by_env.setdefault(row.env, []).append(row)
    for env, held in by_env.items():
        await requeue_rows(node, env, held, lost=True)
    return sum(map(len, by_env.values()))


def look_for_runs(node: Node) -> None:
    """The queue looks into the store for runs of all functions that are served here."""
    for environment in node.environments.values():
        for function_id, serving in environment.serving.items():
            if serving or node.cluster is None:
                node.queue.learn(environment.name, function_id)
        dispatch.pump(node, environment)


async def catch_up(node: Node) -> None:
    """While the other nodes cannot tell what they did, or could not until now, it is read (H30)."""
    look_for_runs(node)
    found = await node.store.stranded(_PAGE, node.clock.now_ms() - _TOLD_MS, node.inbox_read)
    _reread(node, found.unseen)
    for run_id in list(node.run_watchers):
        node.changed(run_id)
    for env in node.environments.values():
        await renew(node, env)


async def renew(node: Node, env: Environment) -> None:
    """Reads the registry anew, if it has changed."""
    matches = await node.store.match(env.name, ())
    if matches.registry_version != env.version:
        await refresh(node, env)


def _reread(node: Node, unseen: Sequence[Unseen]) -> int:
    """The owner looks through its own inbox, a page at a time: what it was not told of is delivered now (H16)."""
    node.inbox_read = unseen[-1] if len(unseen) == _PAGE else FIRST
    missed: dict[str, set[str]] = {}
    for env, run_id, key in unseen:
        resident = node.residents.get(run_id)
        if resident is not None and resident.env == env and not resident.ended and key not in (resident.unseen or ()):
            missed.setdefault(run_id, set()).add(key)
    for run_id, keys in missed.items():
        node.spawn(_tell(node, node.residents[run_id], keys))
    return len(missed)


async def _tell(node: Node, resident: Resident, keys: set[str]) -> None:
    # A command that numbers one of them may be on its way to the store: what is read after it tells.
    await node.lane.apply(Commit(resident.env, touches=(resident.run_id,), fences=resident.session.fence))
    state = (await loading.read(node, resident.env, [resident.run_id])).get(resident.run_id)
    if state is None or node.residents.get(resident.run_id) is not resident:
        return
    for outcome in state.outcomes:
        if outcome.number is None and outcome.key in keys and outcome.key not in (resident.unseen or ()):
            known = {"environment": resident.env, "run_id": resident.run_id, "session": resident.session.id}
            log.warning("run %s was not told of %s: it is now", resident.run_id, outcome.key, extra=known)
            wake.arrived(node, resident.function_id, outcome)


async def _wake_lost(node: Node, env: str, run_id: str) -> None:
    row = await loading.read_run(node, env, run_id)
    if row is not None and row.status == RunStatus.PARKED and row.session_id is None:
        wake.unowned(node, env, run_id, row.function_id, row.losses)
