"""The processes of the simulated world: the real server's wiring without grpc, and the real SDK worker."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Generator
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import stepwell.connection
import stepwell.host
import stepwell.session
import stepwell.stream
import stepwell_server.main as wiring
from stepwell import App
from stepwell.reentry import Reentry
from stepwell.settings import WorkerSettings
from stepwell.worker import Worker
from stepwell_server.engine import wake
from stepwell_server.engine.node import Tuning
from stepwell_server.model.errors import ServerError
from stepwell_server.settings import Settings
from stepwell_server.transport.event_service import EventService
from stepwell_server.transport.function_service import FunctionService
from stepwell_server.transport.run_service import RunService
from stepwell_server.transport.step_service import StepService

from tests.simulation.loop import Process, SimClock, SimLoop, VirtualTime, current_process
from tests.simulation.network import Channel, Network, Stubs
from tests.simulation.peers import Board, SimPeers
from tests.simulation.store import FaultyStore

ENVIRONMENT = "sim"


@contextlib.contextmanager
def patched(
    loop: SimLoop,
    network: Network,
    rng: random.Random,
    is_dead: Callable[[str], bool],
    told: Callable[[Reentry, int], None],
    hint_lost: Callable[[], bool],
) -> Generator[None]:
    """Time, randomness and grpc of the product's modules are those of the simulation while the block runs.

    is_dead: whether the server process of this name has ended, as far as the next one can tell (H12e). told: sees
    every acknowledgement that a worker gets. hint_lost: whether a run is not told of an outcome that is durable (H16).
    """
    clock = VirtualTime()
    with contextlib.ExitStack() as stack:
        for module in (stepwell.host, stepwell.session, stepwell.stream):
            ours = clock if isinstance(module.time, ModuleType) else clock.time
            stack.enter_context(mock.patch.object(module, "time", ours))
        stack.enter_context(mock.patch.object(stepwell.session, "random", rng))
        acknowledge = Reentry.ack

        def ack(self: Reentry, number: int) -> None:
            told(self, number)
            acknowledge(self, number)

        stack.enter_context(mock.patch.object(Reentry, "ack", ack))
        for name in ("arrived", "child_ended"):
            stack.enter_context(mock.patch.object(wake, name, _unless(hint_lost, getattr(wake, name))))
        stack.enter_context(mock.patch.object(stepwell.stream, "open_channel", return_value=Channel()))
        stack.enter_context(mock.patch.object(stepwell.stream, "step_pb2_grpc", Stubs(network)))
        stack.enter_context(mock.patch.object(stepwell.connection, "_io", stepwell.connection.IoThread(loop)))
        stack.enter_context(mock.patch.object(wiring, "SystemClock", SimClock))
        stack.enter_context(mock.patch.object(wiring, "random", rng))
        system = SimpleNamespace(urandom=rng.randbytes, getpid=current_process)
        stack.enter_context(mock.patch.object(wiring, "os", system))
        stack.enter_context(mock.patch.object(wiring, "_is_dead", lambda info: is_dead(info.rpartition(" ")[2])))
        yield


def _unless(lost: Callable[[], bool], hint: Callable[..., None]) -> Callable[..., None]:
    def told(*arguments: Any) -> None:
        if not lost():
            hint(*arguments)

    return told


class SimServer(wiring.Server):
    """The server as main.py wires it, on a store that is given, listening on the simulated network."""

    def __init__(self, store: FaultyStore, tuning: Tuning, peers: SimPeers | None) -> None:
        super().__init__(Settings(profile="serve", environment=ENVIRONMENT, wait_for_lease=True), tuning=tuning)
        self._given = store
        self._peers = peers

    async def start(self) -> None:
        self._store = self._given
        await self._assemble(self._given, self._peers)

    def services(self) -> dict[str, Any]:
        """By name, as the network finds them."""
        node, scope = self.node, self.scope
        return {
            "StepService": StepService(node, scope),
            "EventService": EventService(node, scope),
            "FunctionService": FunctionService(node, scope),
            "RunService": RunService(node, scope),
        }


class ServerProcess:
    """One incarnation of the server: it listens until it is stopped or killed; a failed start ends it."""

    def __init__(
        self, loop: SimLoop, network: Network, store: FaultyStore, tuning: Tuning, number: int, board: Board | None
    ) -> None:
        self.network = network
        self.process: Process = loop.process(f"server-{number}")
        self.server = SimServer(store, tuning, SimPeers(board, self.process) if board is not None else None)
        self.serving = False
        self.ended = False
        self._stop = asyncio.Event()
        self.process.spawn(self._run())

    async def _run(self) -> None:
        try:
            await self.server.start()
        except ServerError:
            self.ended = True  # as a supervisor sees it: the process exits, and is started again
            self.process.kill()
            return
        self.listen()
        self.serving = True
        lost = asyncio.ensure_future(self.server.lost.wait())
        stop = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((lost, stop), return_when=asyncio.FIRST_COMPLETED)
        self.serving = False
        await self.server.drain()
        self._close_streams()
        await self.server.stop()
        self.ended = True
        self.process.kill()

    def listen(self) -> None:
        """Clients find this server from now on."""
        if all(process is not self.process for process, _ in self.network.listening):
            self.network.listening.append((self.process, self.server.services()))

    def stop(self) -> None:
        """SIGTERM."""
        self._stop.set()

    def _close_streams(self) -> None:
        self.network.silence(self.process)
        self.server.node.stopping = True
        for stream in self.network.of(self.process):
            stream.break_off(self.network.latency(), 0.0)

    def crash(self, rng: random.Random) -> None:
        """kill -9, or the machine is gone and nobody tells the clients for a while."""
        self.network.silence(self.process)
        self.process.kill()
        self.ended = True
        silent = rng.random() < 0.3
        for stream in self.network.of(self.process):
            stream.break_off(rng.uniform(2, 15) if silent else self.network.latency(), 0.0)


class WorkerProcess:
    """One worker process: the SDK's own Worker with its session, host and re-entry core."""

    def __init__(self, loop: SimLoop, network: Network, app: App, number: int, build: int, capacity: int,
                 max_parked: int, skew_ms: int) -> None:  # fmt: skip
        self.network = network
        self.number = number
        self.build = build
        self.process: Process = loop.process(f"worker-{number}", skew_ms)
        self.ended = False
        settings = WorkerSettings.resolve(
            "sim:1", environment=ENVIRONMENT, deployment=f"build-{build}", instance=f"worker-{number}",
            capacity=capacity, max_parked=max_parked, drain_s=5.0,
        )  # fmt: skip
        self.worker: Worker
        self._app = app
        self._settings = settings
        self.process.spawn(self._run())

    async def _run(self) -> None:
        self.worker = Worker(self._app, self._settings)
        await self.worker.run()
        self.ended = True
        self.process.kill()

    def stop(self) -> None:
        """SIGTERM."""
        self.process.loop.call_soon(lambda: self.worker.stop(), context=self.process.context)

    def crash(self, rng: random.Random) -> None:
        """kill -9: the server sees the end of the stream soon, or (its machine is gone) not at all."""
        self.process.kill()
        self.ended = True
        silent = rng.random() < 0.2
        for stream in self.network.of(self.process):
            stream.break_off(0.0, 120.0 if silent else self.network.latency())
