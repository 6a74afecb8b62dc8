"""What a Commit does to the tables: fences, then the decider, then the rest."""

from __future__ import annotations

from stepwell_server.adapters.memory.tables import Tables
from stepwell_server.model.claim import ClaimEnd, ClaimRow
from stepwell_server.model.commit import APPLIED, FENCED, LOST, Commit, CommitResult, Decider, Verdict
from stepwell_server.model.event import DedupRow
from stepwell_server.model.journal import OutcomeRow
from stepwell_server.model.limits import LIMITS
from stepwell_server.model.run import End, Enqueue, Move, PausedReason, Reline, RunRow, RunStatus, Take
from stepwell_server.model.session import Fence, LeaseWrite, SessionWrite


def decide(tables: Tables, commit: Commit) -> CommitResult:
    """Applies a Commit whole, or nothing of it."""
    if not all(holds(tables, fence) for fence in commit.fences):
        return FENCED
    if commit.decider is not None:
        result = _wins(tables, commit.decider)
        if result.verdict is not Verdict.APPLIED:
            return result
    _follow(tables, commit)
    return APPLIED


def moved(run: RunRow, move: Move) -> RunRow:
    """The row as the Move would leave it."""
    return run._replace(
        turn=move.turn,
        status=move.status,
        reason=move.reason,
        session_id=move.session_id,
        losses=move.losses,
        priority=move.priority,
        queued_ms=move.queued_ms,
        started_ms=move.started_ms if run.started_ms is None else run.started_ms,
        deployment=run.deployment or move.deployment,
        failure=move.failure,
    )


def taken(run: RunRow, take: Take) -> RunRow:
    """The row as the Take leaves it."""
    return run._replace(
        turn=run.turn + 1,
        status=int(RunStatus.RUNNING),
        session_id=take.session_id,
        started_ms=take.started_ms if run.started_ms is None else run.started_ms,
        deployment=run.deployment or take.deployment,
    )


def ended(run: RunRow, end: End) -> RunRow:
    """The row as the End would leave it."""
    return run._replace(
        status=int(end.status),
        reason=int(PausedReason.NONE),
        ended_ms=end.ended_ms,
        output=end.output,
        output_encoding=end.output_encoding,
        failure=end.failure,
    )


def same_outcome(ours: OutcomeRow, there: OutcomeRow) -> bool:
    """Whether a row there is our own earlier insert."""
    return (ours.kind, ours.output, ours.failure, ours.event_id, ours.attempt) == (
        there.kind,
        there.output,
        there.failure,
        there.event_id,
        there.attempt,
    )


def holds(tables: Tables, fence: Fence) -> bool:
    """Whether the session is open in this epoch."""
    session = tables.session.get((fence.env, fence.session_id))
    return session is not None and session.closed_ms is None and session.epoch == fence.epoch


def _wins(tables: Tables, decider: Decider) -> CommitResult:
    match decider:
        case DedupRow():
            return _dedup_wins(tables, decider)
        case Move():
            return _verdict(_move_wins(tables, decider))
        case Take():
            return _verdict(_take_wins(tables, decider))
        case End():
            return _verdict(_end_wins(tables, decider))
        case OutcomeRow():
            return _verdict(_outcome_wins(tables, decider))
        case ClaimRow():
            return _verdict(_claim_wins(tables, decider))
        case SessionWrite():
            return _verdict(_session_wins(tables, decider))
        case LeaseWrite():
            return _verdict(_lease_wins(tables, decider))


def _verdict(wins: bool) -> CommitResult:
    return APPLIED if wins else LOST


def _dedup_wins(tables: Tables, row: DedupRow) -> CommitResult:
    there = _insert_dedup(tables, row)
    return APPLIED if there.value == row.value else CommitResult(Verdict.LOST, there.value)


def _insert_dedup(tables: Tables, row: DedupRow) -> DedupRow:
    """Inserts the row, or puts it in place of one that has expired; the row that stands then.

    A new row expires a fixed time from now, so it says what the time is.
    """
    there = tables.dedup.get((row.env, row.key))
    if there is not None and there.expires_ms >= row.expires_ms - LIMITS.dedup_ms:
        return there
    tables.rows += 1
    tables.dedup[row.env, row.key] = row
    return row


def _move_wins(tables: Tables, move: Move) -> bool:
    run = tables.run.get((move.env, move.run_id))
    if run is None or run.ended_ms is not None:
        return False
    if run.turn == move.expect_turn:
        tables.put_run(moved(run, move))
        return True
    return moved(run, move) == run


def _take(tables: Tables, take: Take) -> bool:
    run = tables.run.get((take.env, take.run_id))
    if run is None or run.ended_ms is not None or run.session_id is not None:
        return False
    if run.status not in (RunStatus.QUEUED, RunStatus.PARKED) or take.turn not in (None, run.turn):
        return False
    tables.put_run(taken(run, take))
    return True


def _take_wins(tables: Tables, take: Take) -> bool:
    if _take(tables, take):
        return True
    run = tables.run.get((take.env, take.run_id))
    return (
        run is not None
        and run.ended_ms is None
        and run.status == RunStatus.RUNNING
        and run.session_id == take.session_id
        and take.turn in (None, run.turn - 1)
    )


