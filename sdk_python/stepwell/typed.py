"""Converters from decoded JSON to the types that annotations name, compiled once per type."""

from __future__ import annotations

import base64
import binascii
import collections.abc
import dataclasses
import types
import typing
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any, TypeAlias, cast
from uuid import UUID

Convert: TypeAlias = Callable[[Any], Any]


class TypeMismatch(ValueError):
    """JSON that does not fit; the text begins with the path."""

    def within(self, where: str) -> TypeMismatch:
        """The same, seen from one level up."""
        return TypeMismatch(f"{where}{self}" if str(self)[:1] in ".[" else f"{where}: {self}")


_compiled: dict[Any, Convert | None] = {}


def convert_to(tp: Any) -> Convert | None:
    """The converter for a type; None where decoded JSON is already right (Any, unknown classes)."""
    try:
        if tp in _compiled:
            return _compiled[tp]
    except TypeError:  # unhashable, such as Annotated with a list
        return _compile(tp)
    # A type may contain itself: while it is compiled it stands for a call of the finished converter.
    _compiled[tp] = lambda raw: _call(_compiled[tp], raw)
    try:
        _compiled[tp] = _compile(tp)
    except BaseException:
        del _compiled[tp]
        raise
    return _compiled[tp]


def is_model(tp: Any) -> bool:
    """Whether it is a pydantic model, without importing pydantic."""
    return isinstance(tp, type) and hasattr(tp, "__pydantic_validator__") and hasattr(tp, "model_validate")


def _call(to: Convert | None, raw: Any) -> Any:
    return raw if to is None else to(raw)


def _compile(tp: Any) -> Convert | None:
    if tp in (Any, object, None, type(None)):
        return None
    if tp in _SCALARS:
        return _SCALARS[tp]
    origin: Any = typing.get_origin(tp)
    args = typing.get_args(tp)
    if origin is None:
        return _compile_plain(tp)
    if origin in WRAPPERS:
        return convert_to(args[0])
    if origin in (typing.Union, types.UnionType):
        return _union(args)
    if origin is typing.Literal:
        return _literal(args)
    if origin is tuple:
        return _tuple(args)
    if origin in SEQUENCES:
        return _sequence(SEQUENCES[origin], args[0])
    if origin in MAPPINGS:
        return _mapping(args[0], args[1])
    if is_model(tp):
        return tp.model_validate
    if isinstance(origin, type) and dataclasses.is_dataclass(origin):
        return _dataclass(cast("type", origin), dict(zip(getattr(origin, "__parameters__", ()), args, strict=False)))
    return _compile(origin)


def _compile_plain(tp: Any) -> Convert | None:
    if isinstance(tp, typing.NewType):
        return convert_to(tp.__supertype__)
    if isinstance(tp, typing.TypeVar):
        return convert_to(tp.__bound__) if tp.__bound__ is not None else None
    if is_model(tp):
        return tp.model_validate
    if not isinstance(tp, type):
        return None
    if issubclass(tp, Enum):
        return _enum(tp)
    if dataclasses.is_dataclass(tp):
        return _dataclass(tp, {})
    if typing.is_typeddict(tp):
        return _typed_dict(tp)
    if issubclass(tp, tuple) and hasattr(tp, "_fields"):
        return _named_tuple(tp)
    if tp in SEQUENCES:
        return _sequence(SEQUENCES[tp], Any)
    if tp is tuple:
        return _sequence(tuple, Any)
    if tp is dict:
        return _instance(dict, "an object")
    return None


def _named(raw: Any) -> str:
    return "null" if raw is None else f"a {type(raw).__name__}"


def _instance(kind: type, wanted: str) -> Convert:
    def check(raw: Any) -> Any:
        if not isinstance(raw, kind):
            raise TypeMismatch(f"expected {wanted}, got {_named(raw)}")
        return raw

    return check


def _parsed(kind: type, wanted: str, parse: Callable[[Any], Any], source: type | tuple[type, ...] = str) -> Convert:
    def read(raw: Any) -> Any:
        if not isinstance(raw, source) or isinstance(raw, bool):
            raise TypeMismatch(f"expected {wanted}, got {_named(raw)}")
        try:
            return parse(raw)
        except (ValueError, ArithmeticError, InvalidOperation, binascii.Error) as error:
            raise TypeMismatch(f"expected {wanted}: {error}") from error

    read.__name__ = kind.__name__
    return read


