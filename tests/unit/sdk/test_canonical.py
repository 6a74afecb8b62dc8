"""The text of which strict mode makes its hash. That other languages make the same is what transcripts show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from stepwell.canonical import canonical, input_hash
from stepwell.errors import SerializationError


@dataclass
class Card:
    owner: str
    limit: float


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (-1.5, "-1.5"),
        (100.0, "100"),
        (0.000001, "0.000001"),
        (-1.25e-7, "-1.25e-7"),
        (123456789012345680000.0, "123456789012345680000"),
        (1e21, "1e+21"),
        (-1.5e300, "-1.5e+300"),
        (5e-324, "5e-324"),
        (float("inf"), "null"),
    ],
)
def test_numbers_are_written_as_ecmascript_does(number: float, text: str) -> None:
    assert canonical(number) == text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1], [1.0]),
        ([{"a": 1, "b": 2}], [{"b": 2, "a": 1}]),
        ([(1, 2)], [[1, 2]]),
        ([Card("Ada", 1)], [{"limit": 1, "owner": "Ada"}]),
        ([2**53], [2**53 + 1]),
    ],
)
def test_inputs_that_are_the_same_json_have_the_same_hash(one: list[Any], other: list[Any]) -> None:
    assert input_hash(one, "one") == input_hash(other, "other")


@pytest.mark.parametrize(
    ("one", "other"),
    [([1], ["1"]), ([1], [True]), ([None], []), ([[]], [{}]), ([1, 2], [2, 1]), ([[1, 2]], [1, 2])],
)
def test_other_inputs_have_another_hash(one: list[Any], other: list[Any]) -> None:
    assert input_hash(one, "one") != input_hash(other, "other")


def test_what_is_no_json_is_named() -> None:
    with pytest.raises(SerializationError, match="the input of pay"):
        input_hash([object()], "the input of pay")
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(SerializationError, match="the input of pay"):
        input_hash(deep, "the input of pay")
