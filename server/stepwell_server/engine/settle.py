"""What follows when the commands of a frame are durable, and what the end of a run closes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepwell_server.engine import admission, control, dispatch, ingest, lookback, recover, serve, wake
from stepwell_server.engine.failures import failure_json, of_child
from stepwell_server.engine.node import Node
from stepwell_server.engine.residents import Resident, Session, Tree
from stepwell_server.model.commit import Commit, CommitResult, Verdict
from stepwell_server.model.journal import OutcomeDelete, OutcomeRow, StepKind, WaitDelete
from stepwell_server.model.limits import LIMITS
from stepwell_server.model.run import End, RunStatus

if TYPE_CHECKING:
    from stepwell_server.engine.advance import Draft


_REASONS = {RunStatus.FAILED: "RUN_FAILED", RunStatus.CANCELLED: "CANCELLED", RunStatus.TIMED_OUT: "TIMEOUT"}


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
    """The outcome of an invoke."""
    return OutcomeRow(
        env,
        parent_id,
        parent_key,
        None,
        int(StepKind.INVOKE),
        function_id,
        output if status is RunStatus.COMPLETED else None,
        encoding,
        None if status is RunStatus.COMPLETED else of_child(failure, _REASONS[status]),
        1,
        created_ms,
        now,
        b"",
        None,
        run_id,
    )


def close_open(resident: Resident, commit: Commit) -> None:
    """The end of a run closes what is open; children that are not detached are cancelled after the commit."""
    env, run_id = resident.env, resident.run_id
    if resident.open:
        commit.wait_deletes = [*commit.wait_deletes, *(WaitDelete(env, run_id, key) for key in resident.open)]
        commit.touches = (*commit.touches, *(f"{run_id}/{key}" for key in resident.open))
    rows = resident.undelivered()
    if rows:
        commit.touches = (*commit.touches, *(f"{run_id}/{row.key}" for row in rows))
        commit.outcome_deletes = [*commit.outcome_deletes, *(OutcomeDelete(env, run_id, row.key) for row in rows)]


def parks(resident: Resident, tree: Tree, received: int) -> bool:
    """Whether a park holds: nothing that touches its tree is on its way to the worker (H16)."""
    if received >= resident.received:
        return True
    return not (tree.all_keys() & {key.partition("#")[0] for key in resident.unseen or ()})


def parked(node: Node, resident: Resident, tree: Tree) -> None:
    """The run gives up its place."""
    resident.tree = tree
    dispatch.park(node, resident)


def undo(node: Node, session: Session, draft: Draft) -> None:
    """A frame broke the protocol for a run: nothing of it is written; the run goes elsewhere, and that is counted."""
    _give_back(node, draft)
    resident = draft.resident
    session.evict(resident)
    recover.requeue(node, session, resident, lost=True)


def _give_back(node: Node, draft: Draft) -> None:
    for starts in (draft.children, draft.accepted):
        if starts:
            admission.started(node, starts, False)


def journal_full(node: Node, session: Session, draft: Draft, now: int) -> None:
    """The run has more steps or bytes than a journal may hold: it fails, and says so."""
    _give_back(node, draft)
    message = f"a journal holds at most {LIMITS.journal_steps} steps and {LIMITS.journal_bytes} bytes"
    fail_now(node, session, draft.resident, "JOURNAL_FULL", message, now)


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
    node.lane.submit(commit, _ended_now, (node, session, resident, parent, commit.ends[0]))


def _ended_now(result: CommitResult, argument: tuple[Node, Session, Resident, OutcomeRow | None, End]) -> None:
    node, session, resident, parent, end = argument
    if result.verdict is Verdict.APPLIED:
        _ended(node, resident, end, parent)
    elif result.verdict is Verdict.FENCED:
        recover.fenced(node, session)


def committed(result: CommitResult, argument: tuple[Node, Session, Draft, int, Commit]) -> None:
    """The commands of one run are durable, or refused by the fence or the store."""
    node, session, draft, number, commit = argument
    resident = draft.resident
    if draft.events:
        ingest.unmarked(node.environment(resident.env), commit)
    if result.verdict is not Verdict.APPLIED:
        _give_back(node, draft)
        if result.verdict is Verdict.FENCED:
            recover.fenced(node, session)
        else:
            fail_now(
                node, session, resident, "STORE_REFUSED", f"the store refused: {result.existing}", node.clock.now_ms()
            )
        return
    link = session.link
    if draft.named:
        resident.durable = number
        if link is not None and not (draft.end is None and resident.ended):
            link.ack(resident.run_id, resident.turn, number)
    if draft.end is not None:
        session.note_end(resident, number)
        _follow_ups(node, draft)
        _ended(node, resident, draft.end, draft.parent)
        return
    if draft.moves is not None:
        recover.mismatched(node, session, resident)
    elif draft.released and resident.ended:
        if draft.left:
            session.note_end(resident, draft.left)
            if link is not None:
                link.ack(resident.run_id, resident.turn, draft.left)
        if draft.place is not None:
            dispatch.queued(node, draft.place)
        else:
            wake.released(node, resident)
    _follow_ups(node, draft)
    if draft.answers is not None:
        for outcome in draft.answers:
            wake.arrived(node, resident.function_id, outcome)
    if session.suspect == resident.run_id and draft.outcomes:
        session.suspect = None
        dispatch.freed(node, session)
    node.changed(resident.run_id)


def _follow_ups(node: Node, draft: Draft) -> None:
    """Timers, look-backs, children and events that a commit brought."""
    resident = draft.resident
    if draft.waits:
        for wait in draft.waits:
            if wait.due_ms is not None:
                node.wake_timers(wait.due_ms)
            if wait.after_event is not None:
                lookback.look_back(node, wait)
    if draft.children:
        admission.started(node, draft.children, True)
    if draft.events:
        admission.started(node, draft.accepted or [], True)
        assert draft.batch is not None, "events come with their batch"
        serve.accepted(node, draft.batch)
        for watcher in tuple(node.event_watchers):
            for row, _ in draft.events:
                watcher(row)
    if draft.cancels:
        for child_id in draft.cancels:
            control.cancel_soon(node, resident.env, child_id, "its parent no longer waits for it")


def _ended(node: Node, resident: Resident, end: End, parent: OutcomeRow | None) -> None:
    """A run has ended: its place, its parent, its children, and who watches it."""
    dispatch.forget(node, resident)
    if parent is not None:
        wake.child_ended(node, parent)
    for wait in (resident.open or {}).values():
        if wait.child_id is not None and not wait.detached:
            control.cancel_soon(node, resident.env, wait.child_id, "its parent has ended")
    node.has_ended(resident.run, end)
