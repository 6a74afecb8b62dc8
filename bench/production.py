"""Workloads of a server in production: a slow disk, a backlog, many workers, limits, Redis and a second node."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from itertools import pairwise

from bench import usage
from bench.databases import Database
from bench.fill import multiply
from bench.processes import Child
from bench.results import percentile
from bench.shape import Shape
from bench.sides import Side
from bench.workloads import WARM_UP, Measured, Options, Workload, measure_burst, per_unit
from bench.world import Lab, World, open_world
from tests.support.redis import RedisServer

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


async def limits(lab: Lab, side: Side, options: Options) -> Measured:
    """A burst of a function without limits, and one of a function with a limit of 50 for each of 100 keys, and a
    throttle that never holds anything."""
    runs = options.runs_or(10_000)
    async with open_world(lab, side, _limited(options)) as world:
        plain = await _events(world, "bench/three", runs)
        measured = await _events(world, "bench/limited", runs)
    plain_rate = plain.values["runs_per_s"]
    return Measured(
        {
            "runs_per_s": measured.values["runs_per_s"],
            "runs_ratio": measured.values["runs_per_s"] / plain_rate,
            "cpu_ratio": measured.values["cpu_ms"] / plain.values["cpu_ms"],
        }
    )


def _limited(options: Options) -> Shape:
    return Shape(steps=options.steps, payload=options.payload, app=("--limits",))


async def slot(lab: Lab, side: Side, options: Options) -> Measured:
    """Runs of a function of which one may execute: from the end of each to the start of the next."""
    runs = options.runs_or(300)
    async with open_world(lab, side, _limited(options)) as world:
        await _events(world, "bench/alone", runs)
        sql = "select started_ms, ended_ms from runs where function_id = 'bench/alone' order by started_ms, ended_ms"
        rows = await world.database.query(sql)
        gaps = sorted(after[0] - before[1] for before, after in pairwise(rows))
        return Measured({"reused_p50_ms": percentile(gaps, 0.5), "reused_p95_ms": percentile(gaps, 0.95)})


async def redis(lab: Lab, side: Side, options: Options) -> Measured:
    """A burst at a server alone, at one with Redis, and at two that share two workers."""
    runs = options.runs_or(10_000)
    shape = Shape(workers=2, steps=options.steps, payload=options.payload)
    async with open_world(lab, side, shape) as world:
        alone = await measure_burst(world, runs)
    with _redis(lab) as server:
        async with open_world(lab, side, shape, server=server) as world:
            beside = await measure_burst(world, runs)
        async with open_world(lab, side, Shape(steps=options.steps, payload=options.payload), server=server) as world:
            await _worker_elsewhere(world, server)
            both = await measure_burst(world, runs)
    return Measured(
        {
            "runs_per_s": beside.values["runs_per_s"],
            "runs_ratio": beside.values["runs_per_s"] / alone.values["runs_per_s"],
            "cpu_ratio": both.values["cpu_ms"] / beside.values["cpu_ms"],
        }
    )


async def across(lab: Lab, side: Side, options: Options) -> Measured:
    """One run at a time: its worker is connected to the node that takes the event, or to the other one."""
    runs = options.runs_or(340)
    shape = Shape(steps=options.steps, payload=options.payload)
    with _redis(lab) as server:
        async with open_world(lab, side, shape, server=server) as world:
            here = (await world.run_load("one", runs, warm_up=50)).latencies_ms
        async with open_world(lab, side, Shape(workers=0, payload=options.payload), server=server) as world:
            await _worker_elsewhere(world, server)
            there = (await world.run_load("one", runs, warm_up=50)).latencies_ms
    here_ms, there_ms = percentile(sorted(here), 0.5), percentile(sorted(there), 0.5)
    return Measured({"here_p50_ms": here_ms, "across_p50_ms": there_ms, "p50_ratio": there_ms / here_ms})


@contextmanager
def _redis(lab: Lab) -> Generator[tuple[str, ...]]:
    """A Redis of our own; what a server is started with to use it."""
    with RedisServer(lab.scratch) as server:
        yield ("--redis", server.url)


async def _worker_elsewhere(world: World, server: tuple[str, ...]) -> None:
    """A second node, and a worker that knows it alone."""
    address, world.address = world.address, await world.start_node(*server)
    workers, world.workers = world.workers, []
    await world.start_workers(1)
    world.address, world.workers = address, [*workers, *world.workers]


async def _events(world: World, name: str, runs: int) -> Measured:
    """A burst of one function's events, each with a number of its own."""
    ended_ms = 0

    async def until(since_ms: int) -> None:
        nonlocal ended_ms
        ended_ms = await world.wait_finished(since_ms, runs if ended_ms else min(runs, WARM_UP))

    load = ("--name", name, "--data", '{"key":$i}')
    await world.run_load("events", min(runs, WARM_UP), *load, until=until)
    report = await world.run_load("events", runs, *load, until=until)
    values = per_unit(report, runs)
    values["runs_per_s"] = runs / (ended_ms - report.started_ms) * 1000
    return Measured(values)


PRODUCTION = (
    Workload("slow-disk", slow_disk, both=False, profiles=("postgres",)),
    Workload("backlog", backlog, both=False, blocks=1),
    Workload("streams", streams, both=False, blocks=1),
    Workload("limits", limits, both=False),
    Workload("slot", slot, both=False),
    Workload("redis", redis, both=False, profiles=("postgres",)),
    Workload("across", across, both=False, profiles=("postgres",)),
)
