"""A run has to end: somebody asks for it, its parent no longer wants it, or its time is over.

One that never started, or is paused, ends at once. Any other is told to unwind, and the server ends it when the grace
is over.
"""

from __future__ import annotations

from stepwell_server.engine import dispatch, ending, fence, loading, query, wake
from stepwell_server.engine.node import Node
from stepwell_server.model.commit import Commit, Verdict
from stepwell_server.model.errors import InvalidError, NotFoundError, UnavailableError
from stepwell_server.model.journal import (
    CANCEL_KEY,
    GRACE_KEY,
    START_KEY,
    OutcomeDelete,
    OutcomeRow,
    StepKind,
    WaitDelete,
    WaitRow,
)
from stepwell_server.model.run import LIVE, RunStatus
from stepwell_server.ports.store import RunState

_LIVE = frozenset(int(status) for status in LIVE)
_TRIES = 5


async def cancel(node: Node, env_name: str, run_id: str, reason: str) -> None:
    """Asks a run to end: at once where it never started or is paused, else it is unwound within the grace.

    Raises NotFoundError, UnavailableError. A run that has ended stays as it is.
    """
    await _cancel(node, env_name, run_id, ending.cancelled(reason))


async def _cancel(node: Node, env_name: str, run_id: str, failure: bytes) -> None:
    for _ in range(_TRIES):
        state = (await node.store.load(env_name, [run_id])).get(run_id)
        if state is None:
            raise NotFoundError("RUN_NOT_FOUND", f"there is no run {run_id[:64]!r}")
        if state.run.status not in _LIVE:
            return
        if not (_never_started(state) or state.run.status == RunStatus.PAUSED):
            await _request(node, state, failure)
            return
        if await ending.end_unowned(node, state, RunStatus.CANCELLED, failure):
            return
    raise UnavailableError("BUSY", "the run keeps changing; try again", retry_ms=200)


async def asked(node: Node, wait: WaitRow) -> None:
    """A run whose parent no longer wants it is cancelled; the order goes when that is durable."""
    try:
        await _cancel(
            node, wait.env, wait.run_id, wait.failure or ending.cancelled("its parent no longer waits for it")
        )
    except NotFoundError:
        pass
    except UnavailableError:
        _look_again(node)
        return
    await _close(node, wait)


async def _request(node: Node, state: RunState, failure: bytes) -> None:
    """Records the request and the forced end after the grace; then tells the worker."""
    run = state.run
    now = node.clock.now_ms()
    request = OutcomeRow(
        run.env, run.id, CANCEL_KEY, None, int(StepKind.CANCEL), "", None, "", failure, 1, now, now, b"", None, None
    )
    commit = Commit(
        run.env,
        touches=(f"{run.id}/{CANCEL_KEY}",),
        outcomes=(request,),
        waits=(_grace(node, request, run.function_id),),
        wait_deletes=[WaitDelete(run.env, run.id, wait.key) for wait in state.waits if wait.key == CANCEL_KEY],
    )
    ending.order_cancels(commit, state.waits, now, "its parent was cancelled")
    result = await node.lane.apply(commit)
    if result.verdict is Verdict.FENCED:
        raise fence.taken_over()
    if result.verdict is not Verdict.APPLIED:
        raise InvalidError("STORE_REFUSED", f"the store refused: {result.existing}")
    dispatch.ring(node, commit.waits)
    resident = node.residents.get(run.id)
    if resident is not None:
        wake.unwind(node, resident, request)
    elif run.id in node.arriving:
        node.arriving[run.id].append(wake.later(node, request))
    elif node.cluster is not None:
        node.cluster.strayed(run.env, run.id, CANCEL_KEY)
    else:
        wake.unowned(node, run.env, run.id, run.function_id)
    node.changed(run.id)


async def timed_out(node: Node, wait: WaitRow) -> None:
    """A time-out of a function has fired for a run. Whatever ended the run, or began to end it, before wins."""
    for _ in range(_TRIES):
        state = (await loading.read(node, wait.env, [wait.run_id])).get(wait.run_id)
        if state is None or state.run.status not in _LIVE or wait not in state.waits:
            break
        if wait.key == START_KEY and not _never_started(state):
            break
        if wait.key == START_KEY or state.run.status == RunStatus.PAUSED:
            if await ending.end_unowned(node, state, RunStatus.TIMED_OUT, wait.failure or b"{}"):
                return
        elif await _unwind_timed_out(node, state, wait):
            return
    else:
        _look_again(node)  # the run keeps changing
        return
    await _close(node, wait)


async def _unwind_timed_out(node: Node, state: RunState, wait: WaitRow) -> bool:
    """The time-out becomes the outcome $cancel, if its wait is still there."""
    now = node.clock.now_ms()
    outcome = wake.outcome_of(wait, now, failure=wait.failure)
    orders = [ending.cancel_order(child, now, "its parent timed out") for child in state.waits]
    opened = [_grace(node, outcome, wait.function_id), *(order for order in orders if order is not None)]
    settled = node.loop.create_future()
    wake.resolve(node, wait.function_id, outcome, settled.set_result, opened)
    won = await settled
    if won:
        dispatch.ring(node, opened)
    return won


def _never_started(state: RunState) -> bool:
    return state.run.turn == 0 and state.run.status in (RunStatus.QUEUED, RunStatus.PARKED)


def _grace(node: Node, request: OutcomeRow, function_id: str) -> WaitRow:
    """The forced end."""
    now = request.ended_ms
    due, kind = now + node.tuning.cancel_grace_ms, int(StepKind.GRACE)
    return WaitRow(
        request.env, request.run_id, GRACE_KEY, kind, "", None, "", due, None, False, 1, request.failure, b"", now,
        None, function_id,
    )  # fmt: skip


async def grace_over(node: Node, wait: WaitRow) -> None:
    """A run did not unwind in time: the server ends it."""
    resident = node.residents.get(wait.run_id)
    request = resident.cancel if resident is not None else None
    if request is None:
        state = (await loading.read(node, wait.env, [wait.run_id])).get(wait.run_id)
        request = query.unwinding(state) if state is not None else None
        if state is None or request is None or state.run.status not in _LIVE:
            # A run that ended just before the request was durable has never seen it.
            await _close(node, wait, OutcomeDelete(wait.env, wait.run_id, CANCEL_KEY))
            return
        resident = node.residents.get(wait.run_id)
        if resident is None:
            taken = wait.run_id in node.arriving
            if taken or not await ending.end_unowned(node, state, *ending.unwound(request)):
                _look_again(node)  # it is just changing hands
                if node.cluster is not None:
                    node.cluster.strayed(wait.env, wait.run_id, CANCEL_KEY)  # or another node holds it, and ends it
            return
    if resident is None or resident.ended:
        _look_again(node)  # its end is on its way to the store
        return
    resident.open = {**(resident.open or {}), wait.key: wait}  # its end closes the grace too
    status, failure = ending.unwound(request)
    ending.end_now(node, resident.session, resident, status, failure, node.clock.now_ms())


def _look_again(node: Node) -> None:
    """A wait that could not be settled now stays due."""
    node.wake_timers(node.clock.now_ms() + 500)


async def _close(node: Node, wait: WaitRow, *unseen: OutcomeDelete) -> None:
    grave = WaitDelete(wait.env, wait.run_id, wait.key)
    touches = tuple(f"{row.run_id}/{row.key}" for row in (grave, *unseen))
    await node.lane.apply(Commit(wait.env, touches=touches, wait_deletes=(grave,), outcome_deletes=unseen))
