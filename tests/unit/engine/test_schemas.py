"""The judge of schemas: what may be registered, what a misfit says, and that nothing is lost where it cannot judge."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from stepwell_server.engine import schemas
from stepwell_server.engine.expressions import Unjudged
from stepwell_server.engine.matching import TriggerIndex
from stepwell_server.engine.register import check_functions, pack, unpack
from stepwell_server.model.errors import InvalidError
from stepwell_server.model.event import EventRow
from stepwell_server.model.function import DeploymentRow, FunctionSpec, Trigger
from stepwell_server.model.limits import LIMITS

NODE: dict[str, Any] = {
    "$ref": "#/$defs/Node",
    "$defs": {
        "Node": {
            "anyOf": [
                {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}, "kind": {"const": "a"}}},
                {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}, "kind": {"const": "b"}}},
                {"type": "null"},
            ]
        }
    },
}
NUMBER = b'{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]}'


def text(schema: Any) -> bytes:
    return json.dumps(schema).encode()


def judge(schema: Any, value: Any) -> schemas.Misfit | None:
    compiled = schemas.of(text(schema))
    assert compiled is not None
    return compiled.misfit(value, len(text(value)))


def doubling(levels: int) -> dict[str, Any]:
    """Each part names the next one twice."""
    parts: dict[str, Any] = {
        f"p{i}": {"anyOf": [{"$ref": f"#/$defs/p{i + 1}"}, {"$ref": f"#/$defs/p{i + 1}"}]} for i in range(levels)
    }
    return {"$ref": "#/$defs/p0", "$defs": {**parts, f"p{levels}": {"type": "string"}}}


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (b"{", "unexpected end"),
        (b"[1]", "neither an object"),
        (rb'"{\"$ref\":\"http://127.0.0.1:1/s.json\"}"', "neither an object"),
        (b'{"type":"strin"}', ".type"),
        (b'{"properties":{"a":{"required":"b"}}}', ".properties.a.required"),
        (b'{"pattern":"("}', ".pattern"),
        (b'{"$ref":"http://127.0.0.1:1/s.json"}', "leads out of the document"),
        (b'{"$ref":"file:///etc/hostname"}', "leads out of the document"),
        (b'{"properties":{"a":{"$ref":"other.json"}}}', "leads out of the document"),
        (b'{"$ref":"#/$defs/nowhere"}', "leads nowhere"),
        (b'{"$ref":5}', "leads out of the document"),
        (b'{"$dynamicRef":"#node"}', "$dynamicRef"),
        (b'{"$schema":"http://json-schema.org/draft-07/schema#"}', "$schema"),
        (b'{"properties":{"a":{"$id":"http://a/b"}}}', "$id"),
        (text(doubling(40)), "parts once its references are followed"),
        (text(deep(300)), "nested deeper than"),
        (b"[" * 100_000, "depth limit"),
    ],
)
def test_what_is_no_schema_is_refused_by_name(schema: bytes, says: str) -> None:
    for function, where in (
        (FunctionSpec("shop/f", "shop", "f", input_schema=schema), "function shop/f: input_schema"),
        (FunctionSpec("shop/f", "shop", "f", output_schema=schema), "function shop/f: output_schema"),
        (FunctionSpec("shop/f", "shop", "f", (Trigger("a/b", "", schema),)), "function shop/f: on a/b: schema"),
    ):
        with pytest.raises(InvalidError) as refused:
            check_functions("shop", [function])
        assert refused.value.reason == "BAD_SCHEMA"
        assert refused.value.message.startswith(where)
        assert says.lower() in refused.value.message.lower()
        assert len(refused.value.message) < 600


def test_a_schema_is_bounded() -> None:
    large = text({"description": "x" * LIMITS.schema_bytes})
    with pytest.raises(InvalidError, match=str(LIMITS.schema_bytes)) as refused:
        check_functions("shop", [FunctionSpec("shop/f", "shop", "f", input_schema=large)])
    assert refused.value.reason == "TOO_LARGE"
    schemas.check("input_schema", text({"description": "x" * (LIMITS.schema_bytes - 20)}))


@pytest.mark.parametrize(
    "schema",
    [
        {},
        True,
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "urn:order", "type": "object"},
        {"$ref": "#/$defs/a%20b~1c", "$defs": {"a b/c": {"type": "string"}}},
        {"properties": {"$ref": {"type": "string"}}, "default": {"$ref": "http://nowhere/"}},
        {"prefixItems": [{"type": "string"}], "items": {"$ref": "#/prefixItems/0"}},
        {"$ref": "#"},
        NODE,
    ],
)
def test_what_is_a_schema_is_taken(schema: Any) -> None:
    schemas.check("input_schema", text(schema))


@pytest.mark.parametrize(
    ("schema", "value", "path", "says"),
    [
        ({"type": "string"}, 1, "", 'not of type "string"'),
        ({"required": ["a"]}, {}, "", '"a" is a required property'),
        ({"properties": {"a": {"items": {"type": "integer"}}}}, {"a": [1, "x"]}, ".a[1]", 'not of type "integer"'),
        (
            {"anyOf": [{"properties": {"a": {"oneOf": [{"type": "null"}, {"items": {"type": "null"}}]}}}]},
            {"a": [None, 1]},
            ".a[1]",
            'not of type "null"',
        ),
        ({"properties": {"a": {"anyOf": [{"type": "object"}, {"type": "null"}]}}}, {"a": 1}, ".a", "anyOf"),
        (NODE, {"next": {"next": {"kind": "c"}}}, "", "no alternative"),
        (
            {"properties": {"down": {"items": {"$ref": "#"}}, "n": {"type": "null"}}},
            {"down": [{}, {"n": 1}]},
            ".down[1].n",
            "null",
        ),
        ({"anyOf": [{"maxLength": 1}, {"type": "null"}]}, "x" * 40_000, "", "no alternative"),
    ],
)
def test_a_misfit_names_the_place(schema: Any, value: Any, path: str, says: str) -> None:
    misfit = judge(schema, value)
    assert misfit is not None
    assert misfit.path == path
    assert says in misfit.message


def test_a_misfit_tells_no_values_and_is_short() -> None:
    secret = "s3cret" * 1_000
    misfit = judge({"properties": {"a" * 5_000: {"enum": ["e" * 5_000]}}}, {"a" * 5_000: secret})
    assert misfit is not None
    assert "s3cret" not in misfit.message
    assert len(misfit.path) < 300
    assert len(misfit.message) < 400


def test_what_fits_fits() -> None:
    long: Any = None
    for _ in range(120):
        long = {"next": long, "kind": "b"}
    for schema, value in (
        (NODE, long),
        ({"type": "integer"}, 2**63),
        ({"type": "number"}, 1),
        ({"type": "string", "format": "date-time"}, "no date: a format is a remark"),
    ):
        assert judge(schema, value) is None


def test_a_recursive_schema_judges_a_deep_misfit_too() -> None:
    long: Any = 5
    for _ in range(120):
        long = {"next": long, "kind": "b"}
    assert judge(NODE, long) is not None, "and in no time: each alternative alone would double the work at each level"


def test_what_cannot_be_judged_fits(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert judge({"type": "string", "pattern": r"^(a|a)+\1\1b$"}, "a" * 5_000) is None
    assert "could not be judged" in caplog.text


def test_a_stored_schema_that_is_no_longer_taken_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert schemas.of(b'{"$ref":"http://127.0.0.1:1/s.json"}') is None
    assert "is not used" in caplog.text


def test_schemas_are_kept_with_the_deployment() -> None:
    function = FunctionSpec("shop/f", "shop", "f", (Trigger("a/b", "", NUMBER), Trigger("a/*")), input_schema=NUMBER)
    row = DeploymentRow("default", "shop", "d1", 0, pack([function]))
    (kept,) = unpack(row)
    assert (kept.triggers, kept.input_schema) == (function.triggers, NUMBER)


def event(name: str, **data: Any) -> tuple[EventRow, Any]:
    return EventRow("default", "evt_1", name, text(data), "", "", 0, 0, b""), data


def test_an_event_is_judged_by_the_triggers_that_it_fits() -> None:
    triggers = (
        Trigger("exact", "", NUMBER),
        Trigger("if", "event.data.v == 2", NUMBER),
        Trigger("pre/*", "", NUMBER),
        Trigger("free"),
    )
    index = TriggerIndex([FunctionSpec("shop/f", "shop", "f", triggers)], Unjudged())
    for name, data, refused in (
        ("exact", {"n": 1}, False),
        ("exact", {"n": "1"}, True),
        ("if", {"n": "1", "v": 1}, False),
        ("if", {"n": "1"}, False),
        ("if", {"n": "1", "v": 2}, True),
        ("pre/any", {}, True),
        ("pre/any", {"n": 1}, False),
        ("free", {"n": "1"}, False),
        ("other", {"n": "1"}, False),
    ):
        misfit = index.misfit(*event(name, **data))
        assert (misfit is not None) is refused, (name, data)
        if misfit is not None:
            assert misfit.reason == "EVENT_MISMATCH"
            assert "shop/f" in misfit.message
    row, data = event("exact", n="1")
    assert index.misfit(row._replace(encoding="cbor"), None) is None, "what is not JSON is not opened"


def test_without_schemas_nothing_is_judged() -> None:
    assert not TriggerIndex([FunctionSpec("shop/f", "shop", "f", (Trigger("a"), Trigger("b*")))], Unjudged()).judges
