"""A slice of the simulation for CI: seeds keep the promises, replay exactly, and miss each guard that is turned off.

Each test of seeds is a process of its own: the order of sets of strings follows PYTHONHASHSEED, set at its start.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from unittest import mock

import pytest
from stepwell_server.model.run import EDGES, RunStatus

from tests.simulation import coverage
from tests.simulation.ablations import ABLATIONS
from tests.simulation.world import Options, play

_ROOT = Path(__file__).parents[2]
_ABLATIONS = (
    "epoch", "owner", "first-wins", "idempotency", "commit-before-ack", "cursor", "look-back", "losses", "alone",
    "fitting-worker", "inbox",
)  # fmt: skip


def simulate(*arguments: str, timeout_s: float = 110) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.simulation", *arguments]
    return subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)


@pytest.mark.timeout(330)
def test_seeds_keep_the_promises_and_take_every_edge_of_the_state_chart() -> None:
    done = simulate("--seeds", "0..150", "--keep-going", "--cover", timeout_s=320)
    assert done.returncode == 0, f"{done.stdout[-8_000:]}\n{done.stderr[-2_000:]}"


@pytest.mark.timeout(330)
def test_seeds_keep_the_promises_with_many_nodes_on_one_database() -> None:
    done = simulate("--nodes", "3", "--seeds", "0..40", "--keep-going", timeout_s=320)
    assert done.returncode == 0, f"{done.stdout[-8_000:]}\n{done.stderr[-2_000:]}"


def test_nothing_breaks_without_faults() -> None:
    done = simulate("--calm", "--seeds", "0..15", "--keep-going")
    assert done.returncode == 0, f"{done.stdout[-8_000:]}\n{done.stderr[-2_000:]}"


@pytest.mark.parametrize("guard", _ABLATIONS)
def test_a_guard_that_is_off_is_missed(guard: str) -> None:
    done = simulate("--ablate", guard, "--seeds", "0..200")
    assert done.returncode == 0, f"{done.stdout[-4_000:]}\n{done.stderr[-2_000:]}"


def test_what_the_patch_of_a_guard_breaks_is_no_find() -> None:
    noise = ["ServerProcess._run raised TypeError('it takes 4')", "server-1: the stream of a worker failed: KeyError()"]
    noise += ["run run_1 of app/f never ended: QUEUED turn 1", "event a {} was never acknowledged"]
    assert [name for name, ablation in ABLATIONS.items() if ablation.found(noise)] == []
    assert set(_ABLATIONS) == set(ABLATIONS)


def test_a_status_change_that_the_chart_does_not_have_is_told() -> None:
    without = {RunStatus.RUNNING: EDGES[RunStatus.RUNNING] - {RunStatus.PARKED}}
    with mock.patch.dict(EDGES, without):
        problems = play(0, Options(faults={})).problems
    assert problems
    assert all(re.fullmatch(r"a commit moves run_\w+ from RUNNING to PARKED", one) for one in problems)


def test_an_edge_that_no_seed_took_is_told_and_so_is_one_that_nothing_takes() -> None:
    taken = Counter({edge: 1 for edge in coverage.ALL if edge not in coverage.NEVER})
    assert coverage.missing(taken) == []
    del taken[RunStatus.PARKED, RunStatus.PAUSED]
    taken[RunStatus.PAUSED, RunStatus.COMPLETED] = 1
    assert coverage.missing(taken) == [
        "PARKED → PAUSED was never taken",
        "PAUSED → COMPLETED was taken, although only a run that executes, or is woken, ends by itself",
    ]


def test_a_seed_replays() -> None:
    first, second = (simulate("--seed", "7", "-v").stdout for _ in range(2))
    assert first.count("\n") > 20
    assert _without_real_time(first) == _without_real_time(second)


def _without_real_time(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("seed ")]
