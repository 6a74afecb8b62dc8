"""What goes out as JSON comes back as the type that the annotation names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, TypedDict, TypeVar
from uuid import UUID

import pytest
from pydantic import BaseModel
from stepwell.codec import convert_to, decode, encode
from stepwell.errors import SerializationError
from stepwell.event import from_unix_ms

T = TypeVar("T")


class Colour(Enum):
    RED = "red"
    BLUE = 2


class Level(IntEnum):
    LOW = 1


@dataclass
class Inner:
    at: datetime
    amount: Decimal


@dataclass
class Outer:
    name: str
    inner: Inner
    many: list[Inner] = field(default_factory=list)
    maybe: Inner | None = None


@dataclass
class Tree:
    value: int
    children: list[Tree]


@dataclass
class Page(Generic[T]):
    items: list[T]


class Shape(TypedDict):
    size: float
    note: NotRequired[str]


class Point(NamedTuple):
    x: int
    y: int


class Model(BaseModel):
    id: UUID
    when: datetime


UserId = NewType("UserId", int)
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
INNER = Inner(AT, Decimal("1.10"))
SOME_ID = UUID("12345678123456781234567812345678")

ROUND_TRIPS: list[tuple[Any, Any]] = [
    (None, Any),
    (True, bool),
    (2**63 - 1, int),
    (-(2**200), int),
    (1.5, float),
    ("größe ✓ \u0000", str),
    (b"\x00\xff", bytes),
    (AT, datetime),
    (date(2026, 1, 2), date),
    (timedelta(seconds=1.5), timedelta),
    (Decimal("0.10"), Decimal),
    (SOME_ID, UUID),
    (Colour.BLUE, Colour),
    (Colour.RED, Colour),
    (Level.LOW, Level),
    ((1, "a"), tuple[int, str]),
    ((), tuple[()]),
    ((1, 2, 3), tuple[int, ...]),
    ({3, 1}, set[int]),
    (frozenset({"a"}), frozenset[str]),
    ({1: INNER}, dict[int, Inner]),
    ({True: 1}, dict[bool, int]),
    ({"a": [INNER]}, Mapping[str, Sequence[Inner]]),
    (Outer("a", INNER, [INNER], INNER), Outer),
    (Outer("a", INNER), Outer | None),
    (None, Outer | None),
    (Tree(1, [Tree(2, [])]), Tree),
    (Page([INNER]), Page[Inner]),
    ({"size": 1.0}, Shape),
    (Point(1, 2), Point),
    (Model(id=SOME_ID, when=AT), Model),
    ([Model(id=SOME_ID, when=AT)], list[Model]),
    ("a", Literal["a", "b"]),
    (5, UserId),
    (AT, Annotated[datetime, "note"]),
    (1, int | str),
    ("1", int | str),
    (AT, datetime | str),
]


@pytest.mark.parametrize(("value", "tp"), ROUND_TRIPS, ids=lambda x: str(x)[:40])
def test_round_trip(value: Any, tp: Any) -> None:
    back = decode(encode(value, "it"), convert_to(tp), "it")
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    ("json", "tp", "says"),
    [
        (b'"1"', int, "whole number"),
        (b"null", str, "null"),
        (b"{}", Outer, "Outer misses inner, name"),
        (b'{"name":"a","inner":{"at":"x","amount":"1"}}', Outer, ".inner.at"),
        (b'[{"at":1}]', list[Inner], "[0]"),
        (b"[1]", tuple[int, int], "list of 2"),
        (b'"green"', Colour, "Colour"),
        (b'"c"', Literal["a"], "'a'"),
        (b"true", float, "number"),
        (b'{"note":"x"}', Shape, "misses size"),
        (b'{"id":"x","when":1}', Model, "it"),
        (b"NaN", float, "NaN"),
        (b"{", Any, "not valid JSON"),
        (b"\xff", Any, "not valid JSON"),
    ],
)
def test_what_does_not_fit_is_named(json: bytes, tp: Any, says: str) -> None:
    with pytest.raises(SerializationError, match="it") as caught:
        decode(json, convert_to(tp), "it")
    assert says in str(caught.value)


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    "value", [object(), float("nan"), [float("inf")], "\ud800", CIRCLE, {(1, 2): 3}, 10**5000], ids=range(7)
)
def test_values_without_json_are_refused(value: Any) -> None:
    with pytest.raises(SerializationError, match="it"):
        encode(value, "it")


def test_sets_are_written_in_one_order() -> None:
    assert encode({"b", "a", "c"}, "it") == b'["a","b","c"]'


def test_whole_numbers_are_numbers_for_floats() -> None:
    assert repr(decode(b"3", convert_to(float), "it")) == "3.0"


@pytest.mark.parametrize("ms", [-(2**63), -62_135_596_800_001, 253_402_300_800_000, 2**53 - 1, 2**63 - 1])
def test_a_time_that_no_datetime_can_hold_is_the_nearest_one(ms: int) -> None:
    year = from_unix_ms(ms).year
    assert year == (1 if ms < 0 else 9999)
