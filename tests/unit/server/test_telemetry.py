"""The families of a queue: labels stay bounded, and depths and ages are kept when functions are folded."""

from __future__ import annotations

from stepwell_server.engine.tally import MOST_FUNCTIONS
from stepwell_server.ports.queue import Backlog
from stepwell_server.telemetry import queue_families


def test_functions_beyond_the_bound_share_a_label_and_keep_the_oldest() -> None:
    backlogs = [Backlog("dev", f"app/f{n}", 2, 1_000 - n, False) for n in range(MOST_FUNCTIONS + 3)]
    backlogs.append(Backlog("dev", "app/unread", 0, 0, True))
    runs, age, more = queue_families(backlogs, 2_000)
    other = {"environment": "dev", "app": "other", "function": "other"}
    assert len(runs.samples) == len(age.samples) == len(more.samples) == MOST_FUNCTIONS + 1
    assert [sample.value for sample in runs.samples if sample.labels == other] == [6]
    assert [sample.value for sample in age.samples if sample.labels == other] == [(1_000 + MOST_FUNCTIONS + 2) / 1000]
    assert [sample.value for sample in more.samples if sample.labels == other] == [1]


def test_a_queue_that_was_not_read_yet_has_no_age() -> None:
    _, age, more = queue_families([Backlog("dev", "app/f", 0, 0, True)], 2_000)
    assert [sample.value for sample in age.samples] == [0]
    assert [sample.value for sample in more.samples] == [1]
