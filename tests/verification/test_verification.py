"""A slice of the verification for CI, and what it would say if a promise were broken."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest
from stepwell.values import RunStatus

from tests.support.postgres import PostgresNotFoundError, PostgresServer
from tests.verification.ledger import Books, Ledger, Line
from tests.verification.runner import Options, played, progress, verify


@pytest.fixture
def postgres() -> Generator[PostgresServer]:
    folder = Path(tempfile.mkdtemp(prefix="stepwell-verify-"))
    folder.chmod(0o755)
    try:
        server = PostgresServer(folder)
    except PostgresNotFoundError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
    with server:
        yield server
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.timeout(240)
def test_random_programs_under_kills_keep_every_promise_on_sqlite(tmp_path: Path) -> None:
    report = verify(Options(seed=1, store="sqlite", programs=8, runs=15, seconds=6), tmp_path, None, progress)
    assert report.problems == [], report.told


@pytest.mark.timeout(240)
def test_random_programs_under_kills_keep_every_promise_on_postgres(tmp_path: Path, postgres: PostgresServer) -> None:
    report = verify(Options(seed=2, store="postgres", programs=8, runs=15, seconds=6), tmp_path, postgres, progress)
    assert report.problems == [], report.told


def without(lines: list[Line], one: Line) -> list[Line]:
    return [line for line in lines if line is not one]


@pytest.mark.timeout(120)
def test_a_broken_promise_is_told(tmp_path: Path) -> None:
    """The same story as it would be with a step lost, done twice, or run again, and with an event lost."""
    with played(Options(seed=1, store="sqlite", programs=4, runs=3, seconds=0), tmp_path, None, progress) as found:
        assert found.judge() == []
        lines = found.lines
        completed = {run.id for run in found.client.list_runs(statuses=[RunStatus.COMPLETED], page_size=1_000)}
        effect = next(line for line in lines if line.kind == "effect" and line.run_id in completed)
        token, _, counter, number = effect.rest
        assert any("did not" in problem for problem in found.judge(without(lines, effect)))
        again = effect._replace(rest=(f"{token}, again", "add", counter, number))
        assert any(problem.startswith("counters") for problem in found.judge([*lines, again]))
        acked = next(line for line in lines if line.kind == "acked")
        late = acked._replace(kind="began", at_ns=acked.at_ns + 1, rest=("1",))
        assert any("ran again" in problem for problem in found.judge([*lines, late]))
        found.asked.events["evt_" + "0" * 32] = ("sim/start0", "nobody", 1)
        assert any("acknowledged events are lost" in problem for problem in found.judge())


def test_an_effect_counts_once_for_its_token(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    for token, *effect in [("a", "set", "c", 5), ("b", "add", "c", 2), ("a", "set", "c", 5), ("b", "add", "c", 2)]:
        ledger.note("effect", "run_1", token, token, *effect)
    assert Books(ledger.lines()).counters == {"c": 7}
