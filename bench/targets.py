"""The floors and aims: what every figure is compared with, and what it must reach."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Against(Enum):
    """What a figure is divided by."""

    BASELINE = "the toy, same workload and metric"
    WORKLOAD = "the engine, another workload"
    NOTHING = "nothing: the figure itself counts"


@dataclass(frozen=True, slots=True)
class Target:
    """The engine's figure, divided by its reference, is at least or at most the floor; the aim is better still.

    Reference is "workload:metric" with WORKLOAD; `per_step` divides that one by the steps of a run.
    """

    workload: str
    metric: str
    against: Against
    floor: float
    aim: float
    at_least: bool = False
    reference: str = ""
    per_step: bool = False

    def met(self, ratio: float) -> bool:
        return ratio >= self.floor if self.at_least else ratio <= self.floor

    def reached(self, ratio: float) -> bool:
        return ratio >= self.aim if self.at_least else ratio <= self.aim


_B, _W, _N = Against.BASELINE, Against.WORKLOAD, Against.NOTHING

TARGETS = (
    Target("burst", "runs_per_s", _B, 0.4, 0.6, at_least=True),
    Target("burst", "commits", _N, 0.1, 0.05),
    Target("burst", "transactions", _N, 0.1, 0.05),
    Target("ingest", "runs_per_s", _B, 0.4, 0.6, at_least=True),
    Target("one", "p50_ms", _B, 1.5, 1.2),
    Target("one", "p99_ms", _B, 2.5, 1.5),
    Target("invoke", "p50_ms", _W, 1.5, 1.3, reference="one:p50_ms"),
    Target("workers20", "runs_per_s", _B, 0.35, 0.5, at_least=True),
    Target("fanout-functions", "cpu_ms", _W, 1.5, 1.1, reference="burst:cpu_ms"),
    Target("fanout-waits", "cpu_ms", _W, 1.5, 1.1, reference="burst:cpu_ms"),
    Target("fanout-steps", "cpu_ms", _W, 1.5, 1.1, reference="burst:cpu_ms", per_step=True),
    Target("long", "second_half_ratio", _N, 1.2, 1.05),
    Target("reentry", "back_ms", _N, 50, 20),
    Target("big", "more_mb", _N, 200, 100),
    Target("sleepers", "more_mb", _N, 50, 20),
    Target("sleepers", "runs_per_s", _W, 0.3, 0.5, at_least=True, reference="burst:runs_per_s"),
    Target("sleepers", "idle_core_percent", _N, 1.0, 0.2),
    Target("full", "cpu_ratio", _N, 1.3, 1.1),
    Target("waits", "p50_ratio", _N, 1.5, 1.1),
    Target("slow-disk", "runs_ratio", _N, 0.7, 0.9, at_least=True),
    Target("backlog", "taken_ratio", _N, 0.75, 0.95, at_least=True),
    Target("backlog", "given_ratio", _N, 0.75, 0.95, at_least=True),
    Target("streams", "more_kb_each", _N, 150, 80),
    Target("limits", "runs_ratio", _N, 0.5, 0.8, at_least=True),
    Target("slot", "reused_p50_ms", _N, 5, 2),
    Target("redis", "runs_ratio", _N, 0.7, 0.9, at_least=True),
    Target("redis", "cpu_ratio", _N, 1.3, 1.1),
    Target("across", "p50_ratio", _N, 3.0, 1.5),
    Target("burst-go", "runs_ratio", _N, 1.0, 1.2, at_least=True),
    Target("burst-typescript", "runs_ratio", _N, 0.8, 1.0, at_least=True),
    Target("invoke-go", "p50_ratio", _N, 1.3, 1.0),
    Target("invoke-typescript", "p50_ratio", _N, 1.3, 1.0),
)

UNITS = {
    "runs_per_s": "1/s",
    "p50_ms": "ms",
    "p99_ms": "ms",
    "cpu_ms_server": "ms/run",
    "cpu_ms_database": "ms/run",
    "cpu_ms_worker": "ms/run",
    "cpu_ms": "ms/run",
    "rows": "1/run",
    "commits": "1/run",
    "transactions": "1/run",
    "frames": "1/run",
    "rss_mb": "MiB",
    "more_mb": "MiB",
    "back_ms": "ms",
    "idle_core_percent": "%",
    "first_half_ms": "ms/step",
    "second_half_ms": "ms/step",
    "second_half_ratio": "1",
    "p50_few_ms": "ms",
    "p50_many_ms": "ms",
    "p50_ratio": "1",
    "cpu_ratio": "1",
    "python_runs_per_s": "1/s",
    "runs_ratio": "1",
    "python_step_cpu_ms": "ms/step",
    "step_cpu_ms": "ms/step",
    "python_p50_ms": "ms",
    "across_p50_ms": "ms",
    "moved_ms": "ms",
    "fast_runs_per_s": "1/s",
    "reused_p50_ms": "ms",
    "reused_p95_ms": "ms",
    "here_p50_ms": "ms",
    "taken_per_s": "1/s",
    "taken_ratio": "1",
    "taken_cpu_ratio": "1",
    "given_per_s": "1/s",
    "given_ratio": "1",
    "queued_runs": "1",
    "more_kb_each": "KiB",
    "stored_runs": "1",
    "journal_steps": "1",
}
