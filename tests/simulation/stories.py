"""What a seed is about: faults at random, builds that change under their runs, or bodies that kill their process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from stepwell_server.model.run import LIVE, PausedReason, RunStatus

from tests.simulation.hosts import ENVIRONMENT
from tests.support.programs import CHANGES, DEATHS, PLAIN, Taste, walk

if TYPE_CHECKING:
    from tests.simulation.world import World

_LIVE = frozenset(int(status) for status in LIVE)


class Story:
    """Faults at random: the plain one. A worker may be lost as often as it likes."""

    taste: Taste = PLAIN
    max_losses = 1_000
    kinds: tuple[str, ...] | None = None
    """Of faults; None for all."""
    workers_least = 1

    def __init__(self, world: World) -> None:
        self.world = world

    def build(self) -> int:
        """The build that the next worker is of."""
        return 1

    async def meanwhile(self) -> None:
        """What happens beside the faults."""

    def rests(self) -> bool:
        """Nothing is left to happen, once the faults are over."""
        return not self.live()

    def live(self) -> list[str]:
        """Runs that have not ended."""
        return [run.id for run in self.world.store.memory.tables.run.values() if run.status in _LIVE]

    async def close(self) -> None:
        """What is done once the world rests."""


class Changing(Story):
    """The app's next build comes while runs of the first are on their way; some steps are of another kind there. A
    run that does not fit is paused, and goes on with a worker that it fits (H15)."""

    taste = CHANGES
    workers_least = 2

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.deployed = False
        self.over = False
        self.rolling = world.rng.random() < 0.7  # the first build comes back only once the faults are over

    def build(self) -> int:
        if not self.deployed:
            return 1
        if self.rolling and not self.over:
            return 2
        builds = [worker.build for worker in self.world.workers if not worker.ended]
        missing = [number for number in (2, 1) if number not in builds]
        return missing[0] if missing else self.world.rng.choice((1, 2))

    async def meanwhile(self) -> None:
        await asyncio.sleep(self.world.rng.uniform(0, self.world.options.faulty_s))
        self.world.say("the next build is deployed")
        self.deployed = True
        for worker in self.world.workers:
            if not worker.ended and hasattr(worker, "worker") and (self.rolling or self.world.rng.random() < 0.5):
                worker.stop()

    def rests(self) -> bool:
        self.over = True
        # Whoever was stopped is replaced by the other build.
        builds = {worker.build for worker in self.world.workers if not worker.ended}
        return not self.live() or (self.deployed and len(builds) < 2 and self._replace())

    def _replace(self) -> bool:
        worker = self.world.workers[0]
        if hasattr(worker, "worker"):
            worker.stop()
        return False


class Deadly(Story):
    """Some bodies kill their process, whichever worker has them (H13): those runs are paused after so many losses, all
    others end. Then some are cancelled, and the next build mends the rest."""

    taste = DEATHS
    max_losses = 5
    kinds = ("store_slow", "lose_answers", "stop_worker")
    workers_least = 2

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.deployed = False

    def build(self) -> int:
        return 2 if self.deployed else 1

    def rests(self) -> bool:
        runs = self.world.store.memory.tables.run
        return all(runs[ENVIRONMENT, run_id].status == RunStatus.PAUSED for run_id in self.live())

    async def close(self) -> None:
        world = self.world
        for run_id in self.live():
            run = world.store.memory.tables.run[ENVIRONMENT, run_id]
            program = world.by_name[run.function_id.partition("/")[2]]
            nodes = [node for node in walk(program["body"]) if node["do"] == "deadly"]
            if run.status != RunStatus.PAUSED:
                continue  # it is stuck, and the checks will say so
            if run.reason != PausedReason.WORKER_LOST or not nodes:
                world.problem(f"run {run_id} of {run.function_id} was paused ({run.reason}), although it kills nobody")
            died = max((world.monitor.deaths[run_id, node["name"]] for node in nodes), default=0)
            if not 1 <= died <= self.max_losses + 1:
                world.problem(f"run {run_id} was paused after it killed {died} workers")
            if world.rng.random() < 0.5:
                world.clients.cancel(run_id, 0.0)
        world.say("the mended build is deployed")
        self.deployed = True
        for worker in world.workers:
            if not worker.ended and hasattr(worker, "worker"):
                worker.stop()


STORIES: dict[str, type[Story]] = {"plain": Story, "changing": Changing, "deadly": Deadly}


def story(world: World) -> Story:
    """The story of a seed; options may give it."""
    return STORIES[world.options.story or world.rng.choices(list(STORIES), (4, 4, 2))[0]](world)
