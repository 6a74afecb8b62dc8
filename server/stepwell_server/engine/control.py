"""What people and parents ask of runs: start one, end one."""

from __future__ import annotations

import asyncio
from hashlib import blake2b

from stepwell_server.engine import admission, dispatch, ingest, query, settle, wake
from stepwell_server.engine.failures import failure_json
from stepwell_server.engine.node import Node
from stepwell_server.engine.register import refresh
from stepwell_server.engine.residents import Resident
from stepwell_server.model import ids
from stepwell_server.model.commit import Commit, CommitResult, Verdict
from stepwell_server.model.errors import ExistsError, InvalidError, NotFoundError, UnavailableError
from stepwell_server.model.event import DedupRow
from stepwell_server.model.journal import CANCEL_KEY, GRACE_KEY, OutcomeRow, StepKind, WaitDelete, WaitRow
from stepwell_server.model.limits import LIMITS
from stepwell_server.model.run import LIVE, End, RunRow, RunStatus
from stepwell_server.ports.store import RunState

_LIVE = frozenset(int(status) for status in LIVE)


async def invoke(
    node: Node, env_name: str, function_id: str, data: bytes, encoding: str, request_id: str, metadata: bytes
) -> str:
    """Starts a run of a function; answers its id once it is durable. The same request id is the same run.

    Raises NotFoundError, InvalidError, ExistsError (the request id was used for something else), UnavailableError.
    """
    env = node.environment(env_name)
    if not env.loaded:
        await refresh(node, env)
    function = env.triggers.known.get(function_id)
    if function is None:
        await refresh(node, env)
        function = env.triggers.known.get(function_id)
    if function is None:
        raise NotFoundError("FUNCTION_NOT_FOUND", f"no app has registered function {function_id[:256]!r}")
    ingest.check_text(request_id, "request_id", LIMITS.key_bytes, empty=True)
    if len(data) > LIMITS.result_bytes:
        raise InvalidError(
            "TOO_LARGE", f"the input has more than {LIMITS.result_bytes} bytes", fields=(("input", "too large"),)
        )
    if len(metadata) > LIMITS.metadata_bytes:
        raise InvalidError(
            "TOO_LARGE", f"metadata is larger than {LIMITS.metadata_bytes} bytes", fields=(("metadata", "too large"),)
        )
    ingest.check_text(encoding, "input.encoding", LIMITS.key_bytes, empty=True)
    ingest.check_json(data, encoding, "input")
    now = node.clock.now_ms()
    run_id = ids.run_id_for_request(now, node.entropy(10))
    digest = blake2b(function_id.encode() + b"\0" + data, digest_size=8).hexdigest()
    run = RunRow(
        env_name, run_id, function_id, function.app, int(RunStatus.QUEUED), 0, 0, None, None, None, None, False, 0,
        "", 0, 0, 0, now, None, None, data, encoding, None, "", None, metadata,
    )  # fmt: skip
    start = admission.begin(node, env, function_id, run, None)
    commit = Commit(env_name, runs=(start.run,), size=len(data))
    if request_id:
        commit.touches = (f"dedup:i:{request_id}",)
        commit.decider = DedupRow(env_name, "i:" + request_id, f"{digest}:{run_id}", now + LIMITS.dedup_ms)
    result = await node.lane.apply(commit)
    admission.started(node, (start,), result.verdict is Verdict.APPLIED)
    if result.verdict is Verdict.LOST:
        theirs, _, existing = result.existing.partition(":")
        if theirs != digest:
            raise ExistsError("REQUEST_ID_REUSED", "this request id was used for another function or input")
        return existing
    if result.verdict is not Verdict.APPLIED:
        raise InvalidError("STORE_REFUSED", f"the store refused: {result.existing}")
    return run_id


async def cancel(node: Node, env_name: str, run_id: str, reason: str) -> None:
    """Asks a run to end: at once where it never started or is paused, else it is unwound within the grace.

    Raises NotFoundError. A run that has ended stays as it is.
    """
    ingest.check_text(reason, "reason", LIMITS.metadata_bytes, empty=True)
    query.check_run_id(run_id)
    for _ in range(5):
        state = (await node.store.load(env_name, [run_id])).get(run_id)
        if state is None:
            raise NotFoundError("RUN_NOT_FOUND", f"there is no run {run_id[:64]!r}")
        if state.run.status not in _LIVE:
            return
        never = state.run.status == RunStatus.QUEUED and state.run.turn == 0
        if not never and state.run.status != RunStatus.PAUSED:
            await _request(node, state, reason)
            return
        if await end_unowned(node, state, RunStatus.CANCELLED, _cancelled(reason)):
            return
    raise UnavailableError("BUSY", "the run keeps changing; try again", retry_ms=200)


def cancel_soon(node: Node, env: str, run_id: str, reason: str) -> None:
    """Cancels a child in the background."""
    node.spawn(_cancel_child(node, env, run_id, reason))


