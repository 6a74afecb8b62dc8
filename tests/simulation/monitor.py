"""Watches the world while it runs: bodies as they begin, commits as they are applied, errors as they are logged."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

from stepwell import current_step
from stepwell.reentry import Reentry
from stepwell_server.model.commit import Commit, CommitResult, Verdict
from stepwell_server.model.journal import StepKind
from stepwell_server.model.run import EDGES, RunStatus

from tests.simulation.coverage import Edge
from tests.simulation.hosts import ENVIRONMENT
from tests.simulation.loop import Process, current_process
from tests.support.apps import covered
from tests.support.programs import Effect

if TYPE_CHECKING:
    from tests.simulation.world import World

_PROTOCOL = ("BAD_PARK", "OUT_OF_ORDER", "BAD_COMMAND", "TOO_LARGE", "TOO_LONG")


class _Records(logging.Handler):
    """Errors that the product logged with a traceback, and commands that it refused."""

    def __init__(self, monitor: Monitor) -> None:
        super().__init__()
        self.monitor: Monitor | None = monitor  # None: what is logged now is that the dead are thrown away

    def emit(self, record: logging.LogRecord) -> None:
        monitor = self.monitor
        if monitor is None:
            return
        text = record.getMessage()
        process = current_process()
        monitor.world.say(f"{process} {record.levelname}: {text}")
        if monitor.world.calm and text.startswith("the stream ended"):
            monitor.logged.append(f"{process}: without any fault, {text}")
        if record.exc_info:
            error = record.exc_info[1]
            monitor.logged.append(f"{process}: {text}: {error!r}")
            if monitor.world.options.verbose:
                print(logging.Formatter().formatException(record.exc_info))
        elif any(f"refused: {reason}" in text for reason in _PROTOCOL):
            monitor.logged.append(f"{process}: {text}")


class Monitor:
    """Promises that can be checked as things happen."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.counts: Counter[str] = Counter()
        self.logged: list[str] = []
        self.acknowledged: set[tuple[str, str]] = set()  # steps whose worker was told that the result is durable
        self.edges: Counter[Edge] = Counter()  # of the state chart, as they were taken
        self.deaths: Counter[tuple[str, str]] = Counter()  # by the step that killed its process
        self._statuses: dict[str, RunStatus] = {}  # of each run, after the last commit
        self._records = _Records(self)
        logger = logging.getLogger("stepwell")
        logger.addHandler(self._records)
        logger.propagate = False
        logger.setLevel(logging.INFO)

    def close(self) -> None:
        """Is deaf to the log from now on; see hear_again."""
        self._records.monitor = None

    def troubles(self) -> list[str]:
        """What the product itself found wrong."""
        return self.logged

    def body_began(self, run_id: str, key: str, attempt: int) -> None:
        """A step whose result is durable never runs again, but in a zombie that does not know yet."""
        self.counts["bodies"] += 1
        process = current_process()
        assert process is not None, "bodies run in workers"
        tables = self.world.store.memory.tables
        outcome = tables.outcome.get((ENVIRONMENT, run_id), {}).get(key)
        self.world.say(f"{process} body {run_id} {key} attempt {attempt}")
        if (run_id, key) in self.acknowledged and not process.ever_frozen:
            self.world.problem(f"{process} runs {key} of {run_id} although its result was acknowledged")
        if outcome is None or outcome.kind != StepKind.RUN:
            return
        self.counts["repeated bodies"] += 1
        if self._holds(process, run_id):
            self.world.problem(f"{process} runs {key} of {run_id} although its result is durable: {outcome}")
        elif not process.ever_frozen:
            self.counts["repeated bodies of a worker that never froze"] += 1

    def effect(self, run_id: str, key: str, token: str, effect: Effect) -> None:
        """Nothing: the simulation's programs have no counters."""
        raise AssertionError((run_id, key, token, effect))

    def kill(self) -> None:
        """A body kills its process."""
        step = current_step()
        self.deaths[step.run_id, step.key] += 1
        if self.deaths[step.run_id, step.key] > self.world.tuning.max_losses + 1:
            self.world.problem(f"{step.key} of {step.run_id} kills one worker after the other")
        process = current_process()
        for worker in self.world.workers:
            if worker.process is process:
                self.world.say(f"{process} is killed by {step.key} of {step.run_id}")
                worker.crash(self.world.rng)

    def told(self, reentry: Reentry, number: int) -> None:
        """A worker learns that everything of a run up to a number is durable."""
        for run_id, key in covered(reentry, number):
            self.acknowledged.add((run_id, key))
            if key not in self.world.store.memory.tables.outcome.get((ENVIRONMENT, run_id), {}):
                self.counts["hasty acknowledgements"] += 1

    def _holds(self, process: Process, run_id: str) -> bool:
        tables = self.world.store.memory.tables
        run = tables.run.get((ENVIRONMENT, run_id))
        if run is None or run.session_id is None or run.ended_ms is not None:
            return False
        session = tables.session.get((ENVIRONMENT, run.session_id))
        return session is not None and session.closed_ms is None and session.instance == process.name

    def committed(self, commit: Commit, result: CommitResult) -> None:
        """No command of a fenced epoch is ever applied."""
        self.counts["commits"] += 1
        if result.verdict is Verdict.REFUSED:
            self.world.problem(f"the store refused {commit}: {result.existing}")
        if result.verdict is not Verdict.APPLIED:
            self.counts[result.verdict.name.lower()] += 1
            return
        for fence in commit.fences:
            session = self.world.store.memory.tables.session.get((fence.env, fence.session_id))
            if session is None or session.closed_ms is not None or session.epoch != fence.epoch:
                self.world.problem(f"a commit of epoch {fence.epoch} was applied, the session stands at {session}")
        self._follow_statuses()

    def _follow_statuses(self) -> None:
        """A run goes along the edges of the state chart only (model/run.py)."""
        for run in self.world.store.memory.tables.run.values():
            before, now = self._statuses.get(run.id), RunStatus(run.status)
            if before is not now:
                self._statuses[run.id] = now
                self.edges[before, now] += 1
                if now not in EDGES.get(before, ()):
                    self.world.problem(f"a commit moves {run.id} from {before.name if before else 'new'} to {now.name}")


def hear_again() -> None:
    """The log is nobody's any more, once a world was thrown away."""
    logger = logging.getLogger("stepwell")
    for handler in [one for one in logger.handlers if isinstance(one, _Records)]:
        logger.removeHandler(handler)
    logger.propagate = True
