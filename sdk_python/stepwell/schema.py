"""JSON Schemas (2020-12) of the types that annotations name: what codec.encode writes, and what convert_to reads."""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Literal, TypeAlias, cast
from uuid import UUID

from stepwell.errors import UsageError
from stepwell.typed import MAPPINGS, SEQUENCES, WRAPPERS, convert_plain, hints_of, is_model, required_keys, substitute

Schema: TypeAlias = "dict[str, Any]"
Side: TypeAlias = Literal["input", "output"]

_MODES = {"input": "validation", "output": "serialization"}
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


def derive(tp: Any, side: Side) -> bytes:
    """The schema of a type as JSON text; empty where the annotation says nothing. side: what comes in, or goes out."""
    if side == "input" and tp in (None, type(None)):
        return b""
    derivation = _Derivation(side)
    root = derivation.of(tp)
    definitions = derivation.definitions
    ref = root.get("$ref", "")
    name = ref.removeprefix("#/$defs/")
    if name in definitions and json.dumps(ref) not in json.dumps(definitions):
        root = definitions.pop(name)
    if not root:
        return b""
    return _text({**root, "$defs": definitions} if definitions else root)


def given(schema: Any) -> bytes:
    """A schema that the user wrote; empty where it is {}. Raises UsageError for what is no JSON object."""
    if not isinstance(schema, Mapping):
        raise UsageError(
            f"input_schema: {schema!r} is no JSON Schema; give a dict, or {{}} for a function that takes anything"
        )
    try:
        return _text(schema) if schema else b""
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"input_schema: it has no JSON form: {error}") from None


def _text(schema: Any) -> bytes:
    return json.dumps(schema, separators=(",", ":"), sort_keys=True, allow_nan=False).encode()


