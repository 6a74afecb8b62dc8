"""Time-outs of functions as values: which waits open when, what they say, how they are kept."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from stepwell_server.engine import ending, register, timeouts
from stepwell_server.model.errors import InvalidError
from stepwell_server.model.function import DeploymentRow, FunctionSpec
from stepwell_server.model.journal import CANCEL_KEY, INNER, START_KEY, OutcomeRow, StepKind
from stepwell_server.model.limits import DAY_MS
from stepwell_server.model.run import RunStatus

HOUR = 3_600_000


def function(**given: Any) -> FunctionSpec:
    return FunctionSpec("shop/f", "shop", "f", **given)


def test_a_function_without_time_outs_opens_nothing() -> None:
    assert timeouts.until_started(function(), "dev", "run_1", 5) == ()
    assert timeouts.from_start(function(), "dev", "run_1", 5) == ()
    assert timeouts.until_started(function(timeout_ms=HOUR), "dev", "run_1", 5) == ()
    assert timeouts.from_start(function(start_timeout_ms=HOUR), "dev", "run_1", 5) == ()


@pytest.mark.parametrize(
    ("opened", "option", "key", "message"),
    [
        (timeouts.until_started, "start_timeout", START_KEY, "the run had not started 1h after it was created"),
        (timeouts.from_start, "timeout", CANCEL_KEY, "the run had not ended 1h after its start"),
    ],
)
def test_a_time_out_is_a_wait_that_holds_the_failure(opened: Any, option: str, key: str, message: str) -> None:
    (wait,) = opened(function(**{f"{option}_ms": HOUR}), "dev", "run_1", 5)
    assert (wait.run_id, wait.key, wait.due_ms, wait.function_id) == ("run_1", key, 5 + HOUR, "shop/f")
    assert wait.kind in INNER, "no worker hears of it"
    failure = orjson.loads(wait.failure)
    assert failure["message"] == f"{message} ({option})"
    assert (failure["type"], failure["reason"]) == ("RunTimedOutError", "TIMED_OUT")
    assert failure["details"] == {"option": option, "ms": HOUR}


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (1, "1ms"),
        (1_500, "1s500ms"),
        (90_000, "1m30s"),
        (5_400_000, "1h30m"),
        (4 * DAY_MS, "4d"),
        (366 * DAY_MS, "366d"),
        (DAY_MS + 1, "1d1ms"),
        (0, "0s"),
    ],
)
def test_a_duration_reads_as_it_is_written(ms: int, text: str) -> None:
    assert timeouts.duration(ms) == text


@pytest.mark.parametrize("option", ["timeout", "start_timeout"])
def test_a_time_out_is_checked_at_the_door_by_function_and_option(option: str) -> None:
    register.check_functions("shop", [function(**{f"{option}_ms": 366 * DAY_MS})])
    with pytest.raises(InvalidError) as refused:
        register.check_functions("shop", [function(**{f"{option}_ms": 366 * DAY_MS + 1})])
    assert refused.value.reason == "BAD_TIMEOUT"
    assert refused.value.message == f"function shop/f: {option} is longer than 366 days"
    assert refused.value.fields == ((f"function shop/f: {option}", "too long"),)


def test_a_deployment_keeps_the_time_outs_and_an_old_one_has_none() -> None:
    specs = [function(timeout_ms=HOUR, start_timeout_ms=7, deployment="d"), function(deployment="d")]
    kept = register.unpack(DeploymentRow("dev", "shop", "d", 1, register.pack(specs)))
    assert kept == specs
    assert b"timeouts" not in register.pack(specs[1:]), "builds that were registered before are still the same"


@pytest.mark.parametrize(
    ("kind", "status"), [(StepKind.CANCEL, RunStatus.CANCELLED), (StepKind.TIMEOUT, RunStatus.TIMED_OUT)]
)
def test_what_unwound_a_run_decides_how_it_ends(kind: StepKind, status: RunStatus) -> None:
    request = OutcomeRow("dev", "run_1", CANCEL_KEY, 1, int(kind), "", None, "", b"{}", 1, 5, 5, b"", None, None)
    assert ending.unwound(request) == (status, b"{}")


def test_a_parent_is_told_that_the_time_of_its_child_was_over() -> None:
    (wait,) = timeouts.from_start(function(timeout_ms=HOUR), "dev", "run_2", 5)
    row = ending.child_outcome(
        "dev", "run_1", "call", "run_2", "shop/f", 5, RunStatus.TIMED_OUT, None, "", wait.failure, 9
    )
    assert row.failure is not None
    failure = orjson.loads(row.failure)
    assert (failure["type"], failure["reason"]) == ("RunTimedOutError", "TIMED_OUT")
    assert "cause" not in failure