def _sequence(build: Callable[[Any], Any], item: Any) -> Convert:
    to = convert_to(item)

    def read(raw: Any) -> Any:
        if not isinstance(raw, list):
            raise TypeMismatch(f"expected a list, got {_named(raw)}")
        items: list[Any] = raw  # pyright: ignore[reportUnknownVariableType]
        if to is None:
            return build(items)
        return build([_at(to, value, f"[{index}]") for index, value in enumerate(items)])

    return read


def _tuple(args: tuple[Any, ...]) -> Convert:
    if len(args) == 2 and args[1] is ...:
        return _sequence(tuple, args[0])
    if args == ((),):
        args = ()
    members = [convert_to(arg) for arg in args]

    def read(raw: Any) -> Any:
        if not isinstance(raw, list) or len(raw) != len(members):  # pyright: ignore[reportUnknownArgumentType]
            raise TypeMismatch(f"expected a list of {len(members)}, got {_named(raw)}")
        items: list[Any] = raw  # pyright: ignore[reportUnknownVariableType]
        return tuple(_at(to, value, f"[{i}]") for i, (to, value) in enumerate(zip(members, items, strict=True)))

    return read


def _mapping(key: Any, value: Any) -> Convert:
    to_key, to_value = _key(key), convert_to(value)

    def read(raw: Any) -> Any:
        if not isinstance(raw, dict):
            raise TypeMismatch(f"expected an object, got {_named(raw)}")
        fields: dict[str, Any] = raw  # pyright: ignore[reportUnknownVariableType]
        return {_at(to_key, k, f".{k}"): _at(to_value, v, f".{k}") for k, v in fields.items()}

    return read


def _key(tp: Any) -> Convert | None:
    """JSON's keys are text: numbers and booleans were written as such."""
    if tp is bool:
        return lambda text: {"true": True, "false": False}[text]
    if tp in (int, float):
        return _parsed(tp, f"a key that is {tp.__name__}", tp)
    return convert_to(tp)


def _at(to: Convert | None, raw: Any, where: str) -> Any:
    if to is None:
        return raw
    try:
        return to(raw)
    except TypeMismatch as error:
        raise error.within(where) from error.__cause__


def _union(args: tuple[Any, ...]) -> Convert | None:
    nullable = type(None) in args
    members = [convert_to(arg) for arg in args if arg is not type(None)]
    if None in members:
        return None

    def read(raw: Any) -> Any:
        if raw is None and nullable:
            return None
        problems: list[str] = []
        # Numbers: the exact type wins over one that would also accept the value. Text is tried in the declared order.
        exact = None if isinstance(raw, str) else _SCALARS.get(type(raw))
        if exact is not None and exact in members:
            return raw
        for to in members:
            try:
                return _call(to, raw)
            except (ValueError, TypeError) as error:
                problems.append(str(error))
        raise TypeMismatch(" or ".join(problems))

    return read


def _literal(args: tuple[Any, ...]) -> Convert:
    plain = {(arg.value if isinstance(arg, Enum) else arg): arg for arg in args}

    def read(raw: Any) -> Any:
        if isinstance(raw, (list, dict)) or raw not in plain:
            raise TypeMismatch(f"expected one of {list(plain)}, got {raw!r}")
        return plain[raw]

    return read


def _enum(tp: type[Enum]) -> Convert:
    members = {repr(convert_plain(member.value)): member for member in tp}

    def read(raw: Any) -> Any:
        member = members.get(repr(raw))
        if member is None:
            raise TypeMismatch(f"expected a value of {tp.__name__}, got {raw!r}")
        return member

    return read


def convert_plain(value: Any) -> Any:
    """How a value of an enum looks after its way through JSON."""
    return [convert_plain(item) for item in value] if isinstance(value, tuple) else value  # pyright: ignore


