"""One seed: a world of a server, workers, clients and faults, from its first event to the last check."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from stepwell_server.engine.node import Tuning
from stepwell_server.model.run import RunStatus

from tests.simulation import checks
from tests.simulation.clients import Clients
from tests.simulation.coverage import Edge
from tests.simulation.faults import Faults
from tests.simulation.hosts import ENVIRONMENT, ServerProcess, WorkerProcess, patched
from tests.simulation.loop import START_MS, Deadlock, SimLoop, current_process
from tests.simulation.monitor import Monitor, hear_again
from tests.simulation.network import Network
from tests.simulation.peers import Board
from tests.simulation.store import FaultyStore
from tests.simulation.stories import Deadly, story
from tests.support import apps
from tests.support.programs import Generator, Program, Taste

APP = "sim"


@dataclass
class Options:
    """What a seed does not decide."""

    taste: Taste | None = None  # None: that of the story
    faults: dict[str, float] | None = None  # weights of the faults; None: the seed draws them
    story: str = ""  # see stories.py; empty: the seed draws it
    verbose: bool = False
    nodes: int = 1
    programs: int = 4
    triggers: int = 10
    faulty_s: float = 30.0
    rest_s: float = 1_200.0  # after the last fault every run has to end within this time


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
    edges: Counter[Edge] = field(default_factory=Counter[Edge])


class World:
    """See the module."""

    app = APP

    def __init__(self, seed: int, options: Options) -> None:
        self.seed = seed
        self.options = options
        self.rng = rng = random.Random(f"world {seed}")
        self.story = story(self)
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
            max_losses=self.story.max_losses,
        )
        self.capacity = rng.choice((1, 2, 5, 50))
        self.max_parked = rng.choice((0, 1, 1_000))
        self.same_machine = rng.random() < 0.7
        self.worker_count = max(rng.choice((1, 2, 3)), self.story.workers_least)
        taste = options.taste or self.story.taste
        self.programs: list[Program] = Generator(random.Random(f"programs {seed}"), taste).suite(options.programs)
        limits = random.Random(f"limits {seed}")
        for program in self.programs:
            if options.nodes == 1 and limits.random() < 0.4:  # many nodes do not carry limits out yet
                program["concurrency"] = limits.choice((1, 2, 5))
        self.by_name = {program["name"]: program for program in self.programs}
        self.board = Board(self.network, self._hint_lost) if options.nodes > 1 else None
        self.server: ServerProcess | None = None  # the one started last
        self.servers: list[ServerProcess] = []
        self.workers: list[WorkerProcess] = []
        self.started = 0
        self.calm = False
        self.clients = Clients(self)
        self.faults_over_ms = 0
        self.hint_loss = 0.0
        self.monitor = Monitor(self)
        self.store.watch = self.monitor.committed
        self.problems: list[str] = []

    # -- processes -----------------------------------------------------------------------------------------------

    def start_server(self) -> None:
        """A server process begins over the store as it is."""
        self.started += 1
        self.say(f"server {self.started} starts")
        self.server = ServerProcess(self.loop, self.network, self.store, self.tuning, self.started, self.board)
        self.servers = [*(server for server in self.servers if not server.ended), self.server]

    def start_worker(self) -> None:
        """A worker process begins."""
        self.started += 1
        self.say(f"worker {self.started} starts")
        build = self.story.build()
        app = apps.build(APP, self.programs, self.monitor, build)
        skew_ms = self.rng.choice((0, 0, -3_000, 3_000))
        self.workers.append(
            WorkerProcess(self.loop, self.network, app, self.started, build, self.capacity, self.max_parked, skew_ms)
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

    # -- the story -----------------------------------------------------------------------------------------------

    def run(self) -> Report:
        """Plays the seed."""
        began = time.monotonic()
        product = random.Random(f"product {self.seed}")
        with patched(self.loop, self.network, product, self._is_dead, self.monitor.told, self._hint_lost):
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
            {"runs": len(runs), "timed out": timed_out, **self.monitor.counts}, self.monitor.edges,
        )  # fmt: skip

    async def _story(self) -> None:
        assert current_process() is None
        await self.loop.world.spawn(self._play())

    async def _play(self) -> None:
        for _ in range(self.options.nodes):
            self.start_server()
        for _ in range(self.worker_count):
            self.start_worker()
        # An event that comes before its functions are registered starts nothing.
        while not any(env == ENVIRONMENT for env, _ in self.store.memory.tables.session):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for number in range(self.rng.randint(1, self.options.triggers)):
            self.clients.trigger(number, self.options.faulty_s * 0.8)
        looking = self.loop.process("observer").spawn(self.clients.look())
        meanwhile = asyncio.ensure_future(self.story.meanwhile())
        faults = Faults(self)
        self.calm = not faults.weights and not isinstance(self.story, Deadly)
        await faults.run(self.options.faulty_s)
        await meanwhile
        self.faults_over_ms = self.now_ms
        self.say("faults are over")
        await self._rest(self.story.rests)
        await self.story.close()
        await self._rest(lambda: not self.story.live())
        looking.cancel()
        await asyncio.sleep(3 + self.tuning.cancel_grace_ms / 1000)
        await checks.check(self)

    async def _rest(self, rests: Callable[[], bool]) -> None:
        until = self.loop.now + self.options.rest_s
        while self.loop.now < until and not self._is_over(rests):  # noqa: ASYNC110
            await asyncio.sleep(0.5)

    def _is_over(self, rests: Callable[[], bool]) -> bool:
        return rests() and not self.clients.pending and not self.store.memory.tables.cursor

    def _is_dead(self, name: str) -> bool:
        """Whether a server process has ended; on another machine nobody can know."""
        return self.same_machine and not any(process.name == name and process.alive for process in self.loop.processes)

    def _hint_lost(self) -> bool:
        return self.hint_loss > 0 and self.rng.random() < self.hint_loss

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
        hear_again()
        sys.unraisablehook = hook
    return report
