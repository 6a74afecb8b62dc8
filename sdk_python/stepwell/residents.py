"""The runs in a worker's memory: which, their hash for the heartbeat, and which are parked since when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stepwell.bodies import Attempt
from stepwell.reentry import Reentry
from stepwell.stream import HASH_MODULUS, run_digest
from stepwell.v1 import step_pb2


class Resident:
    """A run in memory. Its assignment may still be arriving in parts; then there is no re-entry yet."""

    __slots__ = ("assign", "attempts", "digest", "early", "evicted", "parked", "reentry", "run_id", "turn")

    def __init__(self, assign: step_pb2.Assign) -> None:
        self.run_id = assign.run_id
        self.turn = assign.turn
        self.digest = run_digest(self.run_id, self.turn)
        self.assign: step_pb2.Assign | None = assign
        self.early: list[step_pb2.Outcome] = []
        """Outcomes that came before the last part."""
        self.reentry: Reentry | None = None
        self.attempts: dict[str, Attempt[Any]] = {}
        """Bodies that execute, by key."""
        self.parked = False
        self.evicted = False


class Residents:
    """All residents by run. Only the user's loop changes it; `listing` may be called from any thread."""

    def __init__(self) -> None:
        self._runs: dict[str, Resident] = {}
        self._parked: dict[str, Resident] = {}
        self.get = self._runs.get
        self.hash = 0

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Resident]:
        return iter(list(self._runs.values()))

    @property
    def parked(self) -> int:
        """How many are parked."""
        return len(self._parked)

    def longest_parked(self) -> Iterator[Resident]:
        """The parked ones, in the order in which they parked."""
        return iter(list(self._parked.values()))

    def add(self, resident: Resident) -> None:
        """Takes a run in."""
        assert resident.run_id not in self._runs, "a run is resident once"
        self._runs[resident.run_id] = resident
        self.hash = (self.hash + resident.digest) % HASH_MODULUS

    def remove(self, resident: Resident) -> None:
        """Forgets a run."""
        del self._runs[resident.run_id]
        self._parked.pop(resident.run_id, None)
        self.hash = (self.hash - resident.digest) % HASH_MODULUS

    def set_parked(self, resident: Resident, parked: bool) -> None:
        """Notes that a run has parked, or goes on."""
        resident.parked = parked
        if parked:
            self._parked[resident.run_id] = resident
        else:
            self._parked.pop(resident.run_id, None)

    def listing(self) -> dict[str, step_pb2.Resident]:
        """The residents as Hello says them. One whose assignment is still arriving is not: the rest of it is lost."""
        while True:  # the dict may change underneath: then once more
            try:
                return {
                    run_id: step_pb2.Resident(run_id=run_id, turn=one.turn, parked=one.parked)
                    for run_id, one in list(self._runs.items())
                    if one.assign is None
                }
            except RuntimeError:
                continue
