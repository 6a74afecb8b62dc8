"""The two sides of every comparison: how each is started, and how its tables are read."""

from __future__ import annotations

import asyncio
import importlib.util
import time
from typing import Any, Protocol

import grpc
import grpc.aio

from bench.databases import Database
from bench.processes import Child, ChildError
from bench.shape import Shape

WORKERS_DEADLINE_S = 60.0


class Side(Protocol):
    """What the harness must know of a server to drive and check it."""

    name: str

    def server(self, database_url: str, address: str) -> list[str]:
        """Arguments of `python -m` for the server."""
        ...

    def worker(self, address: str, shape: Shape) -> list[str]: ...

    def load(self, address: str, workload: str, runs: int, shape: Shape, extra: list[str]) -> list[str]: ...

    async def wait_for_server(self, child: Child, address: str) -> None: ...

    async def wait_for_workers(self, children: list[Child], address: str, count: int) -> None:
        """`count` workers are connected in all; `children` are the newest of them."""
        ...

    async def finished(self, database: Database, since_ms: int) -> tuple[int, int]:
        """How many runs created since then have ended, and when the last did."""
        ...

    async def events(self, database: Database, since_ms: int) -> int:
        """How many events were stored since then."""
        ...

    async def wrong_rows(self, database: Database, since_ms: int, steps: int) -> list[str]:
        """Runs that do not have exactly their rows, in words; at most ten."""
        ...


class Baseline:
    """The toy."""

    name = "baseline"

    def server(self, database_url: str, address: str) -> list[str]:
        return ["bench.baseline.server", "--database", database_url, "--listen", address]

    def worker(self, address: str, shape: Shape) -> list[str]:
        return ["bench.baseline.worker", "--address", address, "--capacity", str(shape.capacity),
                "--steps", str(shape.steps), "--payload", str(shape.payload)]  # fmt: skip

    def load(self, address: str, workload: str, runs: int, shape: Shape, extra: list[str]) -> list[str]:
        return ["bench.baseline.load", "--address", address, "--workload", workload, "--runs", str(runs),
                "--payload", str(shape.payload), *extra]  # fmt: skip

    async def wait_for_server(self, child: Child, address: str) -> None:
        await child.expect("ready")

    async def wait_for_workers(self, children: list[Child], address: str, count: int) -> None:
        for child in children:
            await child.expect("ready")

    async def finished(self, database: Database, since_ms: int) -> tuple[int, int]:
        sql = "select count(*), coalesce(max(ended_ms), 0) from ends where run_id >= $1"
        return (await database.query(sql, id_at("run", since_ms)))[0]

    async def events(self, database: Database, since_ms: int) -> int:
        return (await database.query("select count(*) from events where id >= $1", id_at("evt", since_ms)))[0][0]

    async def wrong_rows(self, database: Database, since_ms: int, steps: int) -> list[str]:
        sql = """
            select r.id, count(distinct e.id), count(s.number), coalesce(sum(s.number), 0), count(distinct n.run_id)
            from runs r left join events e on e.id = r.event_id left join steps s on s.run_id = r.id
            left join ends n on n.run_id = r.id where r.id >= $1 group by r.id
        """
        good = (1, steps, steps * (steps + 1) // 2, 1)
        rows = await database.query(sql, id_at("run", since_ms))
        return [f"{row[0]}: events, steps, their sum, ends = {row[1:]}, not {good}" for row in rows if row[1:] != good][
            :10
        ]


class Engine:
    """The real server, its SDK's worker, and a load over the generated stubs."""

    name = "engine"
    environment: str | None = None

    @staticmethod
    def exists() -> bool:
        return bool(importlib.util.find_spec("stepwell_server"))

    def server(self, database_url: str, address: str) -> list[str]:
        return ["stepwell", "serve", "--database", database_url, "--listen", address]

    def worker(self, address: str, shape: Shape) -> list[str]:
        return ["bench.app", "--address", address, "--capacity", str(shape.capacity), "--steps", str(shape.steps),
                "--payload", str(shape.payload), *shape.app]  # fmt: skip

    def load(self, address: str, workload: str, runs: int, shape: Shape, extra: list[str]) -> list[str]:
        return ["bench.load", "--address", address, "--workload", workload, "--runs", str(runs),
                "--payload", str(shape.payload), *extra]  # fmt: skip

    async def wait_for_server(self, child: Child, address: str) -> None:
        from stepwell.v1 import admin_pb2

        async def ask() -> str:
            async with grpc.aio.insecure_channel(address) as channel:
                info = await _admin(channel).GetServerInfo(
                    admin_pb2.GetServerInfoRequest(), timeout=WORKERS_DEADLINE_S, wait_for_ready=True
                )
                return info.default_environment

        asking = asyncio.create_task(ask())
        while not asking.done():
            if not child.alive:
                asking.cancel()
                raise child.failed("ended")
            await asyncio.wait([asking], timeout=0.2)
        self.environment = asking.result()

    async def wait_for_workers(self, children: list[Child], address: str, count: int) -> None:
        from stepwell.v1 import admin_pb2

        deadline = time.monotonic() + WORKERS_DEADLINE_S
        async with grpc.aio.insecure_channel(address) as channel:
            while time.monotonic() < deadline:
                answer = await _admin(channel).ListWorkers(admin_pb2.ListWorkersRequest())
                if sum(worker.connected for worker in answer.workers) >= count:
                    return
                for child in children:
                    if not child.alive:
                        raise child.failed("ended")
                await asyncio.sleep(0.05)
        raise ChildError(f"fewer than {count} workers are connected after {WORKERS_DEADLINE_S:.0f} s")

    async def finished(self, database: Database, since_ms: int) -> tuple[int, int]:
        sql = (
            "select count(*), coalesce(max(ended_ms), 0) from runs where env = $1 and id >= $2 and ended_ms is not null"
        )
        return (await database.query(sql, self.environment, id_at("run", since_ms)))[0]

    async def events(self, database: Database, since_ms: int) -> int:
        sql = "select count(*) from events where env = $1 and id >= $2"
        return (await database.query(sql, self.environment, id_at("evt", since_ms)))[0][0]

    async def wrong_rows(self, database: Database, since_ms: int, steps: int) -> list[str]:
        sql = """
            select r.id, count(o.key), coalesce(sum(o.number), 0), count(r.ended_ms)
            from runs r left join outcomes o on o.env = r.env and o.run_id = r.id
            where r.env = $1 and r.id >= $2 group by r.id
        """
        rows = await database.query(sql, self.environment, id_at("run", since_ms))
        wrong = [row for row in rows if row[1:3] != (steps, steps * (steps + 1) // 2) or not row[3]]
        return [f"{row[0]}: outcomes, sum of numbers, ended = {row[1:]}" for row in wrong][:10]


def id_at(prefix: str, since_ms: int) -> str:
    """The first id of a millisecond: ids begin with 12 hex digits of their time."""
    return f"{prefix}_{since_ms:012x}"


def _admin(channel: grpc.aio.Channel) -> Any:
    from stepwell.v1 import admin_pb2_grpc

    return admin_pb2_grpc.AdminServiceStub(channel)
