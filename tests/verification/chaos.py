"""Kills, freezes and restarts of real processes at random, server and workers each for themselves."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable

from tests.support.postgres import PostgresServer
from tests.support.servers import Server, Worker
from tests.verification.pair import Pair

LEASE_S = 2.0
_FREEZES_S = (0.05, 0.5, LEASE_S * 0.6, LEASE_S * 1.3, LEASE_S * 2)


class Chaos:
    """What goes wrong. frozen: ids of processes that were stopped for a while: they may not know what became of their
    runs."""

    def __init__(self, server: Server, workers: list[Worker], postgres: PostgresServer | None, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self.frozen: set[int] = set()
        self.troubles: list[str] = []
        self._server = server
        self._workers = workers
        self._postgres = postgres
        self._seed = seed
        self._over = threading.Event()

    def run(self, for_s: float, tick: Callable[[], None]) -> None:
        """Faults for so long; tick is called now and then."""
        server = {
            "kill server": self._kill_server,
            "freeze server": self._freeze_server,
            "stop server": self._stop_server,
        }
        if self._postgres is not None:
            server["drop connections"] = self._drop_connections
        workers = {
            "kill worker": self._kill_worker,
            "freeze worker": self._freeze_worker,
            "stop worker": self._stop_worker,
            "kill workers": self._kill_workers,
        }
        threads = [
            threading.Thread(target=self._faults, args=("server", server, self._tend_server)),
            threading.Thread(target=self._faults, args=("workers", workers, self._tend_workers)),
        ]
        for thread in threads:
            thread.start()
        until = time.monotonic() + for_s
        while time.monotonic() < until:
            tick()
            time.sleep(0.25)
        self._over.set()
        for thread in threads:
            thread.join()

    def _faults(self, who: str, kinds: dict[str, Callable[[random.Random], None]], tend: Callable[[], None]) -> None:
        rng = random.Random(f"chaos {who} {self._seed}")
        # Swarm testing: each seed has some kinds of faults only, so that each is seen alone and with others.
        chosen = {name: act for name, act in kinds.items() if rng.random() < 0.6} or kinds
        pause_s = rng.choice((0.3, 1.0, 3.0))
        try:
            while not self._over.wait(rng.expovariate(1 / pause_s)):
                name = rng.choice(list(chosen))
                self.counts[name] += 1
                chosen[name](rng)
                tend()
        except Exception as error:
            self.troubles.append(f"chaos of the {who} broke: {error!r}")

    def _tend_server(self) -> None:
        """What a supervisor does: whoever has gone is started again."""
        if not self._server.running:
            self._server.start()

    def _tend_workers(self) -> None:
        for worker in self._workers:
            if not worker.running:
                worker.start()

    def _freeze(self, process: Server | Worker, seconds: float) -> None:
        if process.running:
            self.frozen.add(process.pid)
            process.signal(signal.SIGSTOP)
            try:
                self._over.wait(seconds)
            finally:
                process.signal(signal.SIGCONT)

    def _serving(self) -> Server:
        return self._server.serving if isinstance(self._server, Pair) else self._server

    # -- the faults ----------------------------------------------------------------------------------------------

    def _kill_server(self, rng: random.Random) -> None:
        self._serving().kill()
        self._over.wait(rng.choice((0.0, 0.3, LEASE_S * 1.2)))

    def _freeze_server(self, rng: random.Random) -> None:
        """Workers that hear nothing forget their runs; a server that stands by takes over, and the frozen one wakes."""
        self._freeze(self._serving(), rng.choice(_FREEZES_S))

    def _stop_server(self, rng: random.Random) -> None:
        server = self._serving()
        if server.running:
            server.signal(signal.SIGTERM)
            server.wait(30)

    def _drop_connections(self, rng: random.Random) -> None:
        assert self._postgres is not None
        self._postgres.drop_connections()

    def _kill_worker(self, rng: random.Random) -> None:
        rng.choice(self._workers).kill()

    def _kill_workers(self, rng: random.Random) -> None:
        for worker in self._workers:
            worker.kill()

    def _freeze_worker(self, rng: random.Random) -> None:
        self._freeze(rng.choice(self._workers), rng.choice(_FREEZES_S))

    def _stop_worker(self, rng: random.Random) -> None:
        worker = rng.choice(self._workers)
        worker.signal(signal.SIGTERM)
        if rng.random() < 0.5:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(10)
