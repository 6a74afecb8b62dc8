"""One seed: a world of a server, workers, clients and faults, from its first event to the last check."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from stepwell.v1 import event_pb2, run_pb2
from stepwell_server.engine.node import Tuning
from stepwell_server.model import ids
from stepwell_server.model.run import LIVE, RunStatus

from tests.simulation import apps, checks
from tests.simulation.faults import Faults
from tests.simulation.hosts import ENVIRONMENT, ServerProcess, WorkerProcess, patched
from tests.simulation.loop import START_MS, Deadlock, SimLoop, current_process
from tests.simulation.monitor import Monitor
from tests.simulation.network import Network
from tests.simulation.store import FaultyStore
from tests.support.programs import PLAIN, Generator, Program, Taste, walk

APP = "sim"
_LIVE = frozenset(int(status) for status in LIVE)
_DEADLINE_S = 1_200.0
"""Virtual time after the last fault within which every run has to end."""


@dataclass
class Options:
    """What a seed does not decide."""

    taste: Taste = PLAIN
    faults: dict[str, float] | None = None  # weights of the faults; None: the seed draws them
    verbose: bool = False
    programs: int = 4
    triggers: int = 10
    faulty_s: float = 30.0


@dataclass
class Report:
    """What came of a seed."""

    seed: int
    problems: list[str]
    trace: int
    turns: int
    virtual_s: float
    real_s: float
    counts: dict[str, int] = field(default_factory=dict[str, int])


@dataclass
class Sent:
    """An event that a client sent, and keeps sending until it is acknowledged."""

    name: str
    data: dict[str, Any]
    event_id: str = ""


class World:
    """See the module."""

    def __init__(self, seed: int, options: Options) -> None:
        self.seed = seed
        self.options = options
        self.rng = rng = random.Random(f"world {seed}")
        self.loop = SimLoop(seed)
        self.network = Network(self.loop, random.Random(f"network {seed}"), rng.choice((0.0002, 0.001, 0.01)))
        self.store = FaultyStore(
            self.loop, random.Random(f"store {seed}"), rng.choice((0.0005, 0.002, 0.02)), rng.choice((1, 2))
        )
        lease_ms = rng.choice((2_000, 5_000, 10_000))
        self.tuning = Tuning(
            lease_ms=lease_ms,
            heartbeat_ms=lease_ms // 4,
            stream_grace_ms=rng.choice((50, 700)),
            home_wait_ms=rng.choice((20, 1_000)),
            cancel_grace_ms=rng.choice((1_000, 10_000)),
            sweep_ms=rng.choice((500, 5_000)),
            max_losses=1_000,
        )
        self.capacity = rng.choice((1, 2, 5, 50))
        self.max_parked = rng.choice((0, 1, 1_000))
        self.same_machine = rng.random() < 0.7
        self.worker_count = rng.choice((1, 2, 3))
        self.programs: list[Program] = Generator(random.Random(f"programs {seed}"), options.taste).suite(
            options.programs
        )
        self.by_name = {program["name"]: program for program in self.programs}
        self.server: ServerProcess | None = None
        self.workers: list[WorkerProcess] = []
        self.sent: list[Sent] = []
        self.started = 0
        self.cancels: set[str] = set()
        self.pending = 0
        self.calm = False
        self.faults_over_ms = 0
        self.monitor = Monitor(self)
        self.store.watch = self.monitor.committed
        self.problems: list[str] = []

    # -- processes -----------------------------------------------------------------------------------------------

    def start_server(self) -> None:
        """A server process begins over the store as it is."""
        self.started += 1
        self.say(f"server {self.started} starts")
        self.server = ServerProcess(self.loop, self.network, self.store, self.tuning, self.started)

    def start_worker(self) -> None:
        """A worker process begins."""
        self.started += 1
        self.say(f"worker {self.started} starts")
        app = apps.build(APP, self.programs, self.monitor.body_began)
        skew_ms = self.rng.choice((0, 0, -3_000, 3_000))
        self.workers.append(
            WorkerProcess(self.loop, self.network, app, self.started, self.capacity, self.max_parked, skew_ms)
        )

    def say(self, text: str) -> None:
        """Tells what happens, if asked to."""
        self.loop.note(text)
        if self.options.verbose:
            print(f"{self.loop.now:10.4f}  {text}")

    def problem(self, text: str) -> None:
        """A promise is broken."""
        if text not in self.problems:
            self.say(f"PROBLEM {text}")
            self.problems.append(text)

    # -- clients -------------------------------------------------------------------------------------------------

    def send(self, name: str, data: dict[str, Any], after_s: float, then: Any = None) -> None:
        """A client sends an event until it is acknowledged."""
        sent = Sent(name, data)
        self.sent.append(sent)
        self.pending += 1
        self.loop.process("client").spawn(self._send(sent, after_s, then))

    async def _send(self, sent: Sent, after_s: float, then: Any) -> None:
        await asyncio.sleep(after_s)
        number = len(self.sent)
        event = event_pb2.NewEvent(name=sent.name, id="", data={"data": json.dumps(sent.data).encode()})
        request_id = f"request {sent.name} {sent.data['uid']} {sent.data['n']}"
        if number % 2:
            event.id = request_id
            request_id = ""
        request = event_pb2.SendEventsRequest(request_id=request_id, events=[event])
        response = await self._until_answered("EventService", "SendEvents", request)
        status = response.statuses[0]
        if status.outcome not in (event_pb2.EventStatus.OUTCOME_ACCEPTED, event_pb2.EventStatus.OUTCOME_DUPLICATE):
            self.problem(f"event {sent} was refused: {status}")
        sent.event_id = status.event_id
        self.pending -= 1
        if then is not None:
            then(status.event_id)

    async def _until_answered(self, service: str, method: str, request: Any) -> Any:
        while True:
            try:
                return await self.network.unary(service, method, request)
            except grpc.aio.AioRpcError as error:
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    self.problem(f"{method} failed: {error.code()} {error.details()}")
                    raise
                await asyncio.sleep(self.rng.uniform(0.05, 1))

    async def _cancel(self, run_id: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        request = run_pb2.CancelRunRequest(run_id=run_id, reason="simulated")
        await self._until_answered("RunService", "CancelRun", request)
        self.pending -= 1

    def _trigger(self, number: int) -> None:
        """An event that starts runs, and those that these runs will wait for: early, late, or never."""
        rng = self.rng
        starts = sorted({program["on"] for program in self.programs if program["on"].startswith("sim/start")})
        name, uid = rng.choice(starts), f"u{number}"
        at_s = rng.uniform(0, self.options.faulty_s * 0.8)
        for program in self.programs:
            if program["on"] == name:
                self._answers(program, uid, at_s)
        cancelled = [p for p in self.programs if p["on"] == name and rng.random() < 0.1]

        def started(event_id: str) -> None:
            for program in cancelled:
                run_id = ids.run_id_for_event(ENVIRONMENT, event_id, f"{APP}/{program['name']}")
                self.cancels.add(run_id)
                self.pending += 1
                self.loop.process("client").spawn(self._cancel(run_id, rng.expovariate(0.5)))

        self.send(name, {"uid": uid, "n": number}, at_s, started)

    def _answers(self, program: Program, uid: str, at_s: float) -> None:
        rng = self.rng
        for node in walk(program["body"]):
            if node["do"] == "wait" and rng.random() < 0.8:
                after_s = rng.choice((0.0, rng.uniform(0, 0.1), rng.uniform(0, 3), rng.uniform(0, 30)))
                for _ in range(rng.choice((1, 1, 2))):
                    self.send(node["event"], {"uid": uid, "n": rng.randrange(1_000_000)}, at_s + after_s)
            elif node["do"] == "invoke":
                self._answers(self.by_name[node["program"]], f"{uid}/{node['name']}", at_s)

    # -- the story -----------------------------------------------------------------------------------------------

    def run(self) -> Report:
        """Plays the seed."""
        began = time.monotonic()
        product = random.Random(f"product {self.seed}")
        with patched(self.loop, self.network, product, self._is_dead, self.monitor.told):
            try:
                self.loop.run_until_complete(self._story())
            except Deadlock as error:
                self.problem(f"deadlock: {error}")
            self.problems[:0] = self.loop.troubles
            self.problems[:0] = self.loop.unretrieved()
            self.problems[:0] = self.monitor.troubles()
            self.problems.extend(self.store.overlaps)
            self.loop.finish()
        self.monitor.close()
        runs = self.store.memory.tables.run.values()
        timed_out = sum(run.status == RunStatus.TIMED_OUT for run in runs)
        return Report(
            self.seed, self.problems, self.loop.trace, self.loop.turns, self.loop.now, time.monotonic() - began,
            {"runs": len(runs), "timed out": timed_out, **self.monitor.counts},
        )  # fmt: skip

    async def _story(self) -> None:
        assert current_process() is None
        await self.loop.world.spawn(self._play())

    async def _play(self) -> None:
        self.start_server()
        for _ in range(self.worker_count):
            self.start_worker()
        while not self.store.memory.tables.deployment:  # noqa: ASYNC110  # an event that comes before its functions starts nothing
            await asyncio.sleep(0.01)
        for number in range(self.rng.randint(1, self.options.triggers)):
            self._trigger(number)
        faults = Faults(self)
        self.calm = not faults.weights
        await faults.run(self.options.faulty_s)
        self.faults_over_ms = self.now_ms
        self.say("faults are over")
        until = self.loop.now + _DEADLINE_S
        while self.loop.now < until and not (self._all_ended() and not self.pending):  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        await asyncio.sleep(3 + self.tuning.cancel_grace_ms / 1000)
        await checks.check(self)

    def _all_ended(self) -> bool:
        tables = self.store.memory.tables
        return not tables.cursor and not any(run.status in _LIVE for run in tables.run.values())

    def _is_dead(self, name: str) -> bool:
        """Whether a server process has ended; on another machine nobody can know."""
        return self.same_machine and not any(process.name == name and process.alive for process in self.loop.processes)

    @property
    def now_ms(self) -> int:
        """Wall time without skew."""
        return START_MS + int(self.loop.now * 1000)


def play(seed: int, options: Options | None = None) -> Report:
    """Plays one seed in a world of its own."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None  # coroutines of the dead are thrown away here
    try:
        report = World(seed, options or Options()).run()
        gc.collect()
    finally:
        sys.unraisablehook = hook
    return report
