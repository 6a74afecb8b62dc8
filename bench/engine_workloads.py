"""The workloads that only the engine can do; most are compared with its own burst."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import grpc
import grpc.aio

from bench import usage
from bench.fill import multiply
from bench.load import OPTIONS, Client, run_of
from bench.results import percentile
from bench.shape import Shape
from bench.sides import Side, id_at
from bench.workloads import Measured, Options, Workload, measure_burst, per_unit
from bench.world import Lab, World, open_world

SETTLE_S = 10.0
IDLE_S = 60.0
GATE_DEADLINE_S = 120.0


async def fanout_functions(lab: Lab, side: Side, options: Options) -> Measured:
    """One event starts 1,000 functions; five such events."""
    functions = options.runs_or(1_000)
    shape = Shape(steps=options.steps, payload=options.payload, app=("--functions", str(functions)))
    return await _fanout(lab, side, shape, ("--name", "bench/fan"), events=5, runs_each=functions)


async def fanout_steps(lab: Lab, side: Side, options: Options) -> Measured:
    """One run does 1,000 steps at once; five such runs. The cost is that of a step."""
    branches = options.runs_or(1_000)
    data = json.dumps({"branches": branches})
    shape = Shape(payload=options.payload)
    return await _fanout(lab, side, shape, ("--name", "bench/parallel", "--data", data), events=5, units_each=branches)


async def _fanout(
    lab: Lab, side: Side, shape: Shape, load: tuple[str, ...], *, events: int, runs_each: int = 1, units_each: int = 0
) -> Measured:
    async with open_world(lab, side, shape) as world:
        ended_ms = 0

        async def until(since_ms: int) -> None:
            nonlocal ended_ms
            ended_ms = await world.wait_finished(since_ms, (events if ended_ms else 1) * runs_each)

        report = await world.run_load("events", events, *load, "--batch", "1", warm_up=1, until=until)
        units = events * (units_each or runs_each)
        values = per_unit(report, units)
        values["runs_per_s"] = units / (ended_ms - report.started_ms) * 1000
        return Measured(values)


async def fanout_waits(lab: Lab, side: Side, options: Options) -> Measured:
    """One event wakes 1,000 waiting runs, which do a step and end; five such events."""
    each, events = options.runs_or(1_000), 5
    async with open_world(lab, side, Shape(payload=options.payload)) as world:
        since_ms = int(time.time() * 1000)
        for key in range(events + 1):
            await world.run_load("events", each, "--name", "bench/wait", "--data", f'{{"key":{key}}}')
        await wait_for_waits(world, each * (events + 1))
        ended_ms, expected = 0, each

        async def until(_: int) -> None:
            nonlocal ended_ms, expected
            ended_ms = await world.wait_finished(since_ms, expected)
            expected = each * (events + 1)

        # The last key is answered first, to warm up; its number is written out.
        answer = ("--name", "bench/answer", "--batch", "1")
        await world.run_load("events", 1, *answer, "--data", f'{{"key":{events}}}', until=until)
        report = await world.run_load("events", events, *answer, "--data", '{"key":$i}', until=until)
        values = per_unit(report, each * events)
        values["runs_per_s"] = each * events / (ended_ms - report.started_ms) * 1000
        return Measured(values)


async def long(lab: Lab, side: Side, options: Options) -> Measured:
    """One run of 10,000 steps in sequence: its second half must not be slower than its first."""
    steps = options.runs_or(9_999)
    async with open_world(lab, side, Shape(payload=options.payload)) as world:
        output = await _output(world, "bench/long", {"steps": steps}, deadline_s=300)
        first, second = output["first_ms"], output["second_ms"]
        return Measured({"first_half_ms": first, "second_half_ms": second, "second_half_ratio": second / first})


async def reentry(lab: Lab, side: Side, options: Options) -> Measured:
    """A worker is killed after 1,000 steps: time from the Assign at the next one until it is at the next step."""
    steps = options.runs_or(1_000)
    async with open_world(lab, side, Shape(workers=0, payload=options.payload)) as world:
        (first,) = await world.start_workers(1, "--hang")
        async with grpc.aio.insecure_channel(world.address, options=OPTIONS) as channel:
            await Client(channel).send("bench/reentry", [json.dumps({"steps": steps}).encode()])
        await first.line(GATE_DEADLINE_S)
        (second,) = await world.start_workers(1, "--note-assigns")
        killed = time.monotonic()
        await first.kill()
        gate = json.loads((await second.line(GATE_DEADLINE_S)).removeprefix("gate "))
        moved_ms = (time.monotonic() - killed) * 1000
        back_ms = (gate["here"] - gate["assigned"]) * 1000
        return Measured({"back_ms": back_ms, "moved_ms": moved_ms, "journal_steps": steps})


async def big(lab: Lab, side: Side, options: Options) -> Measured:
    """200 runs with 1 MB in and 1 MB out: what the server's memory grows to."""
    runs = options.runs_or(200)
    async with open_world(lab, side, Shape(payload=200)) as world:
        before = usage.rss_mb(world.server.pid)

        async def until(since_ms: int) -> None:
            await world.wait_finished(since_ms, runs)

        data = ("--payload", "1000000")
        report = await world.run_load("events", runs, "--name", "bench/big", *data, until=until)
        values = per_unit(report, runs)
        peak = usage.peak_rss_mb(world.server.pid)
        values |= {"rss_mb": peak, "more_mb": peak - before}
        return Measured(values)


