"""Workloads of a server in production: a slow disk, a backlog of a million runs, many workers."""

from __future__ import annotations

import asyncio

from bench import usage
from bench.databases import Database
from bench.fill import multiply
from bench.processes import Child
from bench.shape import Shape
from bench.sides import Side
from bench.workloads import Measured, Options, Workload, measure_burst
from bench.world import Lab, World, open_world

SYNC_MS = 5
SETTLE_S = 2.0


async def slow_disk(lab: Lab, side: Side, options: Options) -> Measured:
    """A burst, and one on a Postgres whose commits take 5 ms longer."""
    runs = options.runs_or(10_000)
    shape = Shape(steps=options.steps, payload=options.payload)

    async def slow(database: Database) -> None:
        await database.delay_commits(SYNC_MS)

    async with open_world(lab, side, shape) as world:
        fast = await measure_burst(world, runs)
    async with open_world(lab, side, shape, prepare=slow) as world:
        measured = await measure_burst(world, runs)
    rate = fast.values["runs_per_s"]
    return Measured({"fast_runs_per_s": rate, "runs_ratio": measured.values["runs_per_s"] / rate})


async def backlog(lab: Lab, side: Side, options: Options) -> Measured:
    """Events taken in, and queued runs given out, with few queued runs and with a million of them."""
    stored = options.runs_or(1_000_000)
    batch = 20_000
    shape = Shape(steps=options.steps, payload=options.payload)
    async with open_world(lab, side, shape) as world:
        await _queue(world, batch, register=True)
        taken, taken_cpu = await _queue(world, batch)
        given = await _give_out(world, 2 * batch)
    async with open_world(lab, side, shape) as world:
        await _queue(world, batch, register=True)
        await world.server.stop()
        await multiply(world.database, max(1, round(stored / batch) - 1))
        queued = (await world.database.query("select count(*) from runs where ended_ms is null"))[0][0]
        await world.start_server()
        taken_full, taken_cpu_full = await _queue(world, batch)
        given_full = await _give_out(world, 2 * batch)
        memory_mb = usage.peak_rss_mb(world.server.pid)
    return Measured(
        {
            "queued_runs": queued,
            "taken_per_s": taken_full,
            "taken_ratio": taken_full / taken,
            "taken_cpu_ratio": taken_cpu_full / taken_cpu,
            "given_per_s": given_full,
            "given_ratio": given_full / given,
            "rss_mb": memory_mb,
        }
    )


async def _queue(world: World, events: int, *, register: bool = False) -> tuple[float, float]:
    """Sends events while no worker is there; how many a second were taken in, and milliseconds of CPU for each."""
    if register:
        await asyncio.gather(*(worker.stop() for worker in world.workers))
        world.workers.clear()
    report = await world.run_load("burst", events)
    return events / (report.sent_ms - report.started_ms) * 1000, report.cpu.all_ms / events


async def _give_out(world: World, runs: int) -> float:
    """Connects a worker; how many runs a second it had done when these were."""
    await world.start_workers(world.shape.workers)
    sql = "select count(*), min(started_ms), max(ended_ms) from runs where ended_ms is not null"
    while True:
        done, first_ms, last_ms = (await world.database.query(sql))[0]
        if done >= runs:
            return done / (last_ms - first_ms) * 1000
        if not world.server.alive:
            raise world.server.failed("ended")
        await asyncio.sleep(0.5)


async def streams(lab: Lab, side: Side, options: Options) -> Measured:
    """200 workers connect, each on a connection of its own: what the server's memory grows by for each."""
    count = options.runs_or(200)
    async with open_world(lab, side, Shape(payload=options.payload)) as world:
        await measure_burst(world, 300)
        arguments = ["bench.streams", "--address", world.address]
        few = await Child.start("few", [*arguments, "--count", "10"], world.logs, {})
        await few.expect("ready")
        await asyncio.sleep(SETTLE_S)
        before = usage.rss_mb(world.server.pid)
        many = await Child.start("many", [*arguments, "--count", str(count)], world.logs, {})
        try:
            await many.expect("ready")
            await asyncio.sleep(SETTLE_S)
            more_mb = usage.rss_mb(world.server.pid) - before
        finally:
            await many.stop()
            await few.stop()
        return Measured({"more_kb_each": more_mb * 1024 / count})


PRODUCTION = (
    Workload("slow-disk", slow_disk, both=False, profiles=("postgres",)),
    Workload("backlog", backlog, both=False, blocks=1),
    Workload("streams", streams, both=False, blocks=1),
)
