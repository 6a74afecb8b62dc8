"""How bodies fail and functions end: another attempt when it is due, or an outcome for good."""

from __future__ import annotations

from typing import Any

from stepwell_server.engine import begin, ending
from stepwell_server.engine.advance import Frame
from stepwell_server.engine.draft import Draft
from stepwell_server.engine.failures import failure_json, too_large, tried
from stepwell_server.engine.retry import bounded, next_delay_ms
from stepwell_server.model.function import RetryPolicy
from stepwell_server.model.journal import CANCEL_KEY, RUN_KEY, OutcomeRow, StepKind, WaitRow
from stepwell_server.model.limits import LIMITS
from stepwell_server.model.run import End, Move, PausedReason, RunStatus

_COMPLETED = RunStatus.COMPLETED


def failure(
    frame: Frame,
    run_id: str,
    turn: int,
    key: str,
    attempt: int,
    failure: dict[str, Any],
    policy: RetryPolicy,
    retry_after_ms: int | None,
    started_ms: int,
    ended_ms: int,
    input_hash: bytes,
) -> None:
    """A body raised: another attempt when it is due, or the step's final failure."""
    draft = frame.draft(run_id, turn, key)
    if draft is None or not frame.key_ok(draft, key):
        return
    resident = draft.resident
    if resident.is_decided(key):
        return
    if resident.open is not None and key in resident.open:
        frame.refuse(draft, key, "BAD_COMMAND", f"step {key} waits for another kind of outcome")
        return
    attempt = max(attempt, 1)
    delay = next_delay_ms(
        bounded(policy), attempt, retry_after_ms, bool(failure.get("non_retriable")), frame.node.chance()
    )
    _failed(frame, draft, key, attempt, failure_json(failure), delay, started_ms, ended_ms, input_hash)
    if not resident.executing:
        frame.awake(resident)


def complete(frame: Frame, run_id: str, turn: int, number: int, output: bytes, encoding: str) -> None:
    """The function returned."""
    draft = frame.draft(run_id, turn, "")
    if draft is None or not frame.numbered(draft, number) or _ended_before(frame, draft):
        return
    if not frame.encoding_ok(encoding):
        frame.refuse(draft, "", "BAD_COMMAND", "the output's encoding is not a name")
        return
    if len(output) > LIMITS.result_bytes:
        _end(frame, draft, RunStatus.FAILED, None, "", too_large("the run's output", LIMITS.result_bytes))
        return
    draft.size += len(output)
    _end(frame, draft, _COMPLETED, output, encoding, None)


def fail(
    frame: Frame,
    run_id: str,
    turn: int,
    number: int,
    failure: dict[str, Any],
    attempt: int,
    retry_after_ms: int | None,
) -> None:
    """The function raised: entered again when that is due, or failed."""
    draft = frame.draft(run_id, turn, "")
    if draft is None or not frame.numbered(draft, number) or _ended_before(frame, draft):
        return
    resident = draft.resident
    function = frame.env.triggers.known.get(resident.function_id)
    policy = function.retry if function is not None else RetryPolicy()
    delay = (
        None
        if resident.cancel is not None
        else next_delay_ms(
            policy,
            max(attempt, 1),
            retry_after_ms,
            bool(failure.get("non_retriable")),
            frame.node.chance(),
        )
    )
    if delay is None:
        if resident.cancel is not None:
            _unwound(frame, draft, resident.cancel)
        else:
            _end(frame, draft, RunStatus.FAILED, None, "", failure_json(failure))
        return
    if number != draft.highest:
        draft.named -= 1
        frame.refuse(draft, "", "OUT_OF_ORDER", f"number {draft.highest} came beside {number}, which ends the function")
        return
    # The worker forgets the run; leave to enter it again comes with its next assignment.
    draft.named -= 1
    draft.highest = 0 if draft.named == 0 else draft.highest - 1
    draft.left = number
    _failed(frame, draft, RUN_KEY, max(attempt, 1), failure_json(failure), delay, 0, frame.now, b"")
    draft.released = True


def cancelled(frame: Frame, run_id: str, turn: int, number: int) -> None:
    """The function has unwound after Cancel."""
    draft = frame.draft(run_id, turn, CANCEL_KEY)
    if draft is None or not frame.numbered(draft, number) or _ended_before(frame, draft):
        return
    request = draft.resident.cancel
    if request is None:
        draft.named -= 1
        frame.refuse(draft, "", "BAD_COMMAND", "nobody asked for the end of this run")
        return
    _unwound(frame, draft, request)


def mismatch(frame: Frame, run_id: str, turn: int, key: str, recorded: str, attempted: str, location: str) -> None:
    """The code no longer fits the journal: the run is paused, naming both sides (H15)."""
    draft = frame.draft(run_id, turn, key)
    if draft is None:
        return
    resident = draft.resident
    message = f"step {key}: the journal holds {recorded}, the code asks for {attempted}"
    if location:
        message += f" at {location}"
    misfits = tried(resident.run.failure) | {frame.session.row.deployment}
    failure = failure_json(
        {
            "type": "NondeterminismError",
            "message": message,
            "reason": "NONDETERMINISTIC",
            "details": {"deployments": sorted(misfits)},
        }
    )
    draft.moves = [
        Move(
            resident.env,
            run_id,
            turn,
            turn,
            int(RunStatus.PAUSED),
            int(PausedReason.NONDETERMINISTIC),
            None,
            resident.losses,
            None,
            "",
            failure,
        )
    ]


def _ended_before(frame: Frame, draft: Draft) -> bool:
    """Whether the frame has ended the run already, or paused it; refused if so."""
    if draft.end is None and not draft.left and draft.moves is None:
        return False
    draft.named -= 1
    what = "a run ends once" if draft.moves is None else "a run whose code does not fit cannot end"
    frame.refuse(draft, "", "BAD_COMMAND", what)
    return True


def _failed(
    frame: Frame,
    draft: Draft,
    key: str,
    attempt: int,
    failure: bytes,
    delay: int | None,
    started_ms: int,
    ended_ms: int,
    input_hash: bytes,
) -> None:
    resident = draft.resident
    if delay is not None:
        begin.open_wait(
            frame,
            draft,
            WaitRow(
                resident.env,
                resident.run_id,
                f"{key}#{attempt + 1}",
                int(StepKind.RETRY),
                "",
                None,
                "",
                frame.now + delay,
                None,
                False,
                attempt + 1,
                failure,
                input_hash,
                started_ms or frame.now,
                None,
                resident.function_id,
            ),
        )
        return
    draft.answer(
        OutcomeRow(
            resident.env,
            resident.run_id,
            key,
            None,
            int(StepKind.RUN),
            "",
            None,
            "",
            failure,
            attempt,
            started_ms,
            ended_ms or frame.now,
            input_hash,
            None,
            None,
        ),
    )


def _unwound(frame: Frame, draft: Draft, request: OutcomeRow) -> None:
    status, failure = ending.unwound(request)
    _end(frame, draft, status, None, "", failure)


def _end(
    frame: Frame, draft: Draft, status: RunStatus, output: bytes | None, encoding: str, failure: bytes | None
) -> None:
    resident = draft.resident
    draft.end = End(resident.env, resident.run_id, resident.turn, int(status), frame.now, output, encoding, failure)
    draft.parent = ending.parent_outcome(resident, status, output, encoding, failure, frame.now)
