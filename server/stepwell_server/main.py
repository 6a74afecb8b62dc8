"""The wiring: the only file that knows the engine, the adapters and the transport. Tests call it too."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import logging
import os
import random
import signal
import socket
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection
from stepwell.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    event_pb2,
    event_pb2_grpc,
    function_pb2,
    function_pb2_grpc,
    run_pb2,
    run_pb2_grpc,
    step_pb2,
    step_pb2_grpc,
)

from stepwell_server import __version__
from stepwell_server.adapters.local.clock import SystemClock
from stepwell_server.adapters.local.limiter import LocalLimiter
from stepwell_server.adapters.local.queue import LocalQueue
from stepwell_server.engine import clockwork, drain
from stepwell_server.engine.cluster import Cluster
from stepwell_server.engine.gates import Gates
from stepwell_server.engine.hearing import Hearing
from stepwell_server.engine.housekeeping import Housekeeping
from stepwell_server.engine.lane import Lane
from stepwell_server.engine.lease import Lease
from stepwell_server.engine.membership import Membership
from stepwell_server.engine.node import Node, Tuning
from stepwell_server.engine.readiness import Readiness
from stepwell_server.engine.register import refresh
from stepwell_server.engine.retention import Forgetting
from stepwell_server.engine.timers import Timers
from stepwell_server.model.errors import InvalidError, StateError
from stepwell_server.ports.peers import Peers
from stepwell_server.settings import Settings
from stepwell_server.transport.admin_service import AdminService
from stepwell_server.transport.door import Door
from stepwell_server.transport.event_service import EventService
from stepwell_server.transport.function_service import FunctionService
from stepwell_server.transport.health import Health, StandingBy, bind
from stepwell_server.transport.run_service import RunService
from stepwell_server.transport.scope import Scope
from stepwell_server.transport.scrape import Scrape
from stepwell_server.transport.step_service import StepService

log = logging.getLogger("stepwell.server")

_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 8 * 1024 * 1024),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
]
_SERVICES = (event_pb2, function_pb2, run_pb2, step_pb2, admin_pb2)
_STANDBY_S = 0.5
_STOP_S = 5.0
_GRACE_S = 1.0
_TROUBLED_S = 0.1
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # malloc.h
_LARGE_BYTES = 256 * 1024


def database_kind(url: str) -> str:
    """ "memory", "postgresql" or "sqlite"."""
    if url.startswith("memory:"):
        return "memory"
    return "postgresql" if url.startswith(("postgresql:", "postgres:")) else "sqlite"


async def open_store(url: str) -> Any:
    """The store for a database URL; it implements Store and History."""
    if database_kind(url) == "memory":
        from stepwell_server.adapters.memory.store import MemoryStore

        return MemoryStore()
    from stepwell_server.adapters import sql

    return await sql.open_store(url)


async def open_peers(settings: Settings) -> Peers | None:
    """What connects this node with others; None for a node alone. Raises ServerErrors that say what to do."""
    if not settings.redis:
        return None
    if database_kind(settings.database) != "postgresql":
        raise InvalidError("REDIS_NEEDS_POSTGRES", "--redis is for many nodes on one Postgres; SQLite takes one node")
    from stepwell_server.adapters.redis import RedisPeers
    from stepwell_server.adapters.redis.link import check

    await check(settings.redis)
    return RedisPeers(settings.redis)


class Server:
    """One server process. start() returns once it serves; stop() may be called twice."""

    def __init__(self, settings: Settings, *, tuning: Tuning | None = None) -> None:
        self.settings = settings
        self.address = ""
        self.metrics_address = ""
        self.lost = asyncio.Event()
        self._tuning = tuning
        self._store: Any = None
        self._grpc: grpc.aio.Server | None = None
        self._scrape: Scrape | None = None
        self._standing_by: StandingBy | None = None
        self._stopped = False
        self.node: Node
        self.scope: Scope

    async def start(self) -> None:
        """Opens the store, takes the lease, heals, listens. Raises ServerErrors that say what to do."""
        settings = self.settings
        host, port = _split(settings.listen)
        _check_port(host, port)
        if settings.metrics:
            _check_port(*_split(settings.metrics))
        _tune_memory()
        try:
            if settings.wait_for_lease and port:
                self._standing_by = StandingBy(_OPTIONS)
                await self._standing_by.start(host, port)
            peers = await open_peers(settings)
            self._store = store = await self._opened()
            await self._assemble(store, peers)
            if settings.metrics:
                await self._show_metrics(*_split(settings.metrics))
            await self._leave_standby()
            await self._listen(host, port)
            if settings.counters:
                asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self.write_counters)
            _tune_gc()
        except BaseException:
            await self.stop()
            raise

    async def _opened(self) -> Any:
        """The store. A file is locked while a server holds it; of another database the lease says so."""
        told = False
        while True:
            try:
                return await open_store(self.settings.database)
            except StateError as error:
                if not self.settings.wait_for_lease or error.reason != "DATABASE_IN_USE":
                    raise
                if not told:
                    log.warning("standing by: %s", error.message)
                    told = True
                await asyncio.sleep(_STANDBY_S)

    async def _leave_standby(self) -> None:
        if self._standing_by is not None:
            standing_by, self._standing_by = self._standing_by, None
            await standing_by.stop()

    async def _assemble(self, store: Any, peers: Peers | None = None) -> None:
        settings = self.settings
        dev = settings.profile == "dev"
        clock = SystemClock(int(await store.setting(clockwork.OFFSET) or 0) if dev else 0)
        node_id = os.urandom(8).hex()
        cluster = Cluster(node_id, peers, clock) if peers is not None else None
        self._queue = LocalQueue(store) if cluster is None else LocalQueue(store, cluster.share)
        node = self.node = Node(
            id_=node_id,
            store=store,
            history=store,
            claims=store,
            homes=store,
            lane=Lane(store),
            clock=clock,
            queue=self._queue,
            limiter=LocalLimiter(),
            entropy=os.urandom,
            chance=random.random,
            tuning=self._tuning,
        )
        Gates(node)
        self.scope = Scope(
            __version__,
            settings.profile,
            database_kind(settings.database),
            settings.environment,
            frozenset({settings.environment}),
        )
        node.cluster = cluster
        self._timers = Timers(node)
        self._housekeeping = Housekeeping(node, _is_gone)
        self._clock = clock if dev else None
        await self._take_part(node, cluster)
        await refresh(node, node.environment(settings.environment))
        await self._housekeeping.start(settings.environment)
        await self._timers.start()
        self._forgetting = Forgetting(node, store.retention)
        self._forgetting.start(settings.environment)

    async def _take_part(self, node: Node, cluster: Cluster | None) -> None:
        """From now on this node serves the database: alone, or with others."""
        info = f"{socket.gethostname()} {_boot_id()} {_pid_space()} {os.getpid()}"
        wait, env = self.settings.wait_for_lease, self.settings.environment
        if cluster is None:
            self._lease = Lease(node, info, _is_dead, self.lost.set)
            await self._lease.acquire(wait=wait)
            await self._lease.start()
            node.alone_since_ms = node.clock.now_ms()
            return
        self._lease = member = Membership(node, info, _is_dead, self.lost.set)
        await member.acquire(wait=wait)
        await member.start()
        self._hearing = Hearing(
            node, cluster, lambda: self._housekeeping.others_changed(env), self._say_health
        )  # fmt: skip
        await self._hearing.start(member.cluster_id)

    async def _say_health(self, trouble: str) -> None:
        """The health service tells of Redis under a name of its own: without it work is slower, and nothing is lost."""
        if hasattr(self, "_health"):
            await self._health.redis(trouble)

    async def _listen(self, host: str, port: int) -> None:
        node, scope = self.node, self.scope
        server = self._grpc = grpc.aio.server(options=_OPTIONS)
        door = Door(server)
        event_pb2_grpc.add_EventServiceServicer_to_server(EventService(node, scope), door)
        function_pb2_grpc.add_FunctionServiceServicer_to_server(FunctionService(node, scope), door)
        run_pb2_grpc.add_RunServiceServicer_to_server(RunService(node, scope), door)
        step_pb2_grpc.add_StepServiceServicer_to_server(StepService(node, scope), door)
        admin = AdminService(node, scope, self._timers, self._clock)
        admin_pb2_grpc.add_AdminServiceServicer_to_server(admin, door)
        names = [service.full_name for m in _SERVICES for service in m.DESCRIPTOR.services_by_name.values()]
        self._health = Health(server, names)
        reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
        bound = bind(server, host, port)
        await self._health.alive()
        self._readiness = Readiness(node, self._health.told)
        await self._readiness.start()
        await server.start()
        self.address = f"{host}:{bound}"
        if node.cluster is not None:
            await self._health.redis(node.cluster.peers.trouble)

    async def _show_metrics(self, host: str, port: int) -> None:
        # Prometheus' library is loaded, and anything counted, only where somebody asked for it.
        from stepwell_server.telemetry import CONTENT_TYPE, Telemetry

        telemetry = Telemetry(self.node, self.scope, self._timers, self._queue, lambda: getattr(self._store, "rows", 0))
        self._scrape = Scrape(telemetry.text, CONTENT_TYPE)
        self.metrics_address = await self._scrape.start(host, port)

    async def drain(self) -> None:
        """Tells the workers that this server leaves, and finishes what is in flight; not where the lease is lost."""
        node = self.node
        node.stopping = True
        self._stop_services()
        if self.lost.is_set():
            return
        if not await drain.drain(node, "the server stops"):
            log.warning("leaving while work is in flight: the workers bring it to the next server")

    def _stop_services(self) -> None:
        for service in ("_timers", "_housekeeping", "_forgetting", "_readiness"):
            if hasattr(self, service):
                getattr(self, service).stop()

    async def stop(self) -> None:
        """Workers keep their runs in memory and connect to the next server; what is queued for the store is written."""
        if self._stopped:
            return
        self._stopped = True
        await self._leave_standby()
        node = getattr(self, "node", None)
        if self._grpc is not None:
            await self._health.leave()
            await self.drain()
            await self._grpc.stop(_GRACE_S)
        if node is not None:
            node.stopping = True
            self._stop_services()
            # A store in trouble was given its time by the drain: what it has not taken, workers and clients still have.
            patience_s = _STOP_S if node.lane.trouble is None else _TROUBLED_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(node.lane.settle(), patience_s)
            if hasattr(self, "_hearing"):
                await self._hearing.stop()
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self._lease.stop(), patience_s)
            await node.cancel_tasks()
        if self._scrape is not None:
            await self._scrape.stop()
        if self._store is not None:
            await self._store.close()
        self.write_counters()

    def write_counters(self) -> None:
        """Writes counters for the benchmark, if asked to."""
        if not self.settings.counters or not hasattr(self, "node"):
            return
        counters = {
            "commits": self._store.commits,
            "rows": self._store.rows,
            "frames_in": self.scope.counters.frames_in,
            "frames_out": self.scope.counters.frames_out,
        }
        path = Path(self.settings.counters)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(counters))
        partial.replace(path)


def _tune_memory() -> None:
    """What a large payload took goes back to the system (glibc).

    Two arenas for all threads: with one each, what passes through five threads stays five times. Large blocks have
    pages of their own: glibc would raise that bound to the largest block it ever freed, and then they leave holes.
    """
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_ARENA_MAX, 2)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def _tune_gc() -> None:
    """What lives since the start need not be looked at again; cycles are rare on the hot path."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def _split(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise InvalidError("BAD_ADDRESS", f"{listen!r} is not host:port")
    return host, int(port)


def _check_port(host: str, port: int) -> None:
    """A port in use is told before anything else is touched."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            raise StateError("PORT_IN_USE", f"cannot listen on {host}:{port}: {error.strerror}") from error


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


def _pid_space() -> str:
    """Two containers of one host name see different processes."""
    try:
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        return "unknown"


def _is_gone(instance: str) -> bool:
    """Whether a worker was a process of this host that has ended."""
    host, _, pid = instance.rpartition(":")
    return host == socket.gethostname() and pid.isdecimal() and not Path(f"/proc/{pid}").exists()


def _is_dead(info: str) -> bool:
    """Whether the holder of a lease was a process of this host and boot that has ended (H12e)."""
    host, boot, space, pid = [*info.split(" "), "", "", "", ""][:4]
    ours = (socket.gethostname(), _boot_id(), _pid_space())
    if (host, boot, space) != ours or "unknown" in ours or not pid.isdecimal():
        return False
    return not Path(f"/proc/{pid}").exists()