def _enqueue(tables: Tables, enqueue: Enqueue) -> None:
    run = tables.run.get((enqueue.env, enqueue.run_id))
    if run is None or run.ended_ms is not None or run.session_id is not None:
        return
    if run.status == RunStatus.PARKED:
        place = {"priority": enqueue.priority, "queued_ms": enqueue.queued_ms}
        event_id = run.event_id if enqueue.event_id is None else enqueue.event_id
        tables.put_run(run._replace(status=int(RunStatus.QUEUED), event_id=event_id, **place))


def _reline(tables: Tables, reline: Reline) -> None:
    run = tables.run.get((reline.env, reline.run_id))
    if run is not None and run.status == RunStatus.QUEUED:
        tables.put_run(run._replace(line=reline.line))


def _outcome_wins(tables: Tables, row: OutcomeRow) -> bool:
    """Resolves the wait of the key; or finds there what it would have written. A wait beside that could only linger."""
    there = tables.outcome.get((row.env, row.run_id), {}).get(row.key)
    if there is not None:
        tables.remove_wait(row.env, row.run_id, row.key)
        return same_outcome(row, there)
    return _resolve(tables, row)


def _resolve(tables: Tables, row: OutcomeRow) -> bool:
    if not tables.remove_wait(row.env, row.run_id, row.key):
        return False
    tables.add_outcome(row)
    return True


def _end(tables: Tables, end: End) -> bool:
    run = tables.run.get((end.env, end.run_id))
    if run is None or run.ended_ms is not None or run.turn != end.turn:
        return False
    tables.put_run(ended(run, end))
    return True


def _end_wins(tables: Tables, end: End) -> bool:
    if _end(tables, end):
        return True
    run = tables.run.get((end.env, end.run_id))
    return run is not None and run.ended_ms is not None and run.turn == end.turn and ended(run, end) == run


def _claim(tables: Tables, row: ClaimRow) -> bool:
    there = tables.claim.get((row.env, row.key))
    if there is not None and there.version != row.version - 1:
        return False
    tables.rows += 1
    tables.claim[row.env, row.key] = row
    return True


def _claim_wins(tables: Tables, row: ClaimRow) -> bool:
    return _claim(tables, row) or tables.claim.get((row.env, row.key)) == row


def _let_go(tables: Tables, end: ClaimEnd) -> None:
    there = tables.claim.get((end.env, end.key))
    if there is not None and there.run_id == end.run_id:
        tables.rows += 1
        left = there._replace(run_id="", version=there.version + 1, until_ms=end.until_ms)
        tables.claim[end.env, end.key] = left


def _session_wins(tables: Tables, write: SessionWrite) -> bool:
    at = (write.row.env, write.row.id)
    there = tables.session.get(at)
    if (there.epoch if there else 0) == write.expect_epoch:
        tables.rows += 1
        tables.session[at] = write.row
        return True
    return there == write.row


def _lease_wins(tables: Tables, write: LeaseWrite) -> bool:
    there = tables.lease.get(write.row.name)
    if ((there.holder, there.beat) if there else ("", 0)) == (write.expect_holder, write.expect_beat):
        tables.rows += 1
        tables.lease[write.row.name] = write.row
        return True
    return there == write.row


def _follow(tables: Tables, commit: Commit) -> None:
    for row in commit.events:
        tables.add_event(row)
    for row in commit.cursors:
        tables.cursor.setdefault((row.env, row.id), row)
    for row in commit.runs:
        tables.add_run(row)
    for row in commit.outcomes:
        tables.add_outcome(row)
    for row in commit.resolves:
        _resolve(tables, row)
    for number in commit.numbers:
        tables.number(*number)
    for dropped in commit.outcome_deletes:
        tables.remove_undelivered(*dropped)
    for row in commit.waits:
        tables.add_wait(row)
    for mark in commit.looked_back:
        tables.look_back_done(*mark)
    for wait in commit.wait_deletes:
        tables.remove_wait(*wait)
    for move in commit.moves:
        run = tables.run.get((move.env, move.run_id))
        if run is not None and run.ended_ms is None and run.turn == move.expect_turn:
            tables.put_run(moved(run, move))
    for take in commit.takes:
        _take(tables, take)
    for enqueue in commit.enqueues:
        _enqueue(tables, enqueue)
    for reline in commit.relines:
        _reline(tables, reline)
    for end in commit.ends:
        _end(tables, end)
    for cursor in commit.cursor_deletes:
        tables.cursor.pop((cursor.env, cursor.id), None)
    for row in commit.dedups:
        _insert_dedup(tables, row)
    for claim in commit.claims:
        _claim(tables, claim)
    for claim_end in commit.claim_ends:
        _let_go(tables, claim_end)
    for member in commit.members:
        tables.add_member(*member)
    _register(tables, commit)
    for setting in commit.settings:
        tables.setting[setting.name] = setting.value
    tables.rows += len(commit.cursors) + len(commit.cursor_deletes) + len(commit.settings)


def _register(tables: Tables, commit: Commit) -> None:
    """Deployments, shapes and switches; each new one raises the version of its environment."""
    for switch in commit.switches:
        if switch[:3] not in tables.switch:
            tables.rows += 1
            tables.switch[switch[:3]] = switch
            tables.version[switch.env] = tables.version.get(switch.env, 0) + 1
    for row in commit.deployments:
        if (row.env, row.app, row.id) not in tables.deployment:
            tables.rows += 1
            tables.deployment[row.env, row.app, row.id] = row
            tables.version[row.env] = tables.version.get(row.env, 0) + 1
    for row in commit.shapes:
        if row not in tables.shape:
            tables.rows += 1
            tables.shape[row] = None
            tables.version[row.env] = tables.version.get(row.env, 0) + 1