class _Derivation:
    """Classes get a definition each, so that one may hold itself. What is not known may be anything: {}."""

    def __init__(self, side: Side) -> None:
        self.definitions: dict[str, Schema] = {}
        self._side: Side = side
        self._refs: dict[Any, Schema] = {}

    def of(self, tp: Any) -> Schema:
        if tp in (None, type(None)):
            return {"type": "null"}
        try:
            if tp in _SCALARS:
                return dict(_SCALARS[tp])
        except TypeError:  # unhashable, such as Annotated with a list
            pass
        origin: Any = typing.get_origin(tp)
        args = typing.get_args(tp)
        if origin is None:
            return self._plain(tp)
        if origin in WRAPPERS:
            return self.of(args[0])
        if origin in (typing.Union, types.UnionType):
            return _any_of([self.of(arg) for arg in args])
        if origin is typing.Literal:
            return _enum(args)
        if origin is tuple:
            return self._tuple(args)
        if origin in SEQUENCES:
            return _array(self.of(args[0]))
        if origin in MAPPINGS:
            value = self.of(args[1])
            return {"type": "object", "additionalProperties": value} if value else {"type": "object"}
        if is_model(tp):
            return self._defined(tp, lambda name: self._model(tp, name))
        if isinstance(origin, type) and dataclasses.is_dataclass(origin):
            bound = dict(zip(getattr(origin, "__parameters__", ()), args, strict=False))
            return self._defined(tp, lambda _: self._dataclass(cast("type", origin), bound))
        return self.of(origin) if origin is not tp else {}

    def _plain(self, tp: Any) -> Schema:
        if isinstance(tp, typing.NewType):
            return self.of(tp.__supertype__)
        if isinstance(tp, typing.TypeVar):
            return self.of(tp.__bound__) if tp.__bound__ is not None else {}
        if is_model(tp):
            return self._defined(tp, lambda name: self._model(tp, name))
        if not isinstance(tp, type):
            return {}
        if issubclass(tp, Enum):
            return self._defined(tp, lambda _: _enum(tuple(tp)))
        if dataclasses.is_dataclass(tp):
            return self._defined(tp, lambda _: self._dataclass(tp, {}))
        if typing.is_typeddict(tp):
            return self._defined(tp, lambda _: self._object(hints_of(tp), required_keys(tp)))
        if issubclass(tp, tuple) and hasattr(tp, "_fields"):
            return self._defined(tp, lambda _: self._named_tuple(tp))
        if tp in SEQUENCES or tp is tuple:
            return {"type": "array"}
        return {"type": "object"} if tp is dict else {}

    def _defined(self, tp: Any, build: Callable[[str], Schema]) -> Schema:
        if tp in self._refs:
            return dict(self._refs[tp])
        plain = _UNSAFE.sub("_", getattr(tp, "__name__", "") or "Type")
        name, number = plain, 1
        while name in self.definitions:
            number += 1
            name = f"{plain}{number}"
        self.definitions[name] = {}
        self._refs[tp] = {"$ref": f"#/$defs/{name}"}
        try:
            self.definitions[name] = build(name)
        except TypeError:  # an annotation that cannot be resolved
            self.definitions[name] = {}
        return dict(self._refs[tp])

    def _model(self, tp: Any, name: str) -> Schema:
        try:
            schema: Schema = tp.model_json_schema(mode=_MODES[self._side], ref_template=f"#/$defs/{name}.{{model}}")
        except (RuntimeError, NameError):  # pydantic's own: it knows no schema of a member, or not yet its class
            return {}
        for inner, definition in schema.pop("$defs", {}).items():
            self.definitions[f"{name}.{inner}"] = definition
        return schema

    def _dataclass(self, tp: type, bound: dict[Any, Any]) -> Schema:
        hints = hints_of(tp)
        fields = [
            field
            for field in dataclasses.fields(tp)  # pyright: ignore[reportArgumentType]
            if field.init or self._side == "output"
        ]
        required = {
            field.name
            for field in fields
            if self._side == "output"
            or (field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING)
        }
        return self._object({field.name: substitute(hints[field.name], bound) for field in fields}, required)

    def _object(self, hints: dict[str, Any], required: set[str]) -> Schema:
        schema: Schema = {"type": "object", "properties": {name: self.of(hint) for name, hint in hints.items()}}
        if required:
            schema["required"] = sorted(required)
        return schema

    def _tuple(self, args: tuple[Any, ...]) -> Schema:
        if len(args) == 2 and args[1] is ...:
            return _array(self.of(args[0]))
        if not args or args == ((),):
            return {"type": "array", "maxItems": 0}
        members = [self.of(arg) for arg in args]
        return {"type": "array", "prefixItems": members, "minItems": len(members), "maxItems": len(members)}

    def _named_tuple(self, tp: Any) -> Schema:
        hints = hints_of(tp)
        return self._tuple(tuple(hints.get(name, Any) for name in tp._fields))


def _array(item: Schema) -> Schema:
    return {"type": "array", "items": item} if item else {"type": "array"}


def _any_of(members: list[Schema]) -> Schema:
    if {} in members:
        return {}
    kinds = [member["type"] for member in members if member.keys() == {"type"} and isinstance(member["type"], str)]
    if len(kinds) == len(members):
        return {"type": list(dict.fromkeys(kinds))} if len(set(kinds)) > 1 else {"type": kinds[0]}
    return {"anyOf": members}


def _enum(members: tuple[Any, ...]) -> Schema:
    values = [convert_plain(member.value if isinstance(member, Enum) else member) for member in members]
    try:
        _text(values)
    except (TypeError, ValueError):
        return {}
    return {"enum": values}


_SCALARS: dict[Any, Schema] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bytes: {"type": "string", "contentEncoding": "base64"},
    datetime: {"type": "string", "format": "date-time"},
    date: {"type": "string", "format": "date"},
    time: {"type": "string", "format": "time"},
    timedelta: {"type": "number"},
    UUID: {"type": "string", "format": "uuid"},
    Decimal: {"type": ["string", "number"]},
}
