"""Time-outs of functions: the waits that stand for them, and the failures that they end a run with. Pure.

A function without time-outs has no such wait, and costs nothing. What counts is the time-out that the function has when
its run is created (start_timeout) or first assigned (timeout): a later deployment does not change it.
"""

from __future__ import annotations

from functools import lru_cache

from stepwell_server.engine.failures import failure_json
from stepwell_server.model.function import FunctionSpec
from stepwell_server.model.journal import CANCEL_KEY, START_KEY, StepKind, WaitDelete, WaitRow

Waits = tuple[WaitRow, ...]
_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1))


def until_started(function: FunctionSpec, env: str, run_id: str, now: int) -> Waits:
    """What opens with a run that is queued."""
    limit = function.start_timeout_ms
    if not limit:
        return ()
    message = f"the run had not started {duration(limit)} after it was created (start_timeout)"
    return (_wait(env, run_id, START_KEY, function.id, now, limit, _failure(message, "start_timeout", limit)),)


def from_start(function: FunctionSpec, env: str, run_id: str, now: int) -> Waits:
    """What opens with the first assignment of a run."""
    limit = function.timeout_ms
    if not limit:
        return ()
    message = f"the run had not ended {duration(limit)} after its start (timeout)"
    return (_wait(env, run_id, CANCEL_KEY, function.id, now, limit, _failure(message, "timeout", limit)),)


def started(env: str, run_id: str) -> WaitDelete:
    """The first assignment closes the time-out of the start."""
    return WaitDelete(env, run_id, START_KEY)


def duration(ms: int) -> str:
    """A duration as people write it in a time-out: 90 minutes are 1h30m."""
    text = ""
    for unit, size in _UNITS:
        count, ms = divmod(ms, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def _wait(env: str, run_id: str, key: str, function_id: str, now: int, limit: int, failure: bytes) -> WaitRow:
    kind = int(StepKind.TIMEOUT)
    return WaitRow(
        env, run_id, key, kind, "", None, "", now + limit, None, False, 1, failure, b"", now, None, function_id
    )


@lru_cache(maxsize=1_024)
def _failure(message: str, option: str, limit: int) -> bytes:
    return failure_json(
        {
            "type": "RunTimedOutError",
            "message": message,
            "reason": "TIMED_OUT",
            "non_retriable": True,
            "details": {"option": option, "ms": limit},
        }
    )
