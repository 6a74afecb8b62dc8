"""One seed of the verification: real processes, a load, chaos, and the verdict."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from stepwell.api_errors import ApiError
from stepwell.client import Client
from stepwell.values import RunStatus

from tests.support.postgres import PostgresServer
from tests.support.programs import Program
from tests.support.servers import Server, Worker, until
from tests.verification.app import programs_of
from tests.verification.chaos import LEASE_S, Chaos
from tests.verification.ledger import Books, Ledger, Line
from tests.verification.load import Asked, Load
from tests.verification.pair import Pair
from tests.verification.verdict import Verdict

_APP = Path(__file__).with_name("app.py")
_STUCK_S = 75.0
_LIVE = (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.PARKED, RunStatus.PAUSED)
_TUNING = {
    "lease_ms": int(LEASE_S * 1000), "heartbeat_ms": 500, "stream_grace_ms": 300, "home_wait_ms": 200,
    "cancel_grace_ms": 2_000, "sweep_ms": 1_000, "max_losses": 1_000_000,
}  # fmt: skip
_WRONG = ("Traceback", "broke the worker's own rules", "OUT_OF_ORDER", "BAD_COMMAND", "BAD_PARK", "the store refused")


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    seed: int = 0
    store: str = "sqlite"
    programs: int = 12
    runs: int = 200
    seconds: float = 30.0
    workers: int = 3
    standby: bool = False  # two servers, one of which takes over; Postgres only


@dataclass
class Report:
    """What came of a seed. told: in a line."""

    problems: list[str] = field(default_factory=list[str])
    told: str = ""


@dataclass
class Played:
    """A seed that was played; its server still answers. live: runs that never ended."""

    client: Client
    programs: list[Program]
    asked: Asked
    lines: list[Line]
    live: list[str]
    chaos: Chaos
    troubles: list[str]

    def judge(self, lines: list[Line] | None = None) -> list[str]:
        """What is wrong; by the ledger, or by the lines given."""
        books = Books(self.lines if lines is None else lines)
        return Verdict(self.client, self.programs, self.asked, books, self.chaos.frozen).judge()


def verify(options: Options, folder: Path, postgres: PostgresServer | None, say: Callable[[str], None]) -> Report:
    """Plays a seed in a folder, and judges it. say: gets a line of progress now and then."""
    began = time.monotonic()
    report = Report()
    with played(options, folder, postgres, say) as found:
        if found.live:
            report.problems.append(f"{len(found.live)} runs are stuck")
            report.problems += [
                f"{found.client.get_run(run_id)} {found.client.journal(run_id)}" for run_id in found.live[:5]
            ]
        else:
            report.problems += found.judge()
        report.problems += found.troubles
        report.problems += _logs(folder)
        books = Books(found.lines)
        runs = len({line.run_id for line in found.lines})
        done = f"{len(found.asked.events)} events, {len(books.began)} bodies of {runs} runs ({books.repeats} repeated)"
        report.told = (
            f"seed {options.seed} {options.store}: {done}, {len(books.counters)} counters, "
            f"{sum(found.chaos.counts.values())} faults in {time.monotonic() - began:.0f} s"
        )
    return report


@contextmanager
def played(
    options: Options, folder: Path, postgres: PostgresServer | None, say: Callable[[str], None]
) -> Generator[Played]:
    """Processes, a load and chaos, until everything rests; the server lives until the block ends."""
    rng = random.Random(f"verification {options.seed}")
    database = f"sqlite:///{folder}/stepwell.db"
    if options.store == "postgres":
        assert postgres is not None, "a Postgres server is needed"
        database = postgres.create_database(f"verify_{options.seed}_{time.monotonic_ns()}")
    ledger = Ledger(folder / "ledger")
    programs = programs_of(options.seed, options.programs)
    began = time.monotonic()
    with ExitStack() as stack:
        servers = Pair(database, folder, **_TUNING) if options.standby else Server(database, folder, profile="serve")
        server = stack.enter_context(servers if options.standby else servers.tuned(**_TUNING))
        workers = [_worker(server, number, ledger, options, rng) for number in range(options.workers)]
        for worker in workers:
            stack.callback(worker.kill)
            worker.start()
        client = server.client()
        until(lambda: len([one for one in client.workers() if one.connected]) == len(workers), "the workers connect")
        load = Load(client, programs, options.seed)
        stack.callback(load.stop)
        load.plan(options.runs, options.seconds * 0.8)
        chaos = Chaos(server, workers, postgres, options.seed)

        def tick(what: str = "chaos") -> None:
            faults = ", ".join(f"{count} × {name}" for name, count in sorted(chaos.counts.items()))
            asked = load.asked
            done = (
                f"{len(asked.events)} events, {len(asked.invoked)} invokes, {len(asked.cancelled)} cancels acknowledged"
            )
            say(f"seed {options.seed} {options.store} {time.monotonic() - began:4.0f} s  {what}: {done}; {faults}")

        if options.seconds:
            chaos.run(options.seconds, tick)
        live = _rest(client, load, ledger, tick)
        yield Played(client, programs, load.asked, ledger.lines(), live, chaos, [*load.troubles, *chaos.troubles])


def _worker(server: Server, number: int, ledger: Ledger, options: Options, rng: random.Random) -> Worker:
    given = {
        "ledger": str(ledger.path), "seed": options.seed, "programs": options.programs,
        "capacity": rng.choice((2, 20, 200)), "max_parked": rng.choice((0, 5, 1_000)),
    }  # fmt: skip
    return server.worker(_APP, f"w{number}", VERIFICATION=json.dumps(given))


def _rest(client: Client, load: Load, ledger: Ledger, tick: Callable[[str], None]) -> list[str]:
    """Waits until all is sent and every run has ended; the runs that have not, once nothing has moved for long.

    Runs that were lost again and again are given out one by one, and as late as a minute each (H13).
    """
    moved_at, before = time.monotonic(), (0, 0)
    live = ["?"]
    while time.monotonic() - moved_at < _STUCK_S:
        tick(f"rest, {len(live)} runs live")
        time.sleep(0.3)
        if load.left:
            continue
        try:
            load.answer_open_waits()
            live = [run.id for run in client.list_runs(statuses=_LIVE, page_size=1_000)]
        except ApiError:
            continue
        if not live:
            return []
        now = (len(live), ledger.path.stat().st_size)
        if now != before:
            moved_at, before = time.monotonic(), now
    return live


def _logs(folder: Path) -> list[str]:
    """Lines of logs that should not be there."""
    found: list[str] = []
    for log in sorted(folder.rglob("*.log")):
        for line in log.read_text(errors="replace").splitlines():
            if any(word in line for word in _WRONG):
                found.append(f"{log.name}: {line}")
    return found[:10]


def progress(text: str) -> None:
    """A line that the next one replaces."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text[:200]}", end="", file=sys.stderr, flush=True)
