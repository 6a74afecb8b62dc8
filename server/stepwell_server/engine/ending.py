"""The end of a run: what it closes, what its parent gets, and that its children are cancelled."""

from __future__ import annotations

from collections.abc import Iterable

from stepwell_server.engine import dispatch, fence, limits, wake
from stepwell_server.engine.failures import failure_json, of_child
from stepwell_server.engine.node import Node
from stepwell_server.engine.residents import Resident, Session
from stepwell_server.model.claim import ClaimEnd
from stepwell_server.model.commit import Commit, CommitResult, Verdict
from stepwell_server.model.journal import (
    ASK_KEY,
    CLAIMING,
    GRACE_KEY,
    OutcomeDelete,
    OutcomeRow,
    StepKind,
    WaitDelete,
    WaitRow,
)
from stepwell_server.model.limits import CLAIM_LEFT_MS
from stepwell_server.model.run import End, RunStatus
from stepwell_server.ports.store import RunState

_REASONS = {
    RunStatus.FAILED: "RUN_FAILED",
    RunStatus.CANCELLED: "CANCELLED",
    RunStatus.TIMED_OUT: "TIMED_OUT",
}


def parent_outcome(
    resident: Resident, status: RunStatus, output: bytes | None, encoding: str, failure: bytes | None, now: int
) -> OutcomeRow | None:
    """What the run that invoked this one gets: the output, or a failure that names this run."""
    if resident.run.parent_id is None or resident.run.parent_key is None:
        return None
    return child_outcome(
        resident.env,
        resident.run.parent_id,
        resident.run.parent_key,
        resident.run_id,
        resident.function_id,
        resident.run.created_ms,
        status,
        output,
        encoding,
        failure,
        now,
    )


def child_outcome(
    env: str,
    parent_id: str,
    parent_key: str,
    run_id: str,
    function_id: str,
    created_ms: int,
    status: RunStatus,
    output: bytes | None,
    encoding: str,
    failure: bytes | None,
    now: int,
) -> OutcomeRow:
    """The outcome of an invoke. A run that was skipped says itself why."""
    told = of_child(failure, _REASONS[status]) if status in _REASONS else failure
    return OutcomeRow(
        env,
        parent_id,
        parent_key,
        None,
        int(StepKind.INVOKE),
        function_id,
        output if status is RunStatus.COMPLETED else None,
        encoding,
        None if status is RunStatus.COMPLETED else told,
        1,
        created_ms,
        now,
        b"",
        None,
        run_id,
    )


def unwound(request: OutcomeRow) -> tuple[RunStatus, bytes]:
    """What a run ends with whose end was asked for, or whose time was over."""
    status = RunStatus.TIMED_OUT if request.kind == StepKind.TIMEOUT else RunStatus.CANCELLED
    return status, request.failure or b"{}"


def cancelled(reason: str) -> bytes:
    """The failure of a run whose end was asked for."""
    message = f"the run was cancelled: {reason}" if reason else "the run was cancelled"
    return failure_json({"type": "RunCancelledError", "message": message, "reason": "CANCELLED", "non_retriable": True})


def cancel_order(wait: WaitRow, now: int, reason: str) -> WaitRow | None:
    """What has a child cancelled that its parent no longer waits for: a wait of the child that is due at once.

    It is part of the commit that closes the parent's wait, so that no crash forgets the child (H16).
    """
    if wait.child_id is None or wait.detached:
        return None
    kind = int(StepKind.CANCEL)
    return WaitRow(
        wait.env, wait.child_id, ASK_KEY, kind, "", None, "", now, None, False, 1, cancelled(reason), b"", now, None,
        wait.target,
    )  # fmt: skip


def order_cancels(commit: Commit, waits: Iterable[WaitRow], now: int, reason: str) -> None:
    """Adds the orders for the children among some waits to the commit that closes the waits."""
    orders = [order for wait in waits if (order := cancel_order(wait, now, reason)) is not None]
    if orders:
        commit.waits = [*commit.waits, *orders]
        commit.touches = (*commit.touches, *(f"{order.run_id}/{ASK_KEY}" for order in orders))


def let_go(commit: Commit, waits: Iterable[WaitRow], now: int) -> None:
    """Adds to the commit that ends a run that it lets go of the claims which it holds, or gathers for."""
    claims = [wait for wait in waits if wait.kind in CLAIMING]
    if claims:
        commit.claim_ends = [ClaimEnd(wait.env, wait.target, wait.run_id, now + CLAIM_LEFT_MS) for wait in claims]
        commit.touches = (*commit.touches, *(f"claim:{wait.target}" for wait in claims))


def freed(node: Node, commit: Commit) -> None:
    """Claims that a commit let go of are somebody else's now."""
    for claim in commit.claim_ends:
        node.gates.freed(claim.env, claim.key)


