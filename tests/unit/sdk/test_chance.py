"""The random numbers of a run: one source for all that Python makes of them, and no state that one could change."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
from stepwell.chance import RunRandom, run_uuid


def drawn(of: RunRandom) -> list[Any]:
    """A bit of everything."""
    cards = list(range(52))
    of.shuffle(cards)
    return [
        of.random(),
        of.randint(1, 6),
        of.choice("abc"),
        of.gauss(),
        of.gauss(),
        of.randbytes(5),
        of.sample(cards, 5),
        cards,
    ]


def test_everything_that_is_drawn_depends_on_the_run_alone() -> None:
    assert drawn(RunRandom("run_1")) == drawn(RunRandom("run_1"))
    assert drawn(RunRandom("run_1")) != drawn(RunRandom("run_2"))


def test_numbers_are_spread_evenly() -> None:
    source = RunRandom("run_1")
    numbers = [source.random() for _ in range(20_000)]
    assert all(0 <= number < 1 for number in numbers)
    assert statistics.mean(numbers) == pytest.approx(0.5, abs=0.01)
    assert statistics.pstdev(numbers) == pytest.approx(12**-0.5, abs=0.01)


@pytest.mark.parametrize("bits", [0, 1, 63, 64, 65, 1000])
def test_bits_are_as_many_as_were_asked_for(bits: int) -> None:
    source = RunRandom("run_1")
    together = 0
    for _ in range(40):
        together |= source.getrandbits(bits)
    assert together == 2**bits - 1


def test_the_run_alone_is_the_seed() -> None:
    source = RunRandom("run_1")
    with pytest.raises(ValueError, match="negative"):
        source.getrandbits(-1)
    for change in (source.seed, source.getstate, source.setstate):
        with pytest.raises(NotImplementedError, match="no seed"):
            change(1)


def test_ids_differ_and_are_of_version_4() -> None:
    ids = {run_uuid(run, n) for run in ("run_1", "run_2") for n in range(100)}
    assert len(ids) == 200
    assert {(one.version, one.variant) for one in ids} == {(4, "specified in RFC 4122")}
