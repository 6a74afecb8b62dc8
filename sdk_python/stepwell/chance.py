"""What is random in a run: drawn from its id as proto/README.md says, the same in each replay and language."""

from __future__ import annotations

import hashlib
import random
from typing import Any, NoReturn
from uuid import UUID


def run_uuid(run_id: str, n: int) -> UUID:
    """The n-th uuid of a run, from 0."""
    return UUID(bytes=_drawn(run_id, "uuid", n)[:16], version=4)


class RunRandom(random.Random):
    """The random numbers of a run. What is made of them (`randint`, `choice` …) is Python's own, the same in replay."""

    def __init__(self, run_id: str) -> None:
        # Not the base's: it would seed a generator that is never asked.
        self.gauss_next: float | None = None
        self._run_id = run_id
        self._count = 0

    def random(self) -> float:
        """The next number in [0, 1): the same in all languages."""
        return (self._word() & (2**53 - 1)) / 2**53

    def getrandbits(self, k: int, /) -> int:
        """As many bits of the next words; a word has 64."""
        if k < 0:
            raise ValueError("the number of bits must not be negative")
        bits = 0
        for _ in range(0, k, 64):
            bits = bits << 64 | self._word()
        return bits & ((1 << k) - 1)

    def _word(self) -> int:
        digest = _drawn(self._run_id, "random", self._count)
        self._count += 1
        return int.from_bytes(digest[:8], "big")

    def _of_the_run(self, *args: Any, **kwargs: Any) -> NoReturn:
        """The run alone decides the numbers, and how many the code has drawn."""
        raise NotImplementedError("the random numbers of a run have no seed and no state of their own")

    seed = getstate = setstate = _of_the_run


def _drawn(run_id: str, purpose: str, n: int) -> bytes:
    return hashlib.sha256(f"{run_id}\0{purpose}\0{n}".encode()).digest()
