"""What goes wrong, when the seed says so: streams, workers, servers and the store."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.hosts import ServerProcess, WorkerProcess
    from tests.simulation.world import World

KINDS = (
    "break_stream",
    "cut_off",
    "crash_worker",
    "freeze_worker",
    "stop_worker",
    "crash_server",
    "stop_server",
    "freeze_server",
    "store_away",
    "store_faults",
    "store_slow",
    "lose_answers",
    "lose_hints",
)


class Faults:
    """Draws faults until told to stop, then repairs everything."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = rng = random.Random(f"faults {world.seed}")
        given = world.options.faults
        # Swarm testing: each seed has a few kinds of faults only, so that each is seen alone and with others.
        kinds = world.story.kinds or (KINDS if world.board is None else (*KINDS, "redis_away"))
        self.weights = given if given is not None else {kind: 1.0 for kind in kinds if rng.random() < 0.4}
        self.pause_s = rng.choice((0.3, 1.0, 4.0))
        self._repairs: list[asyncio.Task[None]] = []

    async def run(self, for_s: float) -> None:
        """Faults for a while; afterwards the world is whole again."""
        world = self.world
        world.say(f"faults: {sorted(self.weights)} every {self.pause_s} s")
        until = world.loop.now + for_s
        while world.loop.now < until:
            await asyncio.sleep(self.rng.expovariate(1 / self.pause_s))
            if self.weights:
                kind = self.rng.choices(list(self.weights), list(self.weights.values()))[0]
                self._repairs.append(asyncio.ensure_future(getattr(self, kind)()))
            self._tend()
        await asyncio.gather(*self._repairs)
        self.repair()

    def repair(self) -> None:
        """Whatever is still wrong is put right."""
        world = self.world
        world.network.cut.clear()
        world.store.away = False
        if world.board is not None:
            world.board.away = False
        world.network.loss = 0.0
        world.hint_loss = 0.0
        world.store.before = world.store.after = world.store.reads = 0.0
        for worker in world.workers:
            worker.process.thaw()
        self._tend()
        self._watch = asyncio.ensure_future(self._supervise())

    async def _supervise(self) -> None:
        while True:
            self._tend()
            await asyncio.sleep(1)

    def _tend(self) -> None:
        """What a supervisor does: a server or worker that has gone is started again."""
        world = self.world
        if world.board is not None:
            while sum(not one.ended for one in world.servers) < world.options.nodes:
                world.start_server()
        elif world.server is None or world.server.ended:
            world.start_server()
        if world.board is not None or not world.network.listening:  # whoever serves is found again
            for server in world.servers:
                if server.serving and server.process.alive and not server.process.frozen:
                    server.listen()
        world.workers = [worker for worker in world.workers if not worker.ended]
        while len(world.workers) < world.worker_count:
            world.start_worker()

    def _worker(self) -> WorkerProcess | None:
        able = [worker for worker in self.world.workers if not worker.ended]
        return self.rng.choice(able) if able else None

    def _server(self) -> ServerProcess | None:
        """The one started last; of several nodes any."""
        world = self.world
        able = [one for one in world.servers if not one.ended and not one.process.frozen]
        return world.server if world.board is None else self.rng.choice(able) if able else None

    def _short(self) -> float:
        lease_s = self.world.tuning.lease_ms / 1000
        return self.rng.choice((0.05, 0.5, lease_s * 0.5, lease_s * 1.1, lease_s * 2)) * self.rng.uniform(0.8, 1.2)

    # -- the faults ----------------------------------------------------------------------------------------------

    async def break_stream(self) -> None:
        """A connection dies; each side learns of it soon or late."""
        worker = self._worker()
        if worker is None:
            return
        for stream in self.world.network.of(worker.process):
            client, server = (self.rng.choice((0.0, 0.001, 0.1, 1.0, 30.0)) for _ in range(2))
            self.world.say(f"a stream of {worker.process} breaks: noticed after {client} s there, {server} s here")
            stream.break_off(client, server)

    async def cut_off(self) -> None:
        """A worker is cut off: frames vanish, nobody is told."""
        worker = self._worker()
        if worker is None:
            return
        seconds = self._short()
        self.world.say(f"{worker.process} is cut off for {seconds:.2f} s")
        worker.process.ever_frozen = True
        self.world.network.cut.add(worker.process)
        for stream in self.world.network.of(worker.process):
            stream.break_off(60.0, 60.0)
        await asyncio.sleep(seconds)
        self.world.network.cut.discard(worker.process)

    async def crash_worker(self) -> None:
        """kill -9 of a worker."""
        worker = self._worker()
        if worker is not None:
            self.world.say(f"{worker.process} crashes")
            worker.crash(self.rng)

    async def freeze_worker(self) -> None:
        """SIGSTOP, later SIGCONT: a zombie, if the pause was long."""
        worker = self._worker()
        if worker is None or worker.process.frozen:
            return
        seconds = self._short()
        self.world.say(f"{worker.process} freezes for {seconds:.2f} s")
        worker.process.freeze()
        await asyncio.sleep(seconds)
        self.world.say(f"{worker.process} goes on")
        worker.process.thaw()

    async def stop_worker(self) -> None:
        """SIGTERM of a worker: it drains."""
        worker = self._worker()
        if worker is not None and hasattr(worker, "worker"):
            self.world.say(f"{worker.process} stops")
            worker.stop()

    async def crash_server(self) -> None:
        """kill -9 of the server; the next one starts with an empty memory."""
        server = self._server()
        if server is None or server.ended:
            return
        self.world.say(f"{server.process} crashes")
        server.crash(self.rng)
        self.world.server = None
        await asyncio.sleep(self.rng.choice((0.0, 0.3, 3.0)))
        self._tend()

    async def stop_server(self) -> None:
        """SIGTERM of the server."""
        server = self._server()
        if server is not None and server.serving:
            self.world.say(f"{server.process} stops")
            server.stop()

    async def freeze_server(self) -> None:
        """SIGSTOP of the server for longer than its lease: another takes over, then the zombie goes on."""
        server = self._server()
        if server is None or not server.serving:
            return
        seconds = self.world.tuning.lease_ms / 1000 * self.rng.uniform(1.1, 3)
        self.world.say(f"{server.process} freezes for {seconds:.2f} s")
        server.process.freeze()
        self.world.network.silence(server.process)
        self.world.server = None
        self._tend()
        await asyncio.sleep(seconds)
        self.world.say(f"{server.process} goes on")
        server.process.thaw()
        self._tend()

    async def store_away(self) -> None:
        """The database restarts."""
        self.world.say("the store is away")
        self.world.store.away = True
        await asyncio.sleep(self.rng.choice((0.02, 0.5, 3.0)))
        self.world.store.away = False

    async def store_faults(self) -> None:
        """For a while commits fail before or after they are applied."""
        store = self.world.store
        store.before, store.after, store.reads = (self.rng.choice((0.0, 0.05, 0.3)) for _ in range(3))
        self.world.say(f"store faults: before {store.before}, after {store.after}, reads {store.reads}")
        await asyncio.sleep(self.rng.uniform(0.1, 5))
        store.before = store.after = store.reads = 0.0

    async def store_slow(self) -> None:
        """The database is busy: each call takes up to seconds."""
        store = self.world.store
        store.slow_s = self.rng.choice((0.05, 0.3, 1.0))
        self.world.say(f"the store takes {store.slow_s} s")
        await asyncio.sleep(self.rng.uniform(0.5, 4))
        store.slow_s = 0.0

    async def lose_answers(self) -> None:
        """Answers of unary calls are lost: clients ask again."""
        self.world.say("answers are lost")
        self.world.network.loss = self.rng.choice((0.2, 0.6))
        await asyncio.sleep(self.rng.uniform(0.5, 8))
        self.world.network.loss = 0.0

    async def redis_away(self) -> None:
        """Redis restarts, or hangs: nodes hear nothing of each other."""
        if self.world.board is None:
            return
        self.world.say("Redis is away")
        self.world.board.away = True
        await asyncio.sleep(self.rng.choice((0.02, 1.0, 6.0)))
        self.world.board.away = False

    async def lose_hints(self) -> None:
        """Runs are not told of outcomes that are durable: their owner's sweep has to find them."""
        self.world.say("hints are lost")
        self.world.hint_loss = self.rng.choice((0.2, 1.0))
        await asyncio.sleep(self.rng.uniform(0.5, 8))
        self.world.hint_loss = 0.0