def close_open(resident: Resident, commit: Commit) -> None:
    """The end of a run closes what is open, and orders that its children be cancelled unless they are detached."""
    env, run_id = resident.env, resident.run_id
    keys = dict.fromkeys(resident.open or ())
    if resident.cancel is not None:
        keys[GRACE_KEY] = None  # it came with the request, whether the run was in memory then or not
    if keys:
        open_ = (resident.open or {}).values()
        order_cancels(commit, open_, commit.ends[0].ended_ms, "its parent has ended")
        let_go(commit, open_, commit.ends[0].ended_ms)
        commit.wait_deletes = [*commit.wait_deletes, *(WaitDelete(env, run_id, key) for key in keys)]
        commit.touches = (*commit.touches, *(f"{run_id}/{key}" for key in keys))
    rows = list((resident.unseen or {}).values())
    if rows:
        commit.touches = (*commit.touches, *(f"{run_id}/{row.key}" for row in rows))
        commit.outcome_deletes = [*commit.outcome_deletes, *(OutcomeDelete(env, run_id, row.key) for row in rows)]


# -- the server ends a run -----------------------------------------------------------------------------------------


def fail_now(node: Node, session: Session, resident: Resident, reason: str, message: str, now: int) -> None:
    """The server ends a run that cannot go on."""
    status = RunStatus.FAILED
    failure = failure_json({"type": "LimitError", "message": message, "reason": reason, "non_retriable": True})
    end_now(node, session, resident, status, failure, now)


def end_now(node: Node, session: Session, resident: Resident, status: RunStatus, failure: bytes, now: int) -> None:
    """The server ends a resident run, whatever its worker does."""
    session.evict(resident)
    env, run_id = resident.env, resident.run_id
    commit = Commit(env, touches=(run_id,), fences=session.fence)
    commit.ends = (End(env, run_id, resident.turn, int(status), now, None, "", failure),)
    close_open(resident, commit)
    parent = parent_outcome(resident, status, None, "", failure, now)
    if parent is not None:
        commit.resolves = (parent,)
        commit.touches = (*commit.touches, f"{parent.run_id}/{parent.key}")
    resident.ended = True
    node.lane.submit(commit, _ended_now, (node, session, resident, parent, commit))


def _ended_now(result: CommitResult, argument: tuple[Node, Session, Resident, OutcomeRow | None, Commit]) -> None:
    node, session, resident, parent, commit = argument
    if result.verdict is Verdict.APPLIED:
        dispatch.ring(node, commit.waits)
        freed(node, commit)
        ended(node, resident, commit.ends[0], parent)
    elif result.verdict is Verdict.FENCED:
        fence.fenced(node, session)


def ended(node: Node, resident: Resident, end: End, parent: OutcomeRow | None) -> None:
    """A run has ended: its place, its parent, and who watches it."""
    if node.resting.kept:
        limits.ended(node, resident.run_id)
    dispatch.forget(node, resident)
    if parent is not None:
        wake.child_ended(node, parent)
    node.has_ended(resident.run, end)


async def end_unowned(node: Node, state: RunState, status: RunStatus, failure: bytes) -> bool:
    """Ends a run that no session holds; False where one does (H16), or its turn was not the expected one any more."""
    run = state.run
    if run.session_id is not None:
        return False
    now = node.clock.now_ms()
    unseen = [row.key for row in state.outcomes if row.number is None]
    end = End(run.env, run.id, run.turn, int(status), now, None, "", failure)
    commit = Commit(
        run.env,
        touches=(run.id, *(f"{run.id}/{key}" for key in {*(wait.key for wait in state.waits), *unseen})),
        decider=end,
        wait_deletes=[WaitDelete(run.env, run.id, wait.key) for wait in state.waits],
        outcome_deletes=[OutcomeDelete(run.env, run.id, key) for key in unseen],
    )
    order_cancels(commit, state.waits, now, "its parent has ended")
    let_go(commit, state.waits, now)
    parent: OutcomeRow | None = None
    if run.parent_id is not None and run.parent_key is not None:
        parent = child_outcome(
            run.env, run.parent_id, run.parent_key, run.id, run.function_id, run.created_ms, status, None, "", failure,
            now,
        )  # fmt: skip
        commit.resolves = (parent,)
        commit.touches = (*commit.touches, f"{parent.run_id}/{parent.key}")
    result = await node.lane.apply(commit)
    if result.verdict is not Verdict.APPLIED:
        return False
    if node.resting.kept:
        limits.ended(node, run.id)
    if parent is not None:
        wake.child_ended(node, parent)
    dispatch.ring(node, commit.waits)
    freed(node, commit)
    node.has_ended(run, end)
    return True
