"""What follows when the commands of a frame are durable, or cannot be."""

from __future__ import annotations

from collections.abc import Sequence

from stepwell_server.engine import admission, dispatch, ending, fence, ingest, lookback, recover, register, serve, wake
from stepwell_server.engine.draft import Draft
from stepwell_server.engine.node import Node
from stepwell_server.engine.residents import Resident, Session, Tree
from stepwell_server.model.commit import Commit, CommitResult, Verdict
from stepwell_server.model.limits import LIMITS


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
    ending.fail_now(node, session, draft.resident, "JOURNAL_FULL", message, now)


def all_committed(result: CommitResult, argument: tuple[Node, Session, Sequence[Draft]]) -> None:
    """The plain drafts of a frame are durable, or refused by the fence; if by the store, each is tried alone."""
    node, session, drafts = argument
    if result.verdict is Verdict.APPLIED:
        for draft in drafts:
            _durable(node, session, draft)
    elif result.verdict is Verdict.FENCED:
        fence.fenced(node, session)
    else:
        for draft in drafts:
            commit = draft.commit(node, node.environment(draft.resident.env), session)
            node.lane.submit(commit, committed, (node, session, draft, commit))


def committed(result: CommitResult, argument: tuple[Node, Session, Draft, Commit]) -> None:
    """The commands of one run are durable, or refused by the fence or the store."""
    node, session, draft, commit = argument
    resident = draft.resident
    applied = result.verdict is Verdict.APPLIED
    if draft.events:
        ingest.settled(node, node.environment(resident.env), commit, applied)
    if applied:
        if commit.shapes:
            register.shapes_kept(node.environment(resident.env), commit.shapes)
        _follow_ups(node, draft, commit)
        _durable(node, session, draft)
        return
    _give_back(node, draft)
    if result.verdict is Verdict.FENCED:
        fence.fenced(node, session)
    else:
        ending.fail_now(
            node, session, resident, "STORE_REFUSED", f"the store refused: {result.existing}", node.clock.now_ms()
        )


def _durable(node: Node, session: Session, draft: Draft) -> None:
    """Acknowledges, and lets go of a run that has ended or left."""
    resident = draft.resident
    link = session.link
    if resident.losses and draft.progress:
        resident.losses = 0
    if draft.named:
        resident.durable = draft.number
        if link is not None and not (draft.end is None and resident.ended):
            link.ack(resident.run_id, resident.turn, draft.number)
    if draft.end is not None:
        session.note_end(resident, draft.number)
        ending.ended(node, resident, draft.end, draft.parent)
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
    if draft.answers is not None:
        for outcome in draft.answers:
            assert resident.pending is not None, "an answer is expected until it is durable"
            resident.pending.discard(outcome.key)
            wake.arrived(node, resident.function_id, outcome)
    if session.suspect == resident.run_id and draft.outcomes:
        session.suspect = None
        dispatch.freed(node, session)
    node.changed(resident.run_id)


def _follow_ups(node: Node, draft: Draft, commit: Commit) -> None:
    """Timers, look-backs, children and events that a commit brought."""
    if commit.claim_ends:
        ending.freed(node, commit)
    if commit.waits:
        dispatch.ring(node, commit.waits)
        for wait in draft.waits or ():
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
