"""What the text of a failure says, over steps and invokes."""

from __future__ import annotations

import pytest
from stepwell.errors import (
    InvokeError,
    InvokeTimeoutError,
    RunCancelledError,
    RunFailedError,
    RunTimedOutError,
    StepError,
    StepTimeoutError,
    invoke_error,
    step_error,
    to_failure,
)


def test_the_text_of_a_step_error_says_key_type_and_message_once() -> None:
    failure = to_failure(StepTimeoutError("the body took longer than 5 ms", key="slow"))
    assert (failure.type, failure.message) == ("StepTimeoutError", "the body took longer than 5 ms")
    error = step_error(failure, "slow", 1)
    assert isinstance(error, StepTimeoutError)
    assert str(error) == "slow: StepTimeoutError: the body took longer than 5 ms"
    assert (error.type, error.message) == ("StepTimeoutError", "the body took longer than 5 ms")
    assert to_failure(error).message == str(error), "the run fails with the step's name"


def test_nested_invokes_keep_the_innermost_message() -> None:
    error: StepError = step_error(to_failure(ValueError("broken")), "charge", 3)
    for level in range(5):
        failure = to_failure(error)
        failure.reason = "RUN_FAILED"
        error = invoke_error(failure, f"app/level{level}", 1)
    assert str(error) == "app/level4: ValueError: broken"
    failure = to_failure(error)
    path: list[str] = []
    while failure.HasField("cause"):
        path.append(failure.message)
        failure = failure.cause
    assert path[-2:] == ["app/level0: ValueError: broken", "charge: ValueError: broken"]
    assert (failure.type, failure.message) == ("ValueError", "broken")


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("RUN_FAILED", RunFailedError),
        ("CANCELLED", RunCancelledError),
        ("TIMED_OUT", RunTimedOutError),
        ("TIMEOUT", InvokeTimeoutError),
        ("TOO_DEEP", InvokeError),
    ],
)
def test_the_reason_of_a_child_decides_the_error_of_its_parent(reason: str, kind: type[InvokeError]) -> None:
    failure = to_failure(ValueError("broken"))
    failure.reason = reason
    assert type(invoke_error(failure, "call", 1)) is kind


def test_an_error_of_ones_own_is_told_as_it_is() -> None:
    own = to_failure(RuntimeError("wrapped"))
    own.cause.CopyFrom(to_failure(ValueError("broken")))
    assert str(step_error(own, "charge", 1)) == "charge: RuntimeError: wrapped"
    own.type = "StepError"  # raised by a user, with words of its own
    assert str(step_error(own, "charge", 1)) == "charge: StepError: wrapped"