async def _cancel_child(node: Node, env: str, run_id: str, reason: str) -> None:
    while not node.stopping:
        try:
            await cancel(node, env, run_id, reason)
        except NotFoundError:
            return
        except UnavailableError:
            await asyncio.sleep(0.5)
        else:
            return


def _cancelled(reason: str) -> bytes:
    message = f"the run was cancelled: {reason}" if reason else "the run was cancelled"
    return failure_json({"type": "RunCancelledError", "message": message, "reason": "CANCELLED", "non_retriable": True})


async def end_unowned(node: Node, state: RunState, status: RunStatus, failure: bytes) -> bool:
    """Ends a run that no session holds; False where its turn was not the expected one any more."""
    run = state.run
    now = node.clock.now_ms()
    commit = Commit(
        run.env,
        touches=(run.id, *(f"{run.id}/{wait.key}" for wait in state.waits)),
        decider=End(run.env, run.id, run.turn, int(status), now, None, "", failure),
        wait_deletes=[WaitDelete(run.env, run.id, wait.key) for wait in state.waits],
    )
    parent: OutcomeRow | None = None
    if run.parent_id is not None and run.parent_key is not None:
        parent = settle.child_outcome(
            run.env, run.parent_id, run.parent_key, run.id, run.function_id, run.created_ms, status, None, "", failure,
            now,
        )  # fmt: skip
        commit.resolves = (parent,)
        commit.touches = (*commit.touches, f"{parent.run_id}/{parent.key}")
    result = await node.lane.apply(commit)
    if result.verdict is not Verdict.APPLIED:
        return False
    if parent is not None:
        wake.child_ended(node, parent)
    for wait in state.waits:
        if wait.child_id is not None and not wait.detached:
            cancel_soon(node, run.env, wait.child_id, "its parent has ended")
    node.changed(run.id)
    return True


async def _request(node: Node, state: RunState, reason: str) -> None:
    """Records the request and the forced end after the grace; then tells the worker."""
    run = state.run
    now = node.clock.now_ms()
    due = now + node.tuning.cancel_grace_ms
    failure = _cancelled(reason)
    request = OutcomeRow(
        run.env, run.id, CANCEL_KEY, None, int(StepKind.CANCEL), "", None, "", failure, 1, now, now, b"", None, None
    )
    grace = WaitRow(
        run.env, run.id, GRACE_KEY, int(StepKind.GRACE), "", None, "", due, None, False, 1, failure, b"", now, None,
        run.function_id,
    )  # fmt: skip
    commit = Commit(run.env, touches=(f"{run.id}/{CANCEL_KEY}",), outcomes=(request,), waits=(grace,))
    result = await node.lane.apply(commit)
    if result.verdict is not Verdict.APPLIED:
        raise InvalidError("STORE_REFUSED", f"the store refused: {result.existing}")
    node.wake_timers(due)
    for wait in state.waits:
        if wait.child_id is not None and not wait.detached:
            cancel_soon(node, run.env, wait.child_id, "its parent was cancelled")
    resident = node.residents.get(run.id)
    if resident is not None:
        unwind(node, resident, request)
    elif run.id not in node.arriving:
        wake.unowned(node, run.env, run.id, run.function_id)
    else:
        node.arriving[run.id].append(request)
    node.changed(run.id)


def unwind(node: Node, resident: Resident, request: OutcomeRow) -> None:
    """A resident run is told to unwind; it needs no free place for that."""
    if resident.cancelled:
        return
    resident.cancelled = True
    resident.cancel_failure = request.failure
    resident.see(request)
    session = resident.session
    held, resident.held = resident.held, None
    dispatch.wake(session, resident)
    if session.link is not None:
        for outcome in held or ():
            resident.received += 1
            session.link.outcome(resident.turn, outcome)
        session.link.cancel(resident.run_id, resident.turn)


async def grace_over(node: Node, wait: WaitRow) -> None:
    """A cancelled run did not unwind in time: the server ends it."""
    resident = node.residents.get(wait.run_id)
    failure = wait.failure or _cancelled("")
    if resident is not None:
        if not resident.ended:
            settle.end_now(node, resident.session, resident, RunStatus.CANCELLED, failure, node.clock.now_ms())
        return
    state = (await dispatch.read(node, wait.env, [wait.run_id])).get(wait.run_id)
    if state is not None and state.run.status in _LIVE:
        await end_unowned(node, state, RunStatus.CANCELLED, failure)
        return
    grave = WaitDelete(wait.env, wait.run_id, wait.key)
    commit = Commit(wait.env, touches=(f"{wait.run_id}/{wait.key}",), wait_deletes=(grave,))
    node.lane.submit(commit, _closed)


def _closed(result: CommitResult, argument: object) -> None:
    """The wait is gone."""
