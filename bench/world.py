"""One server on a fresh database with its workers: load it, watch it, measure it."""

from __future__ import annotations

import asyncio
import json
import signal
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import usage
from bench.databases import Database, PostgresDatabase, SqliteDatabase
from bench.processes import Child, free_address
from bench.shape import Shape
from bench.sides import Side
from tests.support.postgres import PostgresServer

POLL_S = 0.1
COUNTERS_DEADLINE_S = 5.0


@dataclass(frozen=True, slots=True)
class Report:
    """What a load process said, and what was used meanwhile."""

    started_ms: float
    sent_ms: float
    latencies_ms: list[float]
    since_ms: int  # runs of this load have ids of this time or later
    cpu: usage.Cpu
    counters: dict[str, int]
    extra: dict[str, Any]


class Lab:
    """Where databases are made: a folder of scratch files, and a Postgres server if the profile wants one."""

    def __init__(self, profile: str, scratch: Path, postgres: PostgresServer | None) -> None:
        self.profile = profile
        self.scratch = scratch
        self._postgres = postgres
        self._databases = 0

    def database(self) -> Database:
        self._databases += 1
        name = f"bench_{self._databases}"
        if self._postgres:
            return PostgresDatabase(self._postgres, name)
        return SqliteDatabase(self.scratch / f"{name}.db")


class World:
    """A running server with its workers. Made by `open_world`."""

    def __init__(self, side: Side, database: Database, logs: Path, shape: Shape) -> None:
        self.side = side
        self.database = database
        self.shape = shape
        self.address = ""
        self.server: Child
        self.workers: list[Child] = []
        self.nodes: list[Child] = []
        """Servers beside the first."""
        self.logs = logs
        self._counters = logs / "counters.json"
        self._loads = 0

    async def start_server(self, *extra: str) -> None:
        self.address = free_address()
        environment = {"STEPWELL_COUNTERS": str(self._counters)}
        arguments = [*self.side.server(self.database.url, self.address), *extra]
        self.server = await Child.start("server", arguments, self.logs, environment)
        await self.side.wait_for_server(self.server, self.address)

    async def start_node(self, *extra: str) -> str:
        """Another server on the same database; its address."""
        address = free_address()
        arguments = [*self.side.server(self.database.url, address), *extra]
        node = await Child.start(f"node{len(self.nodes)}", arguments, self.logs, {})
        self.nodes.append(node)
        await self.side.wait_for_server(node, address)
        return address

    async def start_workers(self, count: int, *extra: str) -> list[Child]:
        arguments = [*self.side.worker(self.address, self.shape), *extra]
        alive = sum(worker.alive for worker in self.workers)
        new = [await Child.start(f"worker{len(self.workers) + i}", arguments, self.logs, {}) for i in range(count)]
        self.workers += new
        await self.side.wait_for_workers(new, self.address, alive + count)
        return new

    async def start_program(self, program: tuple[str, ...]) -> Child:
        """A worker that is no Python module; it takes the same options as bench/app.py."""
        shape = self.shape
        arguments = ["--address", self.address, "--capacity", str(shape.capacity), "--steps", str(shape.steps),
                     "--payload", str(shape.payload)]  # fmt: skip
        alive = sum(worker.alive for worker in self.workers)
        worker = await Child.start(f"worker{len(self.workers)}", arguments, self.logs, {}, program)
        self.workers.append(worker)
        await self.side.wait_for_workers([worker], self.address, alive + 1)
        return worker

    async def stop(self) -> None:
        await asyncio.gather(*(worker.stop() for worker in self.workers))
        await asyncio.gather(self.server.stop(), *(node.stop() for node in self.nodes))

    def cpu(self) -> usage.Cpu:
        postmaster = self.database.postmaster
        return usage.Cpu(
            usage.cpu_ms([self.server.pid, *(node.pid for node in self.nodes if node.alive)]),
            usage.cpu_ms_of_family(postmaster) if postmaster else 0.0,
            usage.cpu_ms([worker.pid for worker in self.workers if worker.alive]),
        )

    async def counters(self) -> dict[str, int]:
        """The server's own counters: it writes them when it gets SIGUSR1."""
        self._counters.unlink(missing_ok=True)
        self.server.signal(signal.SIGUSR1)
        deadline = time.monotonic() + COUNTERS_DEADLINE_S
        while time.monotonic() < deadline and self.server.alive:
            if self._counters.exists():
                try:
                    return json.loads(self._counters.read_text())
                except json.JSONDecodeError:
                    pass  # half written
            await asyncio.sleep(0.005)
        raise self.server.failed("wrote no counters on SIGUSR1")

    async def run_load(
        self,
        workload: str,
        runs: int,
        *extra: str,
        warm_up: int = 0,
        until: Callable[[int], Awaitable[None]] | None = None,
        prepared: Callable[[], Awaitable[None]] | None = None,
        deadline_s: float = 600.0,
    ) -> Report:
        """Runs a load process; `until(since_ms)` then waits for its effect. CPU and counters span both.

        `prepared()` waits for the effect of what the load did before it was ready. `warm_up` runs come before, alike.
        """
        if warm_up:
            await self.run_load(workload, warm_up, *extra, until=until, deadline_s=deadline_s)
        self._loads += 1
        arguments = self.side.load(self.address, workload, runs, self.shape, list(extra))
        load = await Child.start(f"load{self._loads}", arguments, self.logs, {})
        try:
            await load.expect("ready", deadline_s)
            if prepared:
                await prepared()
            await asyncio.sleep(0.005)  # ids of what came before have an earlier millisecond
            counters = await self.counters()
            cpu = self.cpu()
            since_ms = int(time.time() * 1000)
            load.send("go")
            said = json.loads(await load.line(deadline_s))
            if until:
                await until(since_ms)
            used = self.cpu().since(cpu)
            after = await self.counters()
        finally:
            await load.stop()
        return Report(
            started_ms=said.pop("started_ms"),
            sent_ms=said.pop("sent_ms"),
            latencies_ms=said.pop("latencies_ms"),
            since_ms=since_ms,
            cpu=used,
            counters={name: value - counters.get(name, 0) for name, value in after.items()},
            extra=said,
        )

    async def wait_finished(self, since_ms: int, runs: int, deadline_s: float = 600.0) -> int:
        """Waits until so many runs created since then have ended; returns when the last one did, in Unix ms."""
        deadline = time.monotonic() + deadline_s
        while True:
            count, ended_ms = await self.side.finished(self.database, since_ms)
            if count >= runs:
                return ended_ms
            if not self.server.alive:
                raise self.server.failed("ended")
            if time.monotonic() > deadline:
                raise self.server.failed(f"finished {count} of {runs} runs in {deadline_s:.0f} s")
            await asyncio.sleep(POLL_S)


@asynccontextmanager
async def open_world(
    lab: Lab,
    side: Side,
    shape: Shape,
    prepare: Callable[[Database], Awaitable[None]] | None = None,
    server: tuple[str, ...] = (),
) -> AsyncGenerator[World]:
    """A fresh database, prepared, a server on it, and workers that are connected. All end with the block.

    server: further arguments of the server.
    """
    logs = Path(tempfile.mkdtemp(prefix=f"{side.name}-", dir=lab.scratch))
    database = lab.database()
    world = World(side, database, logs, shape)
    try:
        if prepare is not None:
            await prepare(database)
        await world.start_server(*server)
        await world.start_workers(shape.workers)
        yield world
    finally:
        if hasattr(world, "server"):
            await world.stop()
        await database.close()