def hints_of(tp: type) -> dict[str, Any]:
    """The annotations of a class, resolved. Raises TypeError naming the class where they cannot be."""
    try:
        return typing.get_type_hints(tp, include_extras=True)
    except NameError as error:
        raise TypeError(f"the annotations of {tp.__qualname__} cannot be resolved: {error}") from error


def _dataclass(tp: type, bound: dict[Any, Any]) -> Convert:
    hints = hints_of(tp)
    fields = [
        (field.name, convert_to(substitute(hints[field.name], bound)), field)
        for field in dataclasses.fields(tp)  # pyright: ignore[reportArgumentType]
        if field.init
    ]
    required = {
        name
        for name, _, field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }

    def read(raw: Any) -> Any:
        if not isinstance(raw, dict):
            raise TypeMismatch(f"expected an object for {tp.__name__}, got {_named(raw)}")
        given: dict[str, Any] = raw  # pyright: ignore[reportUnknownVariableType]
        if not required <= given.keys():
            raise TypeMismatch(f"{tp.__name__} misses {', '.join(sorted(required - given.keys()))}")
        return tp(**{name: _at(to, given[name], f".{name}") for name, to, _ in fields if name in given})

    return read


def substitute(tp: Any, bound: dict[Any, Any]) -> Any:
    """The type with its type variables bound."""
    if not bound:
        return tp
    if isinstance(tp, typing.TypeVar):
        return bound.get(tp, tp)
    parameters = getattr(tp, "__parameters__", ())
    return tp[tuple(bound.get(p, Any) for p in parameters)] if parameters else tp


def required_keys(tp: Any) -> set[str]:
    """The keys that a TypedDict must have."""
    # Under `from __future__ import annotations` the class itself does not know which keys are not required.
    optional = {name for name, hint in hints_of(tp).items() if typing.get_origin(hint) is typing.NotRequired}
    return set(tp.__required_keys__) - optional


def _typed_dict(tp: Any) -> Convert:
    hints = hints_of(tp)
    members = {name: convert_to(hint) for name, hint in hints.items()}
    required = required_keys(tp)

    def read(raw: Any) -> Any:
        if not isinstance(raw, dict):
            raise TypeMismatch(f"expected an object for {tp.__name__}, got {_named(raw)}")
        given: dict[str, Any] = raw  # pyright: ignore[reportUnknownVariableType]
        if not required <= given.keys():
            raise TypeMismatch(f"{tp.__name__} misses {', '.join(sorted(required - given.keys()))}")
        return {name: _at(members.get(name), value, f".{name}") for name, value in given.items()}

    return read


def _named_tuple(tp: Any) -> Convert:
    hints = hints_of(tp)
    members = _tuple(tuple(hints.get(name, Any) for name in tp._fields))
    return lambda raw: tp(*members(raw))


_SCALARS: dict[Any, Convert] = {
    str: _instance(str, "text"),
    bool: _instance(bool, "true or false"),
    int: _instance(int, "a whole number"),
    float: _parsed(float, "a number", float, (int, float)),
    bytes: _parsed(bytes, "base64 text", lambda raw: base64.b64decode(raw, validate=True)),
    datetime: _parsed(datetime, "an ISO 8601 date and time", datetime.fromisoformat),
    date: _parsed(date, "an ISO 8601 date", date.fromisoformat),
    time: _parsed(time, "an ISO 8601 time", time.fromisoformat),
    timedelta: _parsed(timedelta, "seconds", lambda raw: timedelta(seconds=raw), (int, float)),
    UUID: _parsed(UUID, "a UUID", UUID),
    Decimal: _parsed(Decimal, "a decimal number", lambda raw: Decimal(str(raw)), (str, int, float)),
}
WRAPPERS = {typing.Annotated, typing.Final, typing.ClassVar, typing.Required, typing.NotRequired}
SEQUENCES: dict[Any, Callable[[Any], Any]] = {
    list: list,
    set: set,
    frozenset: frozenset,
    collections.abc.Sequence: list,
    collections.abc.MutableSequence: list,
    collections.abc.Iterable: list,
    collections.abc.Collection: list,
    collections.abc.Set: frozenset,
    collections.abc.MutableSet: set,
}
MAPPINGS = {dict, collections.abc.Mapping, collections.abc.MutableMapping}
