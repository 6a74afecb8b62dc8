"""What a run ends with: the message, without the run's id, turn and number."""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

from stepwell import codec, errors
from stepwell.errors import LimitError, StepError, StepwellError
from stepwell.v1 import step_pb2

Ending: TypeAlias = step_pb2.Complete | step_pb2.Fail | step_pb2.Cancelled


def of_code(main: asyncio.Task[Any], what: str, result_bytes: int, failure_bytes: int, attempt: int) -> Ending:
    """Complete or Fail, as the code ended. what: names its output where that cannot be sent."""
    if main.cancelled():
        return failed(asyncio.CancelledError("the function cancelled itself"), failure_bytes, attempt)
    if (error := main.exception()) is not None:
        return failed(error, failure_bytes, attempt)
    try:
        data = codec.encode(main.result(), what)
        if result_bytes and len(data) > result_bytes:
            raise LimitError(f"{what} has {len(data)} bytes; result_bytes is {result_bytes}")
    except StepwellError as refused:
        return failed(refused, failure_bytes, attempt)
    complete = step_pb2.Complete()
    complete.output.data = data
    return complete


def failed(error: BaseException, failure_bytes: int, attempt: int) -> Ending:
    """Fail. Where a step's failure left the function its attempts are spent: the run does not try again."""
    failure = errors.to_failure(error, failure_bytes)
    if isinstance(error, StepError):
        failure.non_retriable = True
    return step_pb2.Fail(failure=failure, attempt=attempt, retry_after_ms=errors.retry_after_ms(error))
