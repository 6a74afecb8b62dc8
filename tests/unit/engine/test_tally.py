"""What is counted of a batch, and that neither names nor clocks can make more of it."""

from __future__ import annotations

from typing import Any

from stepwell_server.engine.tally import COMMITS, COMPLETED, FAILED, MOST_FUNCTIONS, OTHER, TIMED_OUT, Histogram, Tally
from stepwell_server.model.commit import APPLIED, FENCED, LOST, Commit, CommitResult, Verdict
from stepwell_server.model.journal import OutcomeRow, StepKind
from stepwell_server.model.run import End, ReadyRow, RunRow, RunStatus


def outcome(kind: StepKind, *, failure: bytes | None = None, event_id: str | None = None, took: int = 3) -> OutcomeRow:
    return OutcomeRow("dev", "run", "key", 1, int(kind), "", b"1", "", failure, 1, 10, 10 + took, b"", event_id, None)


def landed(*pairs: tuple[Commit, CommitResult]) -> Tally:
    tally = Tally()
    batch: list[tuple[Commit, Any, Any]] = [(commit, None, None) for commit, _ in pairs]
    tally.landed(batch, [result for _, result in pairs])
    return tally


def test_what_was_not_applied_is_not_counted() -> None:
    refused = CommitResult(Verdict.REFUSED, "no")
    commit = Commit("dev", outcomes=[outcome(StepKind.RUN)])
    tally = landed((commit, FENCED), (commit, LOST), (commit, refused), (commit, APPLIED))
    assert tally.steps[StepKind.RUN] == [1, 0, 0]
    assert tally.step_ms.total == 3
    assert (sum(tally.batches.counts), tally.batches.total) == (1, 4)


def test_an_outcome_is_counted_by_its_kind_and_what_it_is() -> None:
    tally = landed(
        (Commit("dev", outcomes=[outcome(StepKind.RUN, failure=b"{}"), outcome(StepKind.SEND)]), APPLIED),
        (Commit("dev", decider=outcome(StepKind.EVENT)), APPLIED),
        (Commit("dev", decider=outcome(StepKind.EVENT, event_id="evt")), APPLIED),
        (Commit("dev", resolves=[outcome(StepKind.INVOKE, failure=b"{}")]), APPLIED),
        (Commit("dev", decider=outcome(StepKind.RETRY, failure=b"{}")), APPLIED),
        (Commit("dev", decider=outcome(StepKind.CANCEL)), APPLIED),
    )
    assert tally.steps[StepKind.RUN][FAILED] == 1
    assert tally.steps[StepKind.SEND][COMPLETED] == 1
    assert (tally.steps[StepKind.EVENT][TIMED_OUT], tally.steps[StepKind.EVENT][COMPLETED]) == (1, 1)
    assert tally.steps[StepKind.INVOKE][FAILED] == 1
    assert sum(map(sum, tally.steps)) == 5


def run(status: RunStatus, *, session_id: str | None = None, ended_ms: int | None = None) -> RunRow:
    return RunRow(
        "dev", "run", "app/f", "app", int(status), 0, 0, session_id, None, None, None, False, 0, "", 0, 0, 1, 1, None,
        ended_ms, None, "", None, "", None, b"",
    )  # fmt: skip


def test_a_run_counts_when_it_is_created_and_where_it_ends() -> None:
    placed, queued = run(RunStatus.RUNNING, session_id="ses"), run(RunStatus.QUEUED)
    tally = landed((Commit("dev", runs=[placed, queued, run(RunStatus.SKIPPED, ended_ms=1)]), APPLIED))
    tally.queued(ReadyRow("dev", "run", "app/f", 0, 1_000), 1_040)
    tally.ended(placed, End("dev", "run", 1, int(RunStatus.FAILED), 5, None, "", b"{}"))
    function = tally.function("dev", "app/f")
    assert function.created == 3
    assert (function.ended[RunStatus.SKIPPED], function.ended[RunStatus.FAILED], sum(function.ended)) == (1, 1, 2)
    assert (sum(function.queue_ms.counts), function.queue_ms.total) == (2, 40)


def test_what_senders_are_told_is_counted() -> None:
    tally = Tally()
    tally.answered(["accepted", "refused", "duplicate", "refused"])
    assert (tally.events, tally.refused, tally.duplicates) == (0, 2, 1)


def test_functions_beyond_the_bound_are_counted_together() -> None:
    tally = Tally()
    for n in range(MOST_FUNCTIONS + 50):
        tally.queued(ReadyRow("dev", "run", f"app/f{n}", 0, 1_000), 1_002)
    assert len(tally.functions) == MOST_FUNCTIONS + 1
    assert sum(tally.functions["dev", OTHER].queue_ms.counts) == 50


def test_an_observation_goes_to_the_first_bound_that_holds_it() -> None:
    histogram = Histogram(COMMITS)
    for value in (0, -5, 1, 2, 2.5, 256, 257):
        histogram.add(value)
    assert histogram.counts == [3, 1, 1, 0, 0, 0, 0, 0, 1, 1]
    assert histogram.total == 1 + 2 + 2.5 + 256 + 257
