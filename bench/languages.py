"""Workers in other languages, beside Python's at the same server; and invokes across languages."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable
from itertools import chain

from bench.results import percentile
from bench.shape import Shape
from bench.sides import Side
from bench.workloads import WARM_UP, Measured, Options, Workload, check_rows, per_unit
from bench.world import Lab, Report, World, open_world
from tests.support.languages import MISSING, go_program, typescript_program

LANGUAGES: dict[str, Callable[[], tuple[str, ...]]] = {
    "go": lambda: go_program("internal/bench"),
    "typescript": lambda: typescript_program("test/bench/worker"),
}
ORDER = ("python", "other", "other", "python")  # so that neither always has the fuller database
INVOKES_WARM_UP = 30


async def burst(language: str, lab: Lab, side: Side, options: Options) -> Measured:
    """Bursts for the Python worker and for the other, in turn. Both stay, and get warm; one idles meanwhile."""
    runs = options.runs_or(10_000)
    rates: dict[str, list[float]] = {"python": [], "other": []}
    used: dict[str, list[dict[str, float]]] = {"python": [], "other": []}
    async with open_world(lab, side, Shape(steps=options.steps, payload=options.payload)) as world:
        await world.start_program(LANGUAGES[language]())
        for which in ORDER:
            name = "bench/three" if which == "python" else "bench/other"
            report, ended_ms = await _measure(world, name, runs)
            rates[which].append(runs / (ended_ms - report.started_ms) * 1000)
            used[which].append(per_unit(report, runs * options.steps))
    python, other = (statistics.mean(rates[which]) for which in ("python", "other"))
    cpu = {which: statistics.mean(one["cpu_ms_worker"] for one in used[which]) for which in used}
    return Measured(
        {
            "python_runs_per_s": python,
            "runs_per_s": other,
            "runs_ratio": other / python,
            "python_step_cpu_ms": cpu["python"],
            "step_cpu_ms": cpu["other"],
        }
    )


async def _measure(world: World, name: str, runs: int) -> tuple[Report, int]:
    ended_ms = 0

    async def until(since_ms: int) -> None:
        nonlocal ended_ms
        count = WARM_UP if not ended_ms else runs
        ended_ms = await world.wait_finished(since_ms, count)

    report = await world.run_load("events", runs, "--name", name, warm_up=WARM_UP, until=until)
    await check_rows(world, report.since_ms)
    return report, ended_ms


async def invoke(language: str, lab: Lab, side: Side, options: Options) -> Measured:
    """One at a time: a run in Python that invokes one in Python, or one in the other language."""
    runs = options.runs_or(150)
    latencies: dict[str, list[float]] = {"python": [], "other": []}
    async with open_world(lab, side, Shape(steps=options.steps, payload=options.payload)) as world:
        await world.start_program(LANGUAGES[language]())
        for which in ORDER:
            report = await world.run_load("invoke" if which == "python" else "cross", runs, warm_up=INVOKES_WARM_UP)
            latencies[which] += report.latencies_ms
    python, other = (percentile(sorted(latencies[which]), 0.5) for which in ("python", "other"))
    return Measured({"python_p50_ms": python, "across_p50_ms": other, "p50_ratio": other / python})


def _workloads(language: str) -> tuple[Workload, ...]:
    return (
        Workload(f"burst-{language}", functools.partial(burst, language), both=False),
        Workload(f"invoke-{language}", functools.partial(invoke, language), both=False),
    )


ACROSS = tuple(chain.from_iterable(map(_workloads, LANGUAGES)))


def named(language: str) -> list[str]:
    """The workloads of a language. Raises LookupError with the reason where its tools are missing."""
    if why := MISSING[language]():
        raise LookupError(why)
    return [f"burst-{language}", f"invoke-{language}"]
