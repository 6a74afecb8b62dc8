"""Paused functions, between messages and values."""

from __future__ import annotations

from stepwell.v1 import function_pb2

from stepwell_server.model.errors import InvalidError
from stepwell_server.model.function import Standing, SwitchRow

_STANDING = {
    int(function_pb2.PauseFunctionRequest.RUNNING_UNSPECIFIED): Standing.KEEP,
    int(function_pb2.PauseFunctionRequest.RUNNING_KEEP): Standing.KEEP,
    int(function_pb2.PauseFunctionRequest.RUNNING_HOLD): Standing.HOLD,
    int(function_pb2.PauseFunctionRequest.RUNNING_CANCEL): Standing.CANCEL,
}
_RUNNING = {
    Standing.KEEP: function_pb2.PauseFunctionRequest.RUNNING_KEEP,
    Standing.HOLD: function_pb2.PauseFunctionRequest.RUNNING_HOLD,
    Standing.CANCEL: function_pb2.PauseFunctionRequest.RUNNING_CANCEL,
    Standing.SKIPPING: function_pb2.PauseFunctionRequest.RUNNING_KEEP,
}


def pause_message(switch: SwitchRow) -> function_pb2.Pause:
    """How a paused function stands."""
    standing = Standing(switch.standing)
    return function_pb2.Pause(since_ms=switch.at_ms, running=_RUNNING[standing], resuming=standing is Standing.SKIPPING)


def standing_value(running: int) -> Standing:
    """How a function is to stand; raises InvalidError for what the protocol does not have."""
    if running not in _STANDING:
        raise _unknown("running")
    return _STANDING[running]


def skips(waiting: int) -> bool:
    """Whether what waits is to be skipped; raises InvalidError for what the protocol does not have."""
    if waiting not in function_pb2.ResumeFunctionRequest.Waiting.values():
        raise _unknown("waiting")
    return waiting == function_pb2.ResumeFunctionRequest.WAITING_SKIP


def _unknown(field: str) -> InvalidError:
    return InvalidError("BAD_PAUSE", f"{field}: there is no such choice", fields=((field, "unknown"),))
