"""The workloads that both sides can do: burst, ingest, one, workers20; and invoke, which is one with a child."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bench import usage
from bench.shape import Shape
from bench.sides import Side
from bench.world import Lab, Report, World, open_world

WARM_UP = 300


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line may change."""

    steps: int = 3
    payload: int = 200
    runs: int | None = None

    def runs_or(self, default: int) -> int:
        return default if self.runs is None else self.runs


@dataclass(slots=True)
class Measured:
    """One block's numbers. Latencies of several blocks are pooled before their percentiles are taken."""

    values: dict[str, float]
    latencies_ms: list[float] = field(default_factory=list[float])


Block = Callable[[Lab, Side, Options], Awaitable[Measured]]


@dataclass(frozen=True, slots=True)
class Workload:
    """A block of measurement, done by both sides in turn or by the engine alone."""

    name: str
    block: Block
    both: bool = True
    blocks: int = 3
    profiles: tuple[str, ...] = ("sqlite", "postgres")


async def burst(lab: Lab, side: Side, options: Options) -> Measured:
    """All events at once, in batches of 100; one worker."""
    runs = options.runs_or(10_000)
    async with open_world(lab, side, Shape(steps=options.steps, payload=options.payload)) as world:
        measured = await measure_burst(world, runs)
        await world.stop()
        if transactions := await world.database.transactions():
            measured.values["transactions"] = transactions / (runs + WARM_UP)
        return measured


async def workers20(lab: Lab, side: Side, options: Options) -> Measured:
    """The same with 20 worker processes of 20 runs each."""
    runs = options.runs_or(6_000)
    shape = Shape(workers=20, capacity=20, steps=options.steps, payload=options.payload)
    async with open_world(lab, side, shape) as world:
        return await measure_burst(world, runs)


async def measure_burst(world: World, runs: int) -> Measured:
    """Runs per second from the first call to the last end, both by the machine's clock."""
    ended_ms = 0

    async def until(since_ms: int) -> None:
        nonlocal ended_ms
        count = WARM_UP if not ended_ms else runs
        ended_ms = await world.wait_finished(since_ms, count)

    report = await world.run_load("burst", runs, warm_up=WARM_UP, until=until)
    await check_rows(world, report.since_ms)
    values = per_unit(report, runs)
    values["runs_per_s"] = runs / (ended_ms - report.started_ms) * 1000
    values["rss_mb"] = usage.peak_rss_mb(world.server.pid)
    return Measured(values)


async def ingest(lab: Lab, side: Side, options: Options) -> Measured:
    """Events that nobody subscribes to."""
    events = options.runs_or(100_000)
    async with open_world(lab, side, Shape(workers=1, payload=options.payload)) as world:
        report = await world.run_load("ingest", events, warm_up=WARM_UP)
        stored = await side.events(world.database, report.since_ms)
        if stored != events:
            raise world.server.failed(f"stored {stored} of {events} events")
        values = per_unit(report, events)
        values["runs_per_s"] = events / (report.sent_ms - report.started_ms) * 1000
        values["rss_mb"] = usage.peak_rss_mb(world.server.pid)
        return Measured(values)


async def one(lab: Lab, side: Side, options: Options) -> Measured:
    """One run at a time: event sent until its end is known."""
    return await _one(lab, side, options, "one")


async def invoke(lab: Lab, side: Side, options: Options) -> Measured:
    """One at a time: a run whose only step is to invoke the function of `one`."""
    return await _one(lab, side, options, "invoke")


async def _one(lab: Lab, side: Side, options: Options, workload: str) -> Measured:
    runs = options.runs_or(340)
    async with open_world(lab, side, Shape(steps=options.steps, payload=options.payload)) as world:
        report = await world.run_load(workload, runs, warm_up=50)
        if workload == "one":
            await check_rows(world, report.since_ms)
        values = per_unit(report, runs)
        values["runs_per_s"] = runs / (report.sent_ms - report.started_ms) * 1000
        values["rss_mb"] = usage.peak_rss_mb(world.server.pid)
        return Measured(values, report.latencies_ms)


async def check_rows(world: World, since_ms: int) -> None:
    """Every run has exactly its rows."""
    wrong = await world.side.wrong_rows(world.database, since_ms, world.shape.steps)
    if wrong:
        raise world.server.failed("left wrong rows: " + "; ".join(wrong))


def per_unit(report: Report, units: int) -> dict[str, float]:
    """What one run (or event) cost."""
    counters = report.counters
    return {
        "cpu_ms_server": report.cpu.server_ms / units,
        "cpu_ms_database": report.cpu.database_ms / units,
        "cpu_ms_worker": report.cpu.worker_ms / units,
        "cpu_ms": report.cpu.all_ms / units,
        "rows": counters.get("rows", 0) / units,
        "commits": counters.get("commits", 0) / units,
        "frames": (counters.get("frames_in", 0) + counters.get("frames_out", 0)) / units,
    }


PAIRED = (
    Workload("burst", burst),
    Workload("ingest", ingest),
    Workload("one", one),
    Workload("invoke", invoke, both=False),
    Workload("workers20", workers20),
)
