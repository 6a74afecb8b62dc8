"""The JSON codec: any value out, and back in as the type that an annotation names."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from stepwell.errors import SerializationError
from stepwell.typed import Convert, TypeMismatch, convert_to, is_model

__all__ = ["SerializationError", "convert", "convert_to", "decode", "encode", "render"]


def encode(value: Any, what: str) -> bytes:
    """JSON text in UTF-8. Raises SerializationError naming `what` and the type that has no JSON form."""
    return render(value, what)[1]


def render(value: Any, what: str) -> tuple[str, bytes]:
    """JSON text, and the same in UTF-8: whoever reads it back at once need not decode it. Raises as encode does."""
    try:
        scalar = _SCALARS.get(type(value))
        text = "".join(_chunks(value, 0)) if scalar is None else scalar(value)
        return text, text.encode()
    except SerializationError as error:
        raise SerializationError(f"{what}: {error}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise SerializationError(f"{what} (a {type(value).__name__}) has no JSON form: {error}") from error


def decode(data: bytes | str, to: Convert | None, what: str) -> Any:
    """The value behind JSON text, converted if a converter is given. Raises SerializationError."""
    try:
        text = data if isinstance(data, str) else data.decode()
        try:
            raw, end = _scan_once(text, 0)
        except StopIteration:
            # The decoder's own method, which looks for white space with an expression first.
            raw, end = _decoder.raw_decode(text, len(text) - len(text.lstrip(" \t\r\n")))
        if end != len(text) and text[end:].strip(" \t\r\n"):
            raise ValueError(f"something follows the value at {end}")
    except (ValueError, RecursionError) as error:
        raise SerializationError(f"{what} is not valid JSON: {error}") from error
    return raw if to is None else convert(raw, to, what)


def convert(raw: Any, to: Convert | None, what: str) -> Any:
    """Decoded JSON as the type of the converter. Raises SerializationError naming the path that does not fit."""
    if to is None:
        return raw
    try:
        return to(raw)
    except TypeMismatch as error:
        raise SerializationError(f"{what} does not fit its type: {error}") from error
    except Exception as error:  # a user's __post_init__ or a pydantic validator
        raise SerializationError(f"{what} was refused by its type: {error}") from error


def _default(value: Any) -> Any:
    kind: Any = type(value)
    if dataclasses.is_dataclass(kind):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(kind)}
    if is_model(kind):
        return value.model_dump(mode="json", by_alias=True)
    for base, write in _WRITERS:
        if isinstance(value, base):
            return write(value)
    raise SerializationError(f"type {kind.__module__}.{kind.__qualname__} has no JSON form")


def _ordered(values: Iterable[Any]) -> list[Any]:
    """A set in an order that does not depend on hashes, where its members have one."""
    items = list(values)
    try:
        return sorted(items)
    except TypeError:
        return sorted(items, key=repr)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


_WRITERS: tuple[tuple[type | tuple[type, ...], Callable[[Any], Any]], ...] = (
    (Enum, lambda value: value.value),
    ((datetime, date, time), lambda value: value.isoformat()),
    (timedelta, lambda value: value.total_seconds()),
    ((UUID, Decimal), str),
    ((bytes, bytearray, memoryview), lambda value: base64.b64encode(value).decode()),
    ((set, frozenset), _ordered),
)
# Without the encoder's set-up; the texts are the same.
_SCALARS: dict[type, Callable[[Any], str]] = {
    type(None): lambda value: "null",
    bool: lambda value: "true" if value else "false",
    int: int.__repr__,
    str: json.encoder.encode_basestring,
}


def _make_chunks() -> Callable[[Any, int], Iterable[str]]:
    """json's own encoder, made once: json.dumps makes one for each value, which costs more than most values."""
    encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_default)
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return lambda value, _: encoder.iterencode(value)
    # Without markers a value that holds itself ends in a RecursionError.
    return make(None, _default, json.encoder.encode_basestring, None, ":", ",", False, False, False)


_chunks = _make_chunks()
_decoder = json.JSONDecoder(parse_constant=_refuse)
_scan_once: Callable[[str, int], tuple[Any, int]] = json.scanner.make_scanner(_decoder)  # pyright: ignore