async def sleepers(lab: Lab, side: Side, options: Options) -> Measured:
    """100,000 runs sleep until one instant, then do a step: memory and CPU meanwhile, speed of the waking."""
    runs = options.runs_or(100_000)
    async with open_world(lab, side, Shape(payload=options.payload)) as world:
        await measure_burst(world, 300)
        before = usage.rss_mb(world.server.pid)
        since_ms = int(time.time() * 1000)
        until_ms = since_ms + int((30 + runs / 1000 + SETTLE_S + IDLE_S) * 1000)
        await world.run_load("events", runs, "--name", "bench/sleep", "--data", f'{{"until_ms":{until_ms}}}')
        await wait_for_waits(world, runs)
        await asyncio.sleep(SETTLE_S)
        more_mb = usage.rss_mb(world.server.pid) - before
        cpu = world.cpu()
        await asyncio.sleep(IDLE_S)
        idle = world.cpu().since(cpu)
        if time.time() * 1000 > until_ms:
            raise world.server.failed("took so long to park the runs that the first slept too short a time")
        woken = world.cpu()
        ended_ms = await world.wait_finished(since_ms, runs)
        used = world.cpu().since(woken)
        return Measured(
            {
                "more_mb": more_mb,
                "idle_core_percent": (idle.server_ms + idle.database_ms) / (IDLE_S * 1000) * 100,
                "runs_per_s": runs / (ended_ms - until_ms) * 1000,
                "cpu_ms": used.all_ms / runs,
            }
        )


async def full(lab: Lab, side: Side, options: Options) -> Measured:
    """A burst into an empty database, and one into a database with 1,000,000 finished runs."""
    stored = options.runs_or(1_000_000)
    seeds = 1_000
    shape = Shape(steps=options.steps, payload=options.payload)
    async with open_world(lab, side, shape) as world:
        empty = await measure_burst(world, 10_000)
    async with open_world(lab, side, shape) as world:
        await measure_burst(world, seeds)
        await world.stop()
        have = (await world.database.query("select count(*) from runs"))[0][0]
        await multiply(world.database, max(1, round(stored / have) - 1))
        have = (await world.database.query("select count(*) from runs"))[0][0]
        world.workers.clear()
        await world.start_server()
        await world.start_workers(shape.workers)
        measured = await measure_burst(world, 10_000)
    measured.values["stored_runs"] = have
    measured.values["cpu_ratio"] = measured.values["cpu_ms"] / empty.values["cpu_ms"]
    return measured


async def waits(lab: Lab, side: Side, options: Options) -> Measured:
    """Runs that wait for one event name with different match values: event to outcome, with ten and with 100,000."""
    many, samples = options.runs_or(100_000), 200
    medians: list[float] = []
    for waiters in (10, many):
        async with open_world(lab, side, Shape(payload=options.payload)) as world:

            async def prepared(world: World = world, waiters: int = waiters) -> None:
                await wait_for_waits(world, waiters)

            report = await world.run_load("answers", samples, "--waiters", str(waiters), prepared=prepared)
            medians.append(percentile(sorted(report.latencies_ms), 0.5))
    few_ms, many_ms = medians
    return Measured({"p50_few_ms": few_ms, "p50_many_ms": many_ms, "p50_ratio": many_ms / few_ms})


async def wait_for_waits(world: World, count: int, deadline_s: float = 600.0) -> None:
    """Waits until so many sleeps and event waits are open."""
    deadline = time.monotonic() + deadline_s
    while True:
        open_now = (await world.database.query("select count(*) from waits"))[0][0]
        if open_now >= count:
            return
        if time.monotonic() > deadline or not world.server.alive:
            raise world.server.failed(f"opened {open_now} of {count} waits in {deadline_s:.0f} s")
        await asyncio.sleep(0.25)


async def _output(world: World, event: str, data: dict[str, Any], deadline_s: float) -> Any:
    """Starts a run and returns its output."""
    from stepwell.v1 import run_pb2, run_pb2_grpc

    since_ms = int(time.time() * 1000)
    async with grpc.aio.insecure_channel(world.address, options=OPTIONS) as channel:
        client = Client(channel)
        (event_id,) = await client.send(event, [json.dumps(data).encode()])
        run_id = run_of(event_id, event)
        assert run_id >= id_at("run", since_ms)
        await world.wait_finished(since_ms, 1, deadline_s)
        runs: Any = run_pb2_grpc.RunServiceStub(channel)
        run = (await runs.GetRun(run_pb2.GetRunRequest(run_id=run_id))).run
        if run.status != run_pb2.RUN_STATUS_COMPLETED:
            raise world.server.failed(f"ended {run_id} as {run_pb2.RunStatus.Name(run.status)}: {run.failure.message}")
        return json.loads(run.output.data)


ENGINE_ONLY = (
    Workload("fanout-functions", fanout_functions, both=False),
    Workload("fanout-waits", fanout_waits, both=False),
    Workload("fanout-steps", fanout_steps, both=False),
    Workload("long", long, both=False, blocks=1),
    Workload("reentry", reentry, both=False),
    Workload("big", big, both=False, blocks=1),
    Workload("sleepers", sleepers, both=False, blocks=1),
    Workload("full", full, both=False, blocks=1),
    Workload("waits", waits, both=False, blocks=1),
)
