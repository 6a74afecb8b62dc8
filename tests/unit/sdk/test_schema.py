"""JSON Schemas: what annotations become, and that the record of three languages takes the same values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    TypedDict,
    TypeVar,
    Union,
)
from uuid import UUID

import pytest
from pydantic import BaseModel, Field
from stepwell import App, Event, RegistrationError, Step, Trigger, codec
from stepwell.schema import derive
from stepwell_server.engine import schemas

SHARED = Path(__file__).resolve().parents[2] / "support" / "schemas"
SAMPLES = json.loads((SHARED / "samples.json").read_text())
T = TypeVar("T")


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1


class Odd(Enum):
    IT = object()


UserId = NewType("UserId", str)


@dataclass
class Line:
    sku: str
    count: int = 1
    total: int = field(init=False, default=0)


@dataclass
class Box(Generic[T]):
    of: T


@dataclass
class Tree:
    children: list[Tree]


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


class Point(NamedTuple):
    x: int
    y: float


class Charge(BaseModel):
    amount: int = Field(alias="Amount")


class Unknown: ...


class Nested(BaseModel):
    charge: Charge
    anything: Any = None


def as_ref(name: str, definition: dict[str, Any]) -> dict[str, Any]:
    return {"$defs": {name: definition}, "items": {"$ref": f"#/$defs/{name}"}, "type": "array"}


def pair(*kinds: str) -> dict[str, Any]:
    return {"type": "array", "prefixItems": [{"type": kind} for kind in kinds], "minItems": 2, "maxItems": 2}


MOVIE = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "year": {"type": "integer"}},
    "required": ["title"],
}
LINE = {"type": "object", "properties": {"sku": {"type": "string"}, "count": {"type": "integer"}}, "required": ["sku"]}

TYPES: list[tuple[Any, Any]] = [
    (Any, {}),
    (object, {}),
    (Unknown, {}),
    (Odd, {}),
    (T, {}),
    (str, {"type": "string"}),
    (bool, {"type": "boolean"}),
    (int, {"type": "integer"}),
    (float, {"type": "number"}),
    (bytes, {"type": "string", "contentEncoding": "base64"}),
    (datetime, {"type": "string", "format": "date-time"}),
    (date, {"type": "string", "format": "date"}),
    (time, {"type": "string", "format": "time"}),
    (timedelta, {"type": "number"}),
    (UUID, {"type": "string", "format": "uuid"}),
    (Decimal, {"type": ["string", "number"]}),
    (UserId, {"type": "string"}),
    (Annotated[int, ["unhashable"]], {"type": "integer"}),
    (Optional[int], {"type": ["integer", "null"]}),  # noqa: UP045
    (int | str | None, {"type": ["integer", "string", "null"]}),
    (Union[int, Any], {}),  # noqa: UP007
    (datetime | None, {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}),
    (Literal["a", 1, None], {"enum": ["a", 1, None]}),
    (Literal[Colour.RED], {"enum": ["red"]}),
    (Colour, {"enum": ["red", "blue"]}),
    (Level, {"enum": [1]}),
    (list, {"type": "array"}),
    (list[Any], {"type": "array"}),
    (list[int], {"type": "array", "items": {"type": "integer"}}),
    (Sequence[str], {"type": "array", "items": {"type": "string"}}),
    (set[str], {"type": "array", "items": {"type": "string"}}),
    (tuple, {"type": "array"}),
    (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
    (tuple[()], {"type": "array", "maxItems": 0}),
    (tuple[int, str], pair("integer", "string")),
    (Point, pair("integer", "number")),
    (dict, {"type": "object"}),
    (dict[str, Any], {"type": "object"}),
    (Mapping[int, str], {"type": "object", "additionalProperties": {"type": "string"}}),
    (Line, LINE),
    (list[Line], as_ref("Line", LINE)),
    (Box[int], {"type": "object", "properties": {"of": {"type": "integer"}}, "required": ["of"]}),
    (Movie, MOVIE),
    (
        Tree,
        {
            "$ref": "#/$defs/Tree",
            "$defs": {
                "Tree": {
                    "type": "object",
                    "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/Tree"}}},
                    "required": ["children"],
                }
            },
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize(("tp", "expected"), TYPES, ids=[str(tp) for tp, _ in TYPES])
def test_an_annotation_becomes_a_schema(tp: Any, expected: dict[str, Any]) -> None:
    text = derive(tp, "input")
    assert json.loads(text or b"{}") == expected
    schemas.check("schema", text or b"{}")


def test_none_is_null_as_an_output_and_says_nothing_of_an_input() -> None:
    assert (derive(None, "input"), derive(type(None), "input")) == (b"", b"")
    assert json.loads(derive(type(None), "output")) == {"type": "null"}


def test_an_output_has_all_its_fields() -> None:
    schema = json.loads(derive(Line, "output"))
    assert schema["required"] == ["count", "sku", "total"]
    compiled = schemas.of(derive(Line, "output"))
    assert compiled is not None
    assert compiled.misfit(json.loads(codec.encode(Line("s"), "it")), 0) is None


def test_pydantic_says_its_own_schema() -> None:
    schema = json.loads(derive(Charge, "input"))
    assert schema["properties"]["Amount"]["type"] == "integer"
    assert schema["required"] == ["Amount"]


def test_pydantic_and_the_others_hold_each_other() -> None:
    @dataclass
    class Order:
        first: Nested
        rest: list[Nested]

    text = derive(Order, "input")
    schemas.check("schema", text)
    compiled = schemas.of(text)
    assert compiled is not None
    nested = {"charge": {"Amount": 1}}
    assert compiled.misfit({"first": nested, "rest": [nested]}, 0) is None
    misfit = compiled.misfit({"first": nested, "rest": [nested, {"charge": {"Amount": "1"}}]}, 0)
    assert misfit is not None
    assert misfit.path == ".rest[1].charge.Amount"


def test_what_pydantic_has_no_schema_of_may_be_anything() -> None:
    class Odd(BaseModel):
        model_config = {"arbitrary_types_allowed": True}
        it: Unknown

    assert derive(Odd, "input") == b""


def test_two_classes_of_one_name_are_two() -> None:
    first, second = (dataclass(type("Same", (), {"__annotations__": {"n": of}})) for of in (int, str))
    schema = json.loads(derive(tuple[first, second], "input"))  # type: ignore[valid-type]
    assert [schema["$defs"][name]["properties"]["n"]["type"] for name in ("Same", "Same2")] == ["integer", "string"]


def test_an_annotation_that_cannot_be_resolved_may_be_anything() -> None:
    @dataclass
    class Lost:
        it: Nowhere  # type: ignore[name-defined]  # noqa: F821

    assert derive(list[Lost], "output") == b'{"$defs":{"Lost":{}},"items":{"$ref":"#/$defs/Lost"},"type":"array"}'


def test_the_input_is_what_the_triggers_take() -> None:
    app = App("shop")

    @app.function(on=["a", Trigger("b/*", if_="event.data.x")])
    async def typed(step: Step, event: Event[Movie]) -> str: ...

    @app.function(on="a")
    async def plain(step: Step, event: Event) -> Any: ...

    @app.function(on="a", input_schema={"required": ["id"]})
    async def given(step: Step, event: Event[Movie]) -> None: ...

    @app.function(on="a", input_schema={})
    async def free(step: Step, event: Event[Movie]) -> None: ...

    by_name = {spec.name: spec for spec in app.specs()}
    movie = derive(Movie, "input")
    assert [by_name["typed"].input_schema, *(t.schema for t in by_name["typed"].triggers)] == [movie] * 3
    assert by_name["typed"].output_schema == b'{"type":"string"}'
    untyped = by_name["plain"]
    assert (untyped.input_schema, untyped.output_schema, untyped.triggers[0].schema) == (b"", b"", b"")
    assert (by_name["given"].input_schema, by_name["given"].triggers[0].schema) == (b'{"required":["id"]}',) * 2
    assert (by_name["free"].input_schema, by_name["free"].triggers[0].schema) == (b"", b"")


class Early(BaseModel):
    later: Later


app_of_early = App("early")


@app_of_early.function
async def takes_early(step: Step, event: Event[Early]) -> None: ...


class Later(BaseModel):
    n: int


def test_a_model_may_name_a_class_that_follows_the_function() -> None:
    (spec,) = app_of_early.specs()
    assert json.loads(spec.input_schema)["required"] == ["later"]


@pytest.mark.parametrize("wrong", ["{}", [], 5, {"a": Unknown()}, {"a": float("nan")}])
def test_what_is_no_schema_is_refused_where_it_is_given(wrong: Any) -> None:
    async def drip(step: Step) -> None: ...

    with pytest.raises(RegistrationError, match="function drip: input_schema"):
        App("shop").function(input_schema=wrong)(drip)


# --- one record in three languages ---


@dataclass
class OrderLine:
    sku: str
    count: int


class Customer(TypedDict):
    email: str
    phone: NotRequired[str]


@dataclass
class Order:
    id: str
    count: int
    price: float
    paid: bool
    tags: list[str]
    customer: Customer
    lines: list[OrderLine]
    stock: dict[str, int]
    placed: datetime
    note: str | None = None
    parent: Order | None = None


class CustomerModel(BaseModel):
    email: str
    phone: str = ""


class OrderModel(BaseModel):
    id: str
    count: int
    price: float
    paid: bool
    tags: list[str]
    customer: CustomerModel
    lines: list[OrderLine]
    stock: dict[str, int]
    placed: datetime
    note: str | None = None
    parent: OrderModel | None = None


def of_language(name: str) -> bytes:
    match name:
        case "dataclass":
            return derive(Order, "input")
        case "pydantic":
            return derive(OrderModel, "input")
        case _:
            return (SHARED / f"{name}.json").read_bytes()


LANGUAGES = ("dataclass", "pydantic", "go", "typescript")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("sample", SAMPLES["fits"], ids=lambda sample: sample["name"])
def test_an_order_fits_in_every_language(language: str, sample: Any) -> None:
    schema = schemas.of(of_language(language))
    assert schema is not None
    assert schema.misfit(sample["value"], 0) is None


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("sample", SAMPLES["misfits"], ids=lambda sample: sample["name"])
def test_what_is_no_order_fits_in_no_language(language: str, sample: Any) -> None:
    schema = schemas.of(of_language(language))
    assert schema is not None
    assert schema.misfit(sample["value"], 0) is not None


@pytest.mark.parametrize("sample", SAMPLES["fits"], ids=lambda sample: sample["name"])
def test_what_fits_is_read(sample: Any) -> None:
    for tp in (Order, OrderModel):
        assert codec.convert(sample["value"], codec.convert_to(tp), "the sample").id == sample["value"]["id"]
