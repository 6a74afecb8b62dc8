"""From blocks to results: medians, percentiles, ratios, the table and the file."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.targets import TARGETS, UNITS, Against, Target
from bench.workloads import Measured

Key = tuple[str, str, str]  # workload, side, metric


@dataclass(frozen=True, slots=True)
class Result:
    """A figure of the engine beside what it is compared with; value is none where only the toy was measured."""

    workload: str
    profile: str
    metric: str
    value: float | None
    unit: str
    baseline: float | None
    ratio: float | None


def combine(blocks: Sequence[Measured]) -> dict[str, float]:
    """Medians of the values, percentiles of all latencies together."""
    values = {name: statistics.median(block.values[name] for block in blocks) for name in blocks[0].values}
    latencies = sorted(latency for block in blocks for latency in block.latencies_ms)
    if latencies:
        values["p50_ms"] = percentile(latencies, 0.5)
        values["p99_ms"] = percentile(latencies, 0.99)
    return values


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that this share of the values does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def compare(figures: dict[Key, float], profile: str, steps: int) -> list[Result]:
    """A result for every figure, with the ratio to the toy's or to what its target names."""
    names = dict.fromkeys((workload, metric) for workload, _, metric in figures)
    results: list[Result] = []
    for workload, metric in names:
        value = figures.get((workload, "engine", metric))
        baseline = figures.get((workload, "baseline", metric))
        target = target_of(workload, metric)
        if target and target.against is Against.WORKLOAD:
            other, _, other_metric = target.reference.partition(":")
            baseline = figures.get((other, "engine", other_metric))
            if baseline is not None and target.per_step:
                baseline /= steps
        ratio = value / baseline if value is not None and baseline else None
        if target and target.against is Against.NOTHING:
            ratio = value
        results.append(Result(workload, profile, metric, value, UNITS.get(metric, ""), baseline, ratio))
    return results


def target_of(workload: str, metric: str) -> Target | None:
    return next((t for t in TARGETS if (t.workload, t.metric) == (workload, metric)), None)


def print_table(console: Console, results: Iterable[Result]) -> None:
    table = Table()
    for name in ("workload", "metric", "unit"):
        table.add_column(name, no_wrap=True)
    for name in ("engine", "baseline", "ratio", "floor", "aim"):
        table.add_column(name, justify="right")
    table.add_column("verdict", no_wrap=True)
    previous = ""
    for result in results:
        if previous and previous != result.workload:
            table.add_section()
        first, previous = result.workload != previous, result.workload
        target = target_of(result.workload, result.metric)
        sign = ("≥ " if target.at_least else "≤ ") if target else ""
        table.add_row(
            result.workload if first else "",
            result.metric,
            result.unit,
            show(result.value),
            show(result.baseline),
            show(result.ratio),
            f"{sign}{target.floor:g}" if target else "",
            f"{sign}{target.aim:g}" if target else "",
            verdict(target, result.ratio),
        )
    console.print(table)


def verdict(target: Target | None, ratio: float | None) -> str:
    if target is None or ratio is None:
        return ""
    if not target.met(ratio):
        return "[red]below the floor[/]"
    return "[green]aim[/]" if target.reached(ratio) else "floor"


def missed(results: Iterable[Result]) -> list[Result]:
    """Results that do not reach their floor."""
    return [
        result
        for result in results
        if (target := target_of(result.workload, result.metric)) and result.ratio is not None
        if not target.met(result.ratio)
    ]


def write(path: Path, results: Sequence[Result]) -> None:
    """Replaces these workloads' results of the profile in the file, and keeps the others."""
    kept = json.loads(path.read_text()) if path.exists() else []
    fresh = {(result.workload, result.profile) for result in results}
    rows = [row for row in kept if (row["workload"], row["profile"]) not in fresh]
    rows += [asdict(result) for result in results]
    path.write_text(json.dumps(rows, indent=1, default=float) + "\n")


def show(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
