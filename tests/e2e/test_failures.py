"""Bodies and functions fail: retries, their options, time-outs, and cancellation with its clean-up and its grace."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from stepwell.values import RunStatus

from tests.e2e.conftest import APPS, Databases, World
from tests.support.servers import Server, ended, reached, running, until

RETRIES: list[tuple[dict[str, Any], list[Any], int]] = [
    ({"fails": 0}, [1, None], 1),
    ({"fails": 2}, [3, "attempt 2"], 3),
    ({"fails": 9}, ["caught", "ValueError", "attempt 4", 4], 4),
    ({"fails": 9, "attempts": 2}, ["caught", "ValueError", "attempt 2", 2], 2),
    ({"fails": 9, "attempts": 1}, ["caught", "ValueError", "attempt 1", 1], 1),
    ({"fails": 9, "how": "non_retriable"}, ["caught", "NonRetriableError", "never again", 1], 1),
    ({"fails": 1, "how": "retry_after", "initial": "1h"}, [2, "busy"], 2),
]


@pytest.mark.parametrize(("data", "expected", "bodies"), RETRIES)
def test_a_body_is_tried_as_its_options_say(world: World, data: Any, expected: list[Any], bodies: int) -> None:
    handle = world.client.start("features/retrier", data)
    found = handle.result(20)
    if expected[0] != "caught":
        assert len(found.pop()) == 32, "the token"
    assert found == expected
    assert world.executed(handle.run_id, "flaky") == bodies


def test_the_token_stays_the_same_over_attempts_and_the_timeline_shows_each(world: World) -> None:
    handle = world.client.start("features/retrier", {"fails": 1})
    token = handle.result(20)[2]
    assert token
    entries = world.client.journal(handle.run_id)
    assert [(one.key, one.kind) for one in entries] == [("flaky#2", "RETRY"), ("flaky", "RUN")]
    assert entries[0].failure is not None
    assert entries[0].failure.message == "attempt 1"
    assert "flaky" in entries[0].failure.stack


def test_a_back_off_is_waited_for_and_said(world: World) -> None:
    handle = world.client.start("features/retrier", {"fails": 1, "initial": "10m"})
    run = reached(world.client, handle.run_id, lambda run: any(one.kind == "RETRY" for one in run.waiting_for))
    (reason,) = run.waiting_for
    assert reason.until is not None
    assert (reason.until - run.created).total_seconds() > 500
    handle.cancel()
    assert ended(world.client, handle.run_id).status is RunStatus.CANCELLED


def test_an_uncaught_step_error_fails_the_run_without_another_attempt(world: World) -> None:
    handle = world.client.start("features/uncaught")
    run = ended(world.client, handle.run_id)
    assert run.status is RunStatus.FAILED
    assert run.failure is not None
    assert run.failure.type == "StepError"
    assert world.executed(handle.run_id, "flaky") == 1


def test_a_function_that_raises_is_entered_again_over_its_journal(world: World) -> None:
    handle = world.client.start("features/raising", 2)
    assert handle.result(20) == [1, 3]
    assert world.executed(handle.run_id, "note") == 1
    handle = world.client.start("features/raising", 9)
    run = ended(world.client, handle.run_id)
    assert (run.status, run.failure and run.failure.message) == (RunStatus.FAILED, "attempt 4")


@pytest.mark.parametrize("kind", ["polite", "plain", "async"])
def test_h39_a_body_that_outruns_its_time_out_is_interrupted(world: World, kind: str) -> None:
    handle = world.client.start("features/outrun", kind)
    assert handle.result(20) == ["StepTimeoutError", "TIMEOUT"]


@pytest.mark.parametrize("kind", ["sync", "async", "sleep", "child"])
def test_a_cancelled_run_is_interrupted_and_cleans_up(world: World, kind: str) -> None:
    handle = world.client.start("features/cancellable", kind)
    until(
        lambda: (
            world.executed(handle.run_id, "busy") + world.executed(handle.run_id, "abusy")
            if kind in ("sync", "async")
            else world.client.get_run(handle.run_id).status is RunStatus.PARKED
        ),
        "it is where it is to be interrupted",
    )
    handle.cancel("no longer needed")
    run = ended(world.client, handle.run_id, 20)
    assert run.status is RunStatus.CANCELLED
    assert world.executed(handle.run_id, "clean-up") == 1
    children = [RunStatus.CANCELLED] if kind == "child" else []
    until(
        lambda: [run.status for run in world.client.list_runs(parent_run_id=handle.run_id)] == children,
        "its child is cancelled too",
    )


def test_a_run_that_has_ended_stays_as_it_is_when_it_is_cancelled(world: World) -> None:
    handle = world.client.start("features/echo", 1)
    assert handle.result(20) == 1
    assert handle.cancel().status is RunStatus.COMPLETED


@pytest.fixture
def short(store: str, databases: Databases, tmp_path: Path) -> Generator[World]:
    """A server with a grace of one second after a cancel."""
    server = Server(databases(store, tmp_path), tmp_path).tuned(cancel_grace_ms=1_000)
    effects = tmp_path / "effects"
    effects.touch()
    with running(server, APPS / "features.py", EFFECTS=str(effects)) as (client, worker):
        yield World(store, server, worker, client, effects)


def test_a_run_that_swallows_its_cancellation_ends_after_the_grace(short: World) -> None:
    client = short.client
    parked, busy = client.start("features/stubborn", "parked"), client.start("features/stubborn", "body")
    reached(client, parked.run_id, lambda run: run.status is RunStatus.PARKED)
    until(lambda: short.executed(busy.run_id, "swallower"), "the body has begun")
    for handle in (parked, busy):
        handle.cancel("enough")
        listed = {run.id: run for run in client.list_runs(function="features/stubborn")}
        assert listed[handle.run_id].cancel_requested
        assert listed[busy.run_id].cancel_requested is (handle is busy)
        run = ended(client, handle.run_id, 20)
        assert run.status is RunStatus.CANCELLED
        assert run.failure is not None
        assert run.failure.message == "the run was cancelled: enough"
    assert client.invoke("features/echo", 5, timeout=20) == 5
