"""Runs the workloads on the toy and the engine in turn, and prints and stores what they did."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import results
from bench.engine_workloads import ENGINE_ONLY
from bench.languages import ACROSS, LANGUAGES, named
from bench.processes import ChildError
from bench.production import PRODUCTION
from bench.sides import Baseline, Engine, Side
from bench.targets import TARGETS
from bench.workloads import PAIRED, Measured, Options, Workload
from bench.world import Lab
from tests.support.postgres import PostgresServer

WORKLOADS = {workload.name: workload for workload in (*PAIRED, *ENGINE_ONLY, *PRODUCTION)}
WITH_LANGUAGES = WORKLOADS | {workload.name: workload for workload in ACROSS}
RESULTS = Path(__file__).with_name("results.json")


def main() -> None:
    options = parse()
    try:
        options.only = [*(options.only or []), *(name for language in options.lang or [] for name in named(language))]
    except LookupError as error:
        sys.exit(str(error))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started is stopped then too
    console = Console() if sys.stdout.isatty() else Console(width=120)
    sides: list[Side] = [Baseline(), Engine()]
    if options.side:
        sides = [side for side in sides if side.name == options.side]
    engine = any(side.name == "engine" for side in sides)
    chosen = [
        workload
        for workload in choose(options.only)
        if (workload.both or engine) and options.profile in workload.profiles
    ]
    if engine and not Engine.exists():
        sys.exit("stepwell_server is not installed here; --side baseline measures the toy alone")
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.scratch, ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        folder.chmod(0o755)  # Postgres may run as another user
        with contextlib.ExitStack() as stack:
            postgres = None
            if options.profile == "postgres":
                postgres = stack.enter_context(PostgresServer(folder / "postgres"))
            lab = Lab(options.profile, folder, postgres)
            settings = Options(options.steps, options.payload, options.runs)
            try:
                figures = asyncio.run(measure(console, lab, sides, chosen, settings, options))
            except ChildError as error:
                sys.exit(str(error))
    rows = results.compare(figures, options.profile, options.steps)
    results.print_table(console, rows)
    results.write(options.results, rows)
    if below := results.missed(rows):
        sys.exit("below the floor: " + ", ".join(f"{row.workload} {row.metric}" for row in below))


def choose(only: list[str]) -> list[Workload]:
    """The workloads named, or all; and before them those that their targets refer to."""
    names: dict[str, None] = {}
    for name in only or WORKLOADS:
        for target in TARGETS:
            if target.workload == name and target.reference:
                names[target.reference.partition(":")[0]] = None
        names[name] = None
    return [WITH_LANGUAGES[name] for name in WITH_LANGUAGES if name in names]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--profile", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--only", action="append", choices=list(WORKLOADS), help="this workload; may be repeated")
    parser.add_argument(
        "--lang", action="append", choices=list(LANGUAGES), help="a worker in this language beside Python's"
    )
    parser.add_argument("--side", choices=["baseline", "engine"], help="this side alone")
    parser.add_argument("--runs", type=int, help="runs of a block; each workload has its own default")
    parser.add_argument("--steps", type=int, default=3, help="steps of a run")
    parser.add_argument("--payload", type=int, default=200, help="bytes of event data; results have half of it")
    parser.add_argument("--blocks", type=int, help="blocks of each side, in turn; default 3")
    parser.add_argument("--scratch", type=Path, help="folder for databases and logs; default the system's")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of results; other workloads' stay in it")
    return parser.parse_args()


async def measure(
    console: Console,
    lab: Lab,
    sides: list[Side],
    chosen: list[Workload],
    settings: Options,
    options: argparse.Namespace,
) -> dict[results.Key, float]:
    """All blocks: for each workload baseline, engine, baseline, engine, …"""
    plan = [
        (workload, side)
        for workload in chosen
        for _ in range(options.blocks or workload.blocks)
        for side in sides
        if workload.both or side.name == "engine"
    ]
    measured: dict[tuple[str, str], list[Measured]] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(plan))
        for workload, side in plan:
            progress.update(task, description=f"{lab.profile} {workload.name} {side.name}")
            # --runs is meant for what was asked for, not for what its targets refer to.
            named = not options.only or workload.name in options.only
            block = await workload.block(lab, side, settings if named else replace(settings, runs=None))
            measured.setdefault((workload.name, side.name), []).append(block)
            progress.advance(task)
    return {
        (workload, side, metric): value
        for (workload, side), done in measured.items()
        for metric, value in results.combine(done).items()
    }


if __name__ == "__main__":
    main()
